//! The state directory: authority, the server's own credentials, an operator's, the passphrase,
//! `ready.json`.

use crate::ServerError;
use landfall_pki::{
    Credentials, FleetAuthority, Member, PeerIdentity, PkiError, Role, read_secret, write_secret,
};
use landfall_types::NodeId;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Without letters and digits that look alike: 32 signs, five bits each.
const PASSPHRASE_SIGNS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Five groups of five signs: 125 random bits, so that guessing over the network is hopeless.
const PASSPHRASE_GROUPS: usize = 5;

/// `ready.json`: written when the server answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// `https://host:port`.
    pub url: String,
    /// SHA-256 of the authority's certificate, hexadecimal.
    pub fingerprint: String,
    /// File with the registration passphrase.
    pub passphrase_file: PathBuf,
    /// Directory of an operator's credentials.
    pub operator_credentials: PathBuf,
}

/// The registration passphrase of a server's state directory.
///
/// # Errors
/// [`ServerError::Pki`] when there is none yet, or others may read it.
pub fn passphrase(state_dir: &Path) -> Result<String, ServerError> {
    let text = read_secret(&state_dir.join("passphrase")).map_err(ServerError::Pki)?;
    Ok(text.trim().to_owned())
}

/// What a server needs of its state directory.
pub(crate) struct Identity {
    pub(crate) authority: FleetAuthority,
    pub(crate) credentials: Credentials,
    pub(crate) passphrase: String,
}

/// Opens the state directory, or makes it at the first start.
pub(crate) fn open(state_dir: &Path, url: &str) -> Result<Identity, ServerError> {
    let now = SystemTime::now();
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| ServerError::File { operation, path, source }
    };
    std::fs::create_dir_all(state_dir).map_err(failed("create", state_dir))?;
    let authority =
        FleetAuthority::open_or_create(&state_dir.join("ca"), now).map_err(ServerError::Pki)?;
    let credentials = member(&authority, &state_dir.join("server"), Role::Server, url)?;
    if credentials.renewal_due(now) {
        renew(&authority, &credentials).map_err(ServerError::Pki)?;
    }
    let operator = member(&authority, &state_dir.join("operator"), Role::Operator, url)?;
    if operator.renewal_due(now) {
        renew(&authority, &operator).map_err(ServerError::Pki)?;
    }
    let path = state_dir.join("passphrase");
    if !path.exists() {
        write_secret(&path, new_passphrase()?.as_bytes()).map_err(ServerError::Pki)?;
    }
    Ok(Identity { authority, credentials, passphrase: passphrase(state_dir)? })
}

/// A member that lives beside the authority: credentials without enrolment. The address is written
/// anew at each start, because an operator's client finds the server by it.
fn member(
    authority: &FleetAuthority,
    dir: &Path,
    role: Role,
    url: &str,
) -> Result<Credentials, ServerError> {
    let exists = Credentials::exist(dir);
    if exists {
        let credentials = Credentials::open(dir).map_err(ServerError::Pki)?;
        if credentials.member().server_url == url {
            return Ok(credentials);
        }
        let member = Member { server_url: url.to_owned(), ..credentials.member().clone() };
        return credentials.change_member(&member).map_err(ServerError::Pki);
    }
    let id = NodeId::generate();
    let member = Member { id, role, name: role.name().to_owned(), server_url: url.to_owned() };
    let (key_pem, request) = Credentials::key_and_request(dir).map_err(ServerError::Pki)?;
    let identity = PeerIdentity { role, node: id };
    let certificate =
        authority.sign(&request, identity, SystemTime::now()).map_err(ServerError::Pki)?;
    Credentials::create(dir, &member, &key_pem, &certificate).map_err(ServerError::Pki)
}

/// A new certificate over the same key, for members beside the authority.
pub(crate) fn renew(authority: &FleetAuthority, credentials: &Credentials) -> Result<(), PkiError> {
    let request = credentials.renewal_request()?;
    let certificate = authority.sign(&request, credentials.identity(), SystemTime::now())?;
    credentials.renew(&certificate.pem)
}

fn new_passphrase() -> Result<String, ServerError> {
    let mut bytes = [0; 5 * PASSPHRASE_GROUPS];
    getrandom::fill(&mut bytes).map_err(|source| ServerError::Pki(PkiError::Random(source)))?;
    let sign = |byte: &u8| char::from(PASSPHRASE_SIGNS[usize::from(byte % 32)]);
    let groups: Vec<String> =
        bytes.chunks(5).map(|group| group.iter().map(sign).collect()).collect();
    Ok(groups.join("-") + "\n")
}

/// Says that the server answers; written whole, so that whoever waits for it never reads half.
pub(crate) fn write_ready(state_dir: &Path, ready: &Ready) -> Result<(), ServerError> {
    let path = state_dir.join("ready.json");
    let text = serde_json::to_vec_pretty(ready)
        .map_err(|source| ServerError::Record { what: "ready.json".to_owned(), source })?;
    let partial = state_dir.join("ready.json.partial");
    let failed = |operation| {
        let path = path.clone();
        move |source| ServerError::File { operation, path, source }
    };
    std::fs::write(&partial, text).map_err(failed("write"))?;
    std::fs::rename(&partial, &path).map_err(failed("rename to"))
}
