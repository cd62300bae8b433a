//! Real handshakes, in memory, between members of one fleet, of another fleet, and strangers.

use landfall_pki::{
    Credentials, FleetAuthority, KeyAndRequest, LEAF_LIFETIME, Member, PeerIdentity, Role,
    peer_identity, tls,
};
use landfall_types::NodeId;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Fleet {
    dir: tempfile::TempDir,
    authority: FleetAuthority,
}

impl Fleet {
    fn new() -> Self {
        Self::founded(SystemTime::now())
    }
    fn founded(when: SystemTime) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let authority = FleetAuthority::open_or_create(&dir.path().join("ca"), when).expect("make");
        Self { dir, authority }
    }
    fn member(&self, role: Role) -> Credentials {
        self.member_since(role, SystemTime::now())
    }
    fn member_since(&self, role: Role, when: SystemTime) -> Credentials {
        let id = NodeId::generate();
        let made = KeyAndRequest::generate().expect("key");
        let identity = PeerIdentity { role, node: id };
        let certificate = self.authority.sign(&made.request_pem, identity, when).expect("sign");
        let server_url = "https://127.0.0.1:1".to_owned();
        let member = Member { id, role, name: role.to_string(), server_url };
        let dir = self.dir.path().join(id.to_string());
        Credentials::create(&dir, &member, &made.key_pem, &certificate).expect("create")
    }
}

/// Runs a handshake; gives whom the server saw.
fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<Option<PeerIdentity>, rustls::Error> {
    let mut client = ClientConnection::new(client, tls::server_name()).expect("client");
    let mut server = ServerConnection::new(server).expect("server");
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        server.read_tls(&mut wire.as_slice()).expect("memory");
        server.process_new_packets()?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        client.read_tls(&mut wire.as_slice()).expect("memory");
        client.process_new_packets()?;
    }
    let peer = server.peer_certificates().and_then(|chain| chain.first());
    Ok(peer.map(|certificate| peer_identity(certificate).expect("a member")))
}

#[test]
fn members_meet_by_role_and_know_each_other() {
    let fleet = Fleet::new();
    let relay = fleet.member(Role::ProcessServer);
    let agent = fleet.member(Role::Agent);
    let server = tls::data_server(&relay, &[Role::Agent, Role::MasterTarget]).expect("config");
    let client = tls::data_client(&agent, &[Role::ProcessServer]).expect("config");
    let seen = handshake(client, server).expect("handshake");
    assert_eq!(seen, Some(agent.identity()));
}

/// Guards P6: an operator's or agent's credentials must not be good for the data of others.
#[test]
fn a_role_without_business_is_refused_by_either_side() {
    let fleet = Fleet::new();
    let target = fleet.member(Role::MasterTarget);
    let (agent, relay) = (fleet.member(Role::Agent), fleet.member(Role::ProcessServer));
    let server = tls::data_server(&target, &[Role::ProcessServer]).expect("config");
    for outsider in [&agent, &fleet.member(Role::Operator)] {
        let client = tls::data_client(outsider, &[Role::MasterTarget]).expect("config");
        assert!(handshake(client, Arc::clone(&server)).is_err(), "{:?}", outsider.identity());
    }
    let wrong_expectation = tls::data_client(&relay, &[Role::ProcessServer]).expect("config");
    assert!(handshake(wrong_expectation, Arc::clone(&server)).is_err());
    let right = tls::data_client(&relay, &[Role::MasterTarget]).expect("config");
    assert_eq!(handshake(right, server).expect("handshake"), Some(relay.identity()));
}

#[test]
fn disks_are_for_disk_clients_and_names_are_for_strangers() {
    let fleet = Fleet::new();
    let target = fleet.member(Role::MasterTarget);
    let server = tls::disk_server(&target).expect("config");
    for (role, served) in
        [(Role::DiskClient, true), (Role::MasterTarget, true), (Role::Agent, false)]
    {
        let client = tls::data_client(&fleet.member(role), &[Role::MasterTarget]).expect("config");
        assert_eq!(handshake(client, Arc::clone(&server)).is_ok(), served, "{role}");
    }
    assert!(target.names().is_empty());
    let names = ["mt-1.example", "192.0.2.7", "fd00::7"].map(str::to_owned);
    let sign = |names: &[String]| {
        let request = target.renewal_request().expect("request");
        fleet.authority.sign_named(&request, target.identity(), names, SystemTime::now())
    };
    target.renew(&sign(&names).expect("signed").pem).expect("renewed");
    assert_eq!(target.names(), names);
    for wrong in ["", "*.example", "a b", "1.2.3", "http://x"] {
        assert!(sign(&[wrong.to_owned()]).is_err(), "{wrong}");
    }
    let many: Vec<String> =
        (0..=landfall_pki::NAMES_MAX).map(|n| format!("n{n}.example")).collect();
    assert!(sign(&many[1..]).is_ok() && sign(&many).is_err());
}

#[test]
fn an_agents_certificate_can_not_be_shown_by_a_listener() {
    let fleet = Fleet::new();
    let (agent, relay) = (fleet.member(Role::Agent), fleet.member(Role::ProcessServer));
    let server = tls::data_server(&agent, &[Role::ProcessServer]).expect("config");
    let client = tls::data_client(&relay, &[Role::Agent]).expect("config");
    assert!(handshake(client, server).is_err(), "it is for clients only");
}

#[test]
fn another_fleets_members_are_strangers() {
    let (ours, theirs) = (Fleet::new(), Fleet::new());
    let relay = ours.member(Role::ProcessServer);
    let stranger = theirs.member(Role::Agent);
    let server = tls::data_server(&relay, &[Role::Agent]).expect("config");
    let client = tls::data_client(&stranger, &[Role::ProcessServer]).expect("config");
    assert!(handshake(client, server).is_err());
}

#[test]
fn enrolment_trusts_the_pinned_fingerprint_only() {
    let (ours, theirs) = (Fleet::new(), Fleet::new());
    let pinned = || tls::enrolling_client(ours.authority.fingerprint()).expect("config");
    let server = tls::rest_server(&ours.member(Role::Server)).expect("config");
    assert_eq!(handshake(pinned(), server).expect("handshake"), None, "no certificate yet");

    let impostor = tls::rest_server(&theirs.member(Role::Server)).expect("config");
    let error = handshake(pinned(), impostor).expect_err("refused");
    let unpinned = tls::unpinned(&error).expect("named as what it is");
    assert_eq!(unpinned.found, Some(theirs.authority.fingerprint()));

    // A member of the right fleet that is not the configuration server can't pose as it.
    let posing = ours.member(Role::ProcessServer);
    let posing = tls::data_server(&posing, &[Role::Agent]).expect("config");
    assert!(handshake(pinned(), posing).is_err());
}

#[test]
fn the_configuration_server_sees_who_calls() {
    let fleet = Fleet::new();
    let server = tls::rest_server(&fleet.member(Role::Server)).expect("config");
    for role in [Role::Agent, Role::Operator, Role::MasterTarget] {
        let caller = fleet.member(role);
        let client = tls::rest_client(&caller).expect("config");
        let seen = handshake(client, Arc::clone(&server)).expect("handshake");
        assert_eq!(seen, Some(caller.identity()));
    }
}

#[test]
fn a_clock_that_is_a_day_behind_still_accepts_and_an_expired_certificate_does_not() {
    let now = SystemTime::now();
    let fleet = Fleet::founded(now + DAY);
    let server = fleet.member_since(Role::Server, now + DAY);
    let config = tls::rest_server(&server).expect("config");
    let pin = fleet.authority.fingerprint();
    handshake(tls::enrolling_client(pin).expect("config"), config).expect("slack of two days");

    let past = now - LEAF_LIFETIME - 3 * DAY;
    let fleet = Fleet::founded(past);
    let config = tls::rest_server(&fleet.member_since(Role::Server, past)).expect("config");
    let pin = fleet.authority.fingerprint();
    assert!(handshake(tls::enrolling_client(pin).expect("config"), config).is_err(), "expired");
}

#[test]
fn renewal_takes_effect_for_running_listeners_and_survives() {
    let fleet = Fleet::founded(SystemTime::now() - LEAF_LIFETIME - 10 * DAY);
    let old = SystemTime::now() - LEAF_LIFETIME - 5 * DAY;
    let relay = fleet.member_since(Role::ProcessServer, old);
    let agent = fleet.member(Role::Agent);
    let server = tls::data_server(&relay, &[Role::Agent]).expect("config");
    let client = || tls::data_client(&agent, &[Role::ProcessServer]).expect("config");
    assert!(relay.renewal_due(SystemTime::now()) && !agent.renewal_due(SystemTime::now()));
    assert!(agent.renewal_due(SystemTime::now() + LEAF_LIFETIME * 3 / 4));
    assert!(handshake(client(), Arc::clone(&server)).is_err(), "expired");

    let request = relay.renewal_request().expect("request");
    let renewed = fleet.authority.sign(&request, relay.identity(), SystemTime::now());
    relay.renew(&renewed.expect("sign").pem).expect("renew");
    handshake(client(), Arc::clone(&server)).expect("the same listener");
    let reopened = Credentials::open(relay.dir()).expect("open");
    assert!(!reopened.renewal_due(SystemTime::now()));

    // Somebody else's certificate, and one over another key, are refused and change nothing.
    let other = KeyAndRequest::generate().expect("key").request_pem;
    let other = fleet.authority.sign(&other, relay.identity(), SystemTime::now()).expect("sign");
    assert!(relay.renew(&other.pem).is_err());
    handshake(client(), server).expect("still");
}

/// The certificate that the server sees in a session that gets as far as tickets.
fn shown(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Vec<u8> {
    let mut client = ClientConnection::new(Arc::clone(client), tls::server_name()).expect("client");
    let mut server = ServerConnection::new(Arc::clone(server)).expect("server");
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        server.read_tls(&mut wire.as_slice()).expect("memory");
        server.process_new_packets().expect("a member");
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        client.read_tls(&mut wire.as_slice()).expect("memory");
        client.process_new_packets().expect("a member");
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    server.peer_certificates().expect("shown")[0].to_vec()
}

/// A resumed session would carry the identity of the first one on: a certificate that was renewed
/// would stay in use, and be good beyond its end.
#[test]
fn each_session_shows_the_certificate_in_use() {
    let fleet = Fleet::new();
    let (relay, agent) = (fleet.member(Role::ProcessServer), fleet.member(Role::Agent));
    let server = tls::data_server(&relay, &[Role::Agent]).expect("config");
    let client = tls::data_client(&agent, &[Role::ProcessServer]).expect("config");
    let first = shown(&client, &server);
    assert_eq!(shown(&client, &server), first);
    let request = agent.renewal_request().expect("request");
    let renewed = fleet.authority.sign(&request, agent.identity(), SystemTime::now());
    agent.renew(&renewed.expect("sign").pem).expect("renew");
    assert_ne!(shown(&client, &server), first, "the renewed one is shown at once");
}

#[test]
fn the_authority_survives_a_restart_and_keeps_its_key_to_itself() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("ca");
    let open = |path: &Path| FleetAuthority::open_or_create(path, SystemTime::now());
    let first = open(&path).expect("make").fingerprint();
    assert_eq!(open(&path).expect("open").fingerprint(), first);
    let mode = std::fs::metadata(path.join("key.pem")).expect("there").mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o7777, 0o700);
}

#[test]
fn what_a_request_asks_for_is_ignored_and_nonsense_is_refused() {
    let fleet = Fleet::new();
    let identity = PeerIdentity { role: Role::Agent, node: NodeId::generate() };
    let sign = |pem: &str| fleet.authority.sign(pem, identity, SystemTime::now());
    assert!(sign("").is_err());
    assert!(sign(&"x".repeat(landfall_pki::REQUEST_BYTES_MAX + 1)).is_err());
    let good = KeyAndRequest::generate().expect("key").request_pem;
    // One flipped character in the middle: either undecodable or a wrong signature, never a
    // certificate.
    let middle = good.len() / 2;
    let flipped = if good.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let mut bad = good.clone();
    bad.replace_range(middle..=middle, flipped);
    assert!(sign(&bad).is_err());
    assert!(sign(&good).is_ok());
}
