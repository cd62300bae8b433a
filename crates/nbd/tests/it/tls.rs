//! TLS on TCP: clients that were not written here, our own, and those that must not get in.

use crate::peers::{disk, run, text};
use crate::support::Site;
use landfall_nbd::proto::constants::{OPT_LIST, OPT_STARTTLS, REP_ACK, REP_ERR_TLS_REQD};
use landfall_nbd::proto::put_option;
use landfall_nbd::testing::MemoryExport;
use landfall_nbd::{
    Client, ClientError, ClientTls, Endpoint, Export, ListenError, Security, SessionError, tls_uri,
};
use landfall_pki::{
    Credentials, FleetAuthority, KeyAndRequest, Member, PeerIdentity, Role, tls, write_disk_client,
};
use landfall_testkit::require;
use landfall_types::NodeId;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

const NAME: &str = "machine-1/0@latest";

/// A fleet with a master target that serves disks.
struct Fleet {
    authority: FleetAuthority,
    dir: TempDir,
}

impl Fleet {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let authority = FleetAuthority::open_or_create(&dir.path().join("ca"), SystemTime::now());
        Self { authority: authority.expect("made"), dir }
    }

    fn member(&self, role: Role, names: &[&str]) -> Credentials {
        let made = KeyAndRequest::generate().expect("a key");
        let id = NodeId::generate();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let peer = PeerIdentity { role, node: id };
        let now = SystemTime::now();
        let signed = self.authority.sign_named(&made.request_pem, peer, &names, now);
        let url = "https://127.0.0.1:1".to_owned();
        let member = Member { id, role, name: role.name().into(), server_url: url };
        let dir = self.dir.path().join(id.to_string());
        Credentials::create(&dir, &member, &made.key_pem, &signed.expect("signed")).expect("kept")
    }

    /// A directory as QEMU and libnbd want it.
    fn client_dir(&self) -> PathBuf {
        let made = KeyAndRequest::generate().expect("a key");
        let peer = PeerIdentity { role: Role::DiskClient, node: NodeId::generate() };
        let signed = self.authority.sign(&made.request_pem, peer, SystemTime::now());
        let dir = self.dir.path().join("disk-client");
        write_disk_client(&dir, &made.key_pem, &signed.expect("signed")).expect("written");
        dir
    }

    fn listen(&self, site: &Site) -> Endpoint {
        let target = self.member(Role::MasterTarget, &["localhost", "127.0.0.1"]);
        let security = Security::Tls(tls::disk_server(&target).expect("a configuration"));
        site.server.listen_tcp(([127, 0, 0, 1], 0).into(), security).expect("a free port")
    }

    fn tls(&self, role: Role) -> ClientTls {
        let config = tls::data_client(&self.member(role, &[]), &[Role::MasterTarget]);
        ClientTls { config: config.expect("a configuration"), name: tls::server_name() }
    }
}

fn uri(endpoint: &Endpoint) -> String {
    tls_uri("localhost", endpoint.address().port(), NAME)
}

#[tokio::test(flavor = "multi_thread")]
async fn libnbd_and_nbdkit_come_in_with_certificates() {
    if !require(&["libnbd", "nbdkit"]) {
        return;
    }
    let export = disk("libnbd_and_nbdkit_come_in_with_certificates");
    let site = Site::new(NAME, export.clone());
    let fleet = Fleet::new();
    let (endpoint, dir) = (fleet.listen(&site), fleet.client_dir());
    let with = format!("{}?tls-certificates={}", uri(&endpoint), text(&dir));

    let facts = run("nbdinfo", &["--json", &with]).await;
    for fact in ["\"TLS\": true", "\"structured\": true", "\"base:allocation\""] {
        assert!(facts.contains(fact), "{fact} is missing: {facts}");
    }
    let image = site.directory.path().join("image");
    run("nbdcopy", &[&with, text(&image)]).await;
    assert!(std::fs::read(&image).expect("an image") == export.content());
    let blank = Arc::new(MemoryExport::new(export.content().len(), 512));
    site.exports.insert("blank", blank.clone());
    let blank_uri = tls_uri("localhost", endpoint.address().port(), "blank");
    let into = format!("{blank_uri}?tls-certificates={}", text(&dir));
    run("nbdcopy", &["--flush", text(&image), &into]).await;
    assert!(blank.content() == export.content());

    std::fs::remove_file(&image).expect("the first copy");
    let port = format!("port={}", endpoint.address().port());
    let certificates = format!("tls-certificates={}", text(&dir));
    let name = format!("export={NAME}");
    let source = ["hostname=localhost", &port, &name, "tls=require", &certificates];
    let copy = format!("nbdcopy \"$uri\" '{}'", text(&image));
    run("nbdkit", &[&["-U", "-", "nbd"][..], &source, &["--run", &copy]].concat()).await;
    assert!(std::fs::read(&image).expect("an image") == export.content());
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_comes_in_with_certificates() {
    if !require(&["qemu-img"]) {
        return;
    }
    let export = disk("qemu_comes_in_with_certificates");
    let site = Site::new(NAME, export.clone());
    let fleet = Fleet::new();
    let (endpoint, dir) = (fleet.listen(&site), fleet.client_dir());
    let object = format!("tls-creds-x509,id=tls0,endpoint=client,dir={}", text(&dir));
    let source = |host: &str| {
        let port = endpoint.address().port();
        format!(
            "driver=nbd,server.type=inet,server.host={host},server.port={port},export={NAME},tls-creds=tls0"
        )
    };
    let image = site.directory.path().join("image");
    let convert = ["convert", "--object", &object, "--image-opts", "-O", "raw"];
    let from = source("localhost");
    run("qemu-img", &[&convert[..], &[&from, text(&image)]].concat()).await;
    assert!(std::fs::read(&image).expect("an image") == export.content());

    // The certificate is for "localhost" and 127.0.0.1, not for whatever leads there.
    let elsewhere = format!("{},tls-hostname=elsewhere.example", source("localhost"));
    let info = ["info", "--object", &object, "--image-opts", &elsewhere];
    assert!(refused("qemu-img", &info).await.contains("elsewhere.example"));
}

/// What a program that fails says.
async fn refused(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).kill_on_drop(true).output().await;
    let output = output.expect("it starts");
    assert!(!output.status.success(), "{program} {arguments:?} gets in");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_programs_without_the_right_certificate_stay_out() {
    if !require(&["libnbd"]) {
        return;
    }
    let site = Site::new(NAME, Arc::new(MemoryExport::new(1 << 20, 512)));
    let (fleet, other) = (Fleet::new(), Fleet::new());
    let endpoint = fleet.listen(&site);
    let address = endpoint.address();
    // In the clear, with or without asking for TLS first where the client would do without.
    let plain = format!("nbd://localhost:{}/{NAME}", address.port());
    let said = refused("nbdinfo", &[&plain]).await;
    assert!(!said.contains("1048576"), "{said}");
    refused("nbdinfo", &["--list", &plain]).await;
    let strange = format!("{}?tls-certificates={}", uri(&endpoint), text(&other.client_dir()));
    refused("nbdinfo", &[&strange]).await;
    let nobody = fleet.dir.path().join("nobody");
    std::fs::create_dir(&nobody).expect("made");
    std::fs::write(nobody.join("ca-cert.pem"), fleet.authority.certificate_pem()).expect("written");
    let nobody = format!("{}?tls-certificates={}", uri(&endpoint), text(&nobody));
    refused("nbdinfo", &[&nobody]).await;
    assert!(site.server.connected().is_empty());
}

#[tokio::test]
async fn our_client_reads_and_writes_and_roles_without_business_stay_out() {
    let export = Arc::new(MemoryExport::new(1 << 20, 512));
    let site = Site::new(NAME, export.clone());
    let fleet = Fleet::new();
    let endpoint = fleet.listen(&site);
    let address = endpoint.address().to_string();
    let client = Client::connect_tls(&address, &fleet.tls(Role::DiskClient), NAME).await;
    let client = client.expect("served");
    let data: Vec<u8> = (0..300_000_u32).map(|at| (at / 512) as u8).collect();
    client.write(512, data[..299_520].to_vec().into()).await.expect("written");
    assert_eq!(client.read(512, 299_520).await.expect("read"), data[..299_520]);
    assert_eq!(export.size(), client.size());
    client.disconnect().await;

    let home = Client::connect_tls(&address, &fleet.tls(Role::MasterTarget), NAME).await;
    home.expect("a master target reads home").disconnect().await;
    for stranger in [fleet.tls(Role::Agent), Fleet::new().tls(Role::DiskClient)] {
        let outcome = Client::connect_tls(&address, &stranger, NAME).await;
        // With TLS 1.3 a client hears of its refusal with the first answer.
        assert!(
            matches!(outcome, Err(ClientError::Tls(_) | ClientError::Stream(_))),
            "{outcome:?}"
        );
    }
}

/// Our client does not go on in the clear, whatever the server says.
#[tokio::test]
async fn our_client_insists_on_tls() {
    let site = Site::new(NAME, Arc::new(MemoryExport::new(1 << 20, 512)));
    let loopback = ([127, 0, 0, 1], 0).into();
    let plain = site.server.listen_tcp(loopback, Security::Loopback).expect("a free port");
    let tls = Fleet::new().tls(Role::DiskClient);
    let outcome = Client::connect_tls(&plain.address().to_string(), &tls, NAME).await;
    assert!(matches!(outcome, Err(ClientError::NoTls { .. })), "{outcome:?}");
}

#[tokio::test]
async fn without_tls_only_this_machine_is_listened_to() {
    let site = Site::new(NAME, Arc::new(MemoryExport::new(1 << 20, 512)));
    for address in ["0.0.0.0:0", "[::]:0"] {
        let address = address.parse().expect("an address");
        let outcome = site.server.listen_tcp(address, Security::Loopback);
        assert!(matches!(outcome, Err(ListenError::Exposed(_))), "{outcome:?}");
    }
}

/// Whoever sits on the way can put options behind STARTTLS in the clear: they must not be taken for
/// options said within TLS, nor delay it (the injection known from other protocols).
#[tokio::test]
async fn options_sent_in_the_clear_behind_starttls_are_not_obeyed() {
    let export = Arc::new(MemoryExport::new(1 << 20, 512));
    let site = Site::new(NAME, export);
    let fleet = Fleet::new();
    let (mut ours, theirs) = tokio::io::duplex(64 << 10);
    let (reader, writer) = tokio::io::split(theirs);
    let config = tls::disk_server(&fleet.member(Role::MasterTarget, &[])).expect("a configuration");
    let server = site.server.clone();
    let serving = tokio::spawn(async move { server.serve_tls(config, reader, writer).await });
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    put_option(&mut bytes, OPT_LIST, b"");
    put_option(&mut bytes, OPT_STARTTLS, b"");
    put_option(&mut bytes, OPT_LIST, b"");
    ours.write_all(&bytes).await.expect("sent");
    let outcome = serving.await.expect("no panic");
    assert!(matches!(outcome, Err(SessionError::Tls(_))), "{outcome:?}");
    let mut heard = Vec::new();
    ours.read_to_end(&mut heard).await.expect("the server closes");
    let reply = |at: usize| u32::from_be_bytes(heard[at..at + 4].try_into().expect("four"));
    let refusal = b"TLS must come first".len();
    assert_eq!((reply(18 + 12), reply(18 + 20 + refusal + 12)), (REP_ERR_TLS_REQD, REP_ACK));
    let name = NAME.as_bytes();
    assert!(!heard.windows(name.len()).any(|piece| piece == name), "a name went out in the clear");
}

/// A stranger on TCP keeps nobody else out for longer than a negotiation may take, and never those
/// who are in.
#[tokio::test]
async fn strangers_that_say_nothing_have_places_of_their_own() {
    let export = Arc::new(MemoryExport::new(1 << 20, 512));
    let options = landfall_nbd::ServerOptions {
        negotiating_max: 2,
        ..landfall_nbd::ServerOptions::default()
    };
    let site = Site::with(NAME, export, options);
    let fleet = Fleet::new();
    let endpoint = fleet.listen(&site);
    let (address, tls) = (endpoint.address().to_string(), fleet.tls(Role::DiskClient));
    let member = Client::connect_tls(&address, &tls, NAME).await.expect("served");
    let mut strangers = Vec::new();
    for _ in 0..2 {
        let mut stranger = TcpStream::connect(&address).await.expect("connected");
        stranger.read_u8().await.expect("greeted");
        strangers.push(stranger);
    }
    assert!(Client::connect_tls(&address, &tls, NAME).await.is_err(), "no place is left");
    member.read(0, 512).await.expect("who is in stays in");
    strangers.clear();
    // Their places come back shortly after they have gone.
    while Client::connect_tls(&address, &tls, NAME).await.is_err() {
        tokio::task::yield_now().await;
    }
}
