//! Uplinks over TCP with mutual TLS.

use crate::source::Source;
use crate::uplink::{Answer, Network, Uplink};
use landfall_pki::{Credentials, PkiError, Role, tls};
use landfall_repl::{HashReply, HashRequest, ImageData, Refusal, SenderOptions, SenderPhase};
use landfall_transport::{Limiter, SenderConfig, SenderHandle, run_sender};
use landfall_types::Lsn;
use landfall_wire::Compression;
use rustls::ClientConfig;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A replica that is not there, or has another history, may be there later: the operator mends it
/// at the target.
const RETRY_PERMANENT_MS: u64 = 5_000;

/// Makes links to process servers of the fleet.
pub struct FleetNetwork {
    tls: Arc<ClientConfig>,
}

impl FleetNetwork {
    /// With a node's credentials.
    ///
    /// # Errors
    /// [`PkiError`] when they are of no use for TLS.
    pub fn new(credentials: &Credentials) -> Result<Self, PkiError> {
        // A master target takes logs too: a machine may be protected without a relay in between.
        let tls = tls::data_client(credentials, &[Role::ProcessServer, Role::MasterTarget])?;
        Ok(Self { tls })
    }
}

impl Network for FleetNetwork {
    fn connect(&self, next_hop: &str, source: Arc<Source>) -> Arc<dyn Uplink> {
        let config = SenderConfig {
            address: next_hop.to_owned(),
            tls: Arc::clone(&self.tls),
            compression: Compression::default(),
            limiter: Arc::new(Limiter::new(None)),
            options: SenderOptions {
                retry_permanent_ms: Some(RETRY_PERMANENT_MS),
                history_bytes: 0,
            },
        };
        Arc::new(FleetUplink(run_sender(config, source)))
    }
}

struct FleetUplink(SenderHandle);

impl Uplink for FleetUplink {
    fn image(&self, piece: ImageData) -> Answer<()> {
        let sender = self.0.clone();
        Box::pin(async move { sender.image(piece).await })
    }

    fn hash(&self, request: HashRequest) -> Answer<HashReply> {
        let sender = self.0.clone();
        Box::pin(async move { sender.hash(request).await })
    }

    fn ended(&self) -> Pin<Box<dyn Future<Output = Refusal> + Send>> {
        let mut status = self.0.status();
        Box::pin(async move {
            let given_up = status.wait_for(|status| status.phase == SenderPhase::Stopped).await;
            let refusal = given_up.ok().and_then(|status| status.refusal.clone());
            let stopped = || Refusal::Unavailable { reason: "the sender was stopped".to_owned() };
            refusal.unwrap_or_else(stopped)
        })
    }

    fn sent(&self) -> Lsn {
        self.0.status().borrow().sent
    }

    fn link(&self) -> (bool, Option<f64>) {
        let status = self.0.status();
        let status = status.borrow();
        let us = status.rtt_us.map(|us| f64::from(u32::try_from(us).unwrap_or(u32::MAX)));
        (status.phase == SenderPhase::Live, us.map(|us| us / 1000.0))
    }

    fn refusal(&self) -> Option<Refusal> {
        self.0.status().borrow().refusal.clone()
    }

    fn connect_error(&self) -> Option<String> {
        self.0.status().borrow().connect_error.clone()
    }

    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let sender = self.0.clone();
        Box::pin(async move { sender.stop().await })
    }
}
