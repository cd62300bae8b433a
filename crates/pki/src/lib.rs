//! The fleet's own certificate authority, the credentials of its members, and the TLS
//! configurations made of them.
//!
//! Every connection between roles is TLS 1.3 with certificates of one authority, made by the
//! configuration server at its first start. A certificate names its bearer by one URI:
//! `landfall://<role>/<node id>`. Peers are addressed by orders, not by names that a resolver could
//! be made to lie about, so who a peer is follows from that URI alone and host names are never
//! compared. The one exception are programs that use disks over NBD and were not written here
//! (QEMU, libnbd): they compare names, so a master target's certificate can carry some, and their
//! own certificates are written as such programs look for them ([`write_disk_client`]).
//!
//! ```text
//! FleetAuthority ── sign ──► Credentials (a directory) ──► tls::data_server / data_client     (both sides show theirs)
//!      │                                               ──► tls::rest_server                   (client may show one)
//!      └─ fingerprint ── given to people ──► tls::enrolling_client ──► tls::rest_client
//! ```
//!
//! # Invariants
//! * Private keys never leave the machine that made them; their files are readable by their owner
//!   only.
//! * A certificate is made from the *public key* of a request; names, roles and usages in the
//!   request are ignored.
//! * An enrolling client trusts nothing but the pinned fingerprint of the authority's certificate.
//!
//! Start with [`FleetAuthority`], then [`Credentials`], then [`tls`]. Not here: revocation lists (a
//! node that is to lose its access is refused by the configuration server, which knows every node
//! by its ID).

mod authority;
mod credentials;
mod disk_client;
mod error;
mod files;
mod identity;
mod live;
mod names;
mod request;
pub mod tls;

pub use authority::{Certificate, DISK_CLIENT_LIFETIME, FleetAuthority, LEAF_LIFETIME};
pub use credentials::{Credentials, Member};
pub use disk_client::write_disk_client;
pub use error::PkiError;
pub use files::{read_secret, write_secret};
pub use identity::{Fingerprint, PeerIdentity, Role, peer_identity};
pub use live::LiveKey;
pub use names::NAMES_MAX;
pub use request::{KeyAndRequest, REQUEST_BYTES_MAX, request_key};
