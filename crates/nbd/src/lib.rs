//! Serves views and branches over NBD to programs that were not written here (QEMU, libvirt,
//! nbdkit, libnbd's tools, Linux), and connects to such servers. A recovered machine runs from this
//! server at once, whatever the size of its disk.
//!
//! ```text
//!   bytes ─► handshake ─► export chosen ─► judge ─► Export ─► ReplyWriter ─► bytes
//!            (pure)                        (pure)   (store)   (pure)
//! ```
//!
//! # Invariants
//! * A request is answered with success only after the export has: writes are durable by then (trap
//!   T-10), so FUA and FLUSH add nothing and several connections see one disk.
//! * Data that is not exactly what was asked for is never sent; the client gets EIO.
//! * After [`Server::disconnect`] returns, no request of those connections is in flight: authority
//!   may move (T-17).
//! * What a peer claims (lengths, counts, names) is compared with [`proto::limits`] before memory
//!   is taken for it.
//! * On TCP nothing is said before TLS, neither by the server nor by our client.
//! * A client can hold up only itself: bounds are per connection, and nothing waits for a client
//!   while holding a lock.
//!
//! # Where to start
//! [`Export`] and [`Exports`] are the seam to the store. Then [`Server`], and `server/session.rs`
//! for the life of a request;
//! `handshake.rs` and [`proto::judge`] for what is accepted. `docs/formats/nbd.md` lists what is
//! spoken and with which limits.
//!
//! # Absent on purpose
//! Extended headers and the old negotiation styles (decision 0014).

mod client;
mod export;
mod handshake;
mod operation;
pub mod proto;
mod server;
#[cfg(feature = "testing")]
pub mod testing;
mod uri;

pub use client::{Client, ClientError, ClientTls, ExportInfo};
pub use export::{Access, Change, Content, Export, ExportError, Exports, Extent, Ticket};
pub use server::{
    Endpoint, ListenError, Listener, Security, Server, ServerOptions, SessionEnd, SessionError,
};
pub use uri::{tls_uri, unix_uri};
