use super::server::Server;
use super::world::World;
use landfall_api_client::{Enrolment, NodeClient, OrderHandler, OrderLoop};
use landfall_api_types::ApiError;
use landfall_api_types::order::{Order, OrderOutcome};
use landfall_api_types::resource::NodeRole;
use landfall_types::{NodeId, OrderId};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) fn enrolment(name: &str, server: &Server) -> Enrolment {
    let ready = server.ready();
    let role = match name.split('-').next() {
        Some("agent") => NodeRole::Agent,
        Some("ps") => NodeRole::ProcessServer,
        _ => NodeRole::MasterTarget,
    };
    Enrolment {
        server_url: ready.url,
        fingerprint: ready.fingerprint.parse().expect("hex"),
        passphrase: server.passphrase(),
        role,
        name: name.to_owned(),
        address: None,
        version: "test".to_owned(),
    }
}

/// A node that enrols, reports and carries out orders against the [`World`].
pub(crate) struct FakeNode {
    pub(crate) name: String,
    pub(crate) id: NodeId,
    tasks: Vec<JoinHandle<()>>,
}

impl FakeNode {
    pub(crate) async fn start(
        dir: &Path,
        name: &str,
        server: &Server,
        world: &Arc<Mutex<World>>,
    ) -> Self {
        let client =
            NodeClient::open_or_enroll(dir, &enrolment(name, server)).await.expect("enrolled");
        let id = client.credentials().member().id;
        world.lock().expect("not poisoned").add_node(id, name);
        let handler = Arc::new(Handler { id, world: Arc::clone(world) });
        let orders = OrderLoop::open(client.clone(), dir).expect("a ledger");
        let orders = tokio::spawn(async move {
            orders.run(handler, CancellationToken::new()).await.expect("a ledger that works");
        });
        let world = Arc::clone(world);
        let reports = tokio::spawn(async move {
            loop {
                let report = world.lock().expect("not poisoned").report(id);
                let _ = client.report(&report).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { name: name.to_owned(), id, tasks: vec![orders, reports] }
    }

    pub(crate) async fn kill(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Handler {
    id: NodeId,
    world: Arc<Mutex<World>>,
}

impl OrderHandler for Handler {
    async fn carry_out(&self, _: OrderId, order: Order) -> Result<OrderOutcome, ApiError> {
        loop {
            let held = self.world.lock().expect("not poisoned").is_held(&order);
            if !held {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.world.lock().expect("not poisoned").carry_out(self.id, &order)
    }
}
