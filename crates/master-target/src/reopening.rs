//! After an I/O error a replica's logs are poisoned: what the disk holds is not known any more. The
//! replica is given up and opened anew, which recovers what is durable; until that succeeds its
//! sender is told to come again, and the report has a problem.

use crate::errors;
use crate::export_name::export_name;
use crate::hosted::{Hosted, lock};
use crate::target::Target;
use landfall_volume::StorageError;
use std::sync::Arc;

impl Target {
    /// Opens anew what has failed. One that is still held (a fold that ends, a client's request) is
    /// opened by a later attempt.
    pub async fn reopen_failed(self: &Arc<Self>) {
        let mut given_up = false;
        for hosted in self.all() {
            if hosted.replica.poisoned() {
                self.give_up(hosted).await;
                given_up = true;
            }
        }
        if given_up {
            self.retry_problems().await;
        }
    }

    async fn give_up(self: &Arc<Self>, hosted: Arc<Hosted>) {
        let id = hosted.replica.id();
        // Orders that make or remove replicas must not meet it half-way.
        let _making = self.making.lock().await;
        if self.take(id).is_none() {
            return;
        }
        tracing::error!(replica = %id, "an I/O error: the replica is opened anew and recovered");
        self.note_problem(id, &StorageError::Poisoned);
        if let Some(reverse) = hosted.reverse.lock().await.take() {
            reverse.stop().await;
        }
        // Sessions that still hold it are over.
        lock(&hosted.sessions).newest += 1;
        let status = hosted.replica.status();
        hosted.with(landfall_volume::Replica::retire).await;
        match status {
            Ok(status) => {
                let of_it: Vec<String> = status
                    .disks
                    .iter()
                    .map(|disk| export_name(&status.machine_name, disk.index, ""))
                    .collect();
                let ends = |name: &str| of_it.iter().any(|start| name.starts_with(start));
                self.nbd().disconnect_matching(ends).await;
            }
            Err(error) => {
                let error = errors::chain(&error);
                tracing::warn!(replica = %id, error, "its exports end with their clients");
            }
        }
    }
}
