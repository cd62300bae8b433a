//! A TCP proxy between sender and receiver that does what networks do (fault F4).

use super::memory::lock;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What one connection suffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// Cut when this many bytes have gone from the sender to the receiver.
    CutUp(u64),
    /// Cut when this many bytes have gone from the receiver to the sender.
    CutDown(u64),
}

/// See the module. Dropped, it cuts all of its connections.
pub struct Proxy {
    /// Where to connect to.
    pub address: SocketAddr,
    /// Bytes of all connections: from the sender, to the sender.
    pub bytes: Arc<[AtomicU64; 2]>,
    /// While true, connections that exist swallow everything and say nothing.
    pub black_hole: watch::Sender<bool>,
    next: Arc<Mutex<Fault>>,
    cuts: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Carries connections to `to`; the first one suffers `fault`, later ones are left alone.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn new(to: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let bytes = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let black_hole = watch::Sender::new(false);
        let cuts = watch::Sender::new(0);
        let (counters, hole, cut) = (Arc::clone(&bytes), black_hole.subscribe(), cuts.subscribe());
        let next = Arc::new(Mutex::new(fault));
        let faults = Arc::clone(&next);
        let task = tokio::spawn(async move {
            // Dropped with the proxy: then all of its connections are cut.
            let mut carried = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let fault = std::mem::replace(&mut *lock(&faults), Fault::None);
                let mut cut = cut.clone();
                cut.mark_unchanged();
                let carry = carry(near, to, fault, Arc::clone(&counters), hole.clone());
                carried.spawn(async move {
                    tokio::select! {
                        () = carry => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, bytes, black_hole, next, cuts, task }
    }

    /// Cuts the connections that exist; new ones are carried.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The next connection suffers this.
    pub fn strike(&self, fault: Fault) {
        *lock(&self.next) = fault;
    }

    /// Bytes carried so far: from the sender, to the sender.
    #[must_use]
    pub fn carried(&self) -> [u64; 2] {
        [0, 1].map(|way| self.bytes[way].load(Ordering::Relaxed))
    }
}

async fn carry(
    near: TcpStream,
    to: SocketAddr,
    fault: Fault,
    bytes: Arc<[AtomicU64; 2]>,
    hole: watch::Receiver<bool>,
) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let (up, down) = match fault {
        Fault::None => (u64::MAX, u64::MAX),
        Fault::CutUp(after) => (after, u64::MAX),
        Fault::CutDown(after) => (u64::MAX, after),
    };
    // When either direction ends, both halves are dropped: the cut is total, as when a machine
    // dies.
    tokio::select! {
        () = pump(near_read, far_write, up, &bytes[0], hole.clone()) => {}
        () = pump(far_read, near_write, down, &bytes[1], hole) => {}
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut left: u64,
    counter: &AtomicU64,
    mut hole: watch::Receiver<bool>,
) {
    let mut buffer = [0; 4096];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Ok(read @ 1..) = from.read(&mut buffer[..most]).await else { return };
        if *hole.borrow_and_update() {
            // For ever: this connection is half-open until its ends notice.
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        counter.fetch_add(read as u64, Ordering::Relaxed);
        left -= read as u64;
    }
}
