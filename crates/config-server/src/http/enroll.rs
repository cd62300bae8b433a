use super::reply::{Answer, Ask, Refusal, Reply};
use crate::ServerError;
use crate::app::App;
use crate::fleet::Node;
use crate::record::name_of;
use axum::extract::State;
use landfall_api_types::node::{Enroll, Enrolled};
use landfall_api_types::resource::NodeRole;
use landfall_api_types::{ApiError, codes};
use landfall_pki::{PeerIdentity, PkiError, Role, request_key};
use landfall_store::NodeRow;
use landfall_types::NodeId;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Most bytes of a server's or machine's name.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// The role as certificates name it.
pub(super) const fn certificate_role(role: NodeRole) -> Role {
    match role {
        NodeRole::Agent => Role::Agent,
        NodeRole::ProcessServer => Role::ProcessServer,
        NodeRole::MasterTarget => Role::MasterTarget,
        NodeRole::Operator => Role::Operator,
    }
}

/// `POST /v1/enroll`.
pub(super) async fn enroll(State(app): State<Arc<App>>, Ask(ask): Ask<Enroll>) -> Answer<Enrolled> {
    if !same_in_constant_time(ask.passphrase.trim().as_bytes(), app.passphrase.as_bytes()) {
        let cause = "the passphrase is not this server's";
        return Err(ApiError::new(&codes::BAD_PASSPHRASE, cause).into());
    }
    check_name(&ask.name)?;
    if ask.role == NodeRole::Operator {
        let cause = "operators do not enrol";
        return Err(ApiError::new(&codes::NOT_AUTHORIZED, cause).into());
    }
    let key = request_key(&ask.csr_pem).map_err(refused_request)?.to_string();
    let node = register(&app, &ask, key).await?;
    let identity = PeerIdentity { role: certificate_role(ask.role), node };
    let signed =
        app.authority.sign(&ask.csr_pem, identity, SystemTime::now()).map_err(refused_request)?;
    tracing::info!(name = ask.name, role = %identity.role, %node, "a node has enrolled");
    Ok(Reply(Enrolled { node, certificate_pem: signed.pem, ca_pem: signed.authority_pem }))
}

/// The node's ID: a new one, or the former one of whoever shows the same key under the same name
/// and role. A request whose answer was lost is repeated with the same key.
async fn register(app: &App, ask: &Enroll, key: String) -> Result<NodeId, Refusal> {
    let mut tx = app.store.begin().await?;
    if let Some(known) = tx.node_named(&ask.name).await? {
        if known.key == key && known.role == name_of(&ask.role) {
            return Ok(known.id);
        }
        let cause = format!("a {} named {:?} is registered with another key", known.role, ask.name);
        return Err(ApiError::new(&codes::NAME_TAKEN, cause).into());
    }
    let row = NodeRow {
        id: NodeId::generate(),
        name: ask.name.clone(),
        role: name_of(&ask.role),
        key: key.clone(),
        address: ask.address.clone(),
        version: ask.version.clone(),
        last_report: None,
        report: None,
    };
    tx.insert_node(&row).await?;
    tx.commit().await?;
    let mut node = Node::new(row.id, row.name, ask.role, key);
    node.address = row.address;
    node.version = row.version;
    node.persisted = Some(Instant::now());
    app.fleet.add(node);
    Ok(row.id)
}

/// Names appear in paths, exports and file names.
pub(crate) fn check_name(name: &str) -> Result<(), ApiError> {
    let sign = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_' | '.');
    let good = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.chars().all(sign)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if good {
        return Ok(());
    }
    let cause = format!(
        "the name {name:?} is not 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 - _ . beginning with a \
         letter or digit"
    );
    Err(ApiError::new(&codes::BAD_REQUEST, cause))
}

pub(super) fn refused_request(error: PkiError) -> Refusal {
    match error {
        PkiError::Request(_) => {
            Refusal(ApiError::new(&codes::BAD_REQUEST, format!("csr_pem: {error}")))
        }
        other => ServerError::Pki(other).into(),
    }
}

/// Takes the same time wherever the first difference is, so that the answer's time tells nothing
/// about it.
fn same_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    let mut different = u8::from(a.len() != b.len());
    for (at, expected) in b.iter().enumerate() {
        different |= expected ^ a.get(at).copied().unwrap_or(0);
    }
    std::hint::black_box(different) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passphrases_are_compared_whole() {
        assert!(same_in_constant_time(b"abc", b"abc"));
        for wrong in [&b""[..], b"ab", b"abd", b"abcd", b"xbc"] {
            assert!(!same_in_constant_time(wrong, b"abc"));
        }
    }

    #[test]
    fn names_fit_paths_and_exports() {
        for good in ["a", "db-1", "DB_1.x", &"x".repeat(NAME_BYTES_MAX)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "ä", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
