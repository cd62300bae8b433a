//! Members of a small fleet with certificates of their own authority.

use landfall_pki::{Credentials, FleetAuthority, KeyAndRequest, Member, PeerIdentity, Role, tls};
use landfall_types::NodeId;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tempfile::TempDir;

/// An authority that signs for anyone.
pub struct Fleet {
    authority: FleetAuthority,
    dir: TempDir,
}

/// The TLS configurations of one member.
#[derive(Clone)]
pub struct MemberTls {
    /// Its ID.
    pub node: NodeId,
    /// To listen; every role may connect.
    pub server: Arc<rustls::ServerConfig>,
    /// Its key and certificate.
    pub credentials: Credentials,
    /// To connect to process servers and master targets.
    pub client: Arc<rustls::ClientConfig>,
}

impl Fleet {
    /// A new authority.
    ///
    /// # Panics
    /// When there is no temporary directory.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let authority =
            FleetAuthority::open_or_create(dir.path(), SystemTime::now()).expect("made");
        Self { authority, dir }
    }

    /// A member of this role.
    ///
    /// # Panics
    /// When its certificate can't be made.
    #[must_use]
    pub fn member(&self, role: Role) -> MemberTls {
        let node = NodeId::generate();
        let credentials = credentials(&self.authority, self.dir.path(), node, role);
        let hops = [Role::MasterTarget, Role::ProcessServer];
        MemberTls {
            node,
            server: tls::data_server(&credentials, &Role::ALL).expect("config"),
            client: tls::data_client(&credentials, &hops).expect("config"),
            credentials,
        }
    }
}

impl Fleet {
    /// Rotates a member's certificate, as a node does when two thirds of its life are over.
    ///
    /// # Panics
    /// When it can't be signed or taken into use.
    pub fn renew(&self, member: &MemberTls) {
        let credentials = &member.credentials;
        let request = credentials.renewal_request().expect("a request");
        let signed = self.authority.sign(&request, credentials.identity(), SystemTime::now());
        credentials.renew(&signed.expect("signed").pem).expect("in use");
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}

fn credentials(authority: &FleetAuthority, dir: &Path, id: NodeId, role: Role) -> Credentials {
    let made = KeyAndRequest::generate().expect("key");
    let peer = PeerIdentity { role, node: id };
    let signed = authority.sign(&made.request_pem, peer, SystemTime::now()).expect("signed");
    let member =
        Member { id, role, name: role.name().into(), server_url: "https://localhost:1".into() };
    Credentials::create(&dir.join(id.to_string()), &member, &made.key_pem, &signed).expect("kept")
}
