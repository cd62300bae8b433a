//! Encrypted replicas of a master target: made by order or by default, closed without their key,
//! opened by themselves when it is there.

mod common;

use common::{Machine, Site, expect_code};
use landfall_api_types::order::Order;
use landfall_api_types::request::PointChoice;
use landfall_crypt::KeySource;
use landfall_pki::Role;
use landfall_transport::testing::Fleet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

fn key_file(path: &Path) -> String {
    std::fs::write(path, [9; 32]).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("changed");
    KeySource::File(path.to_owned()).to_string()
}

fn create(machine: &Machine, key: Option<&str>, image: Option<&str>) -> Order {
    let Order::MtCreate(mut create) = machine.create() else { panic!("an order to make it") };
    create.encrypt = key.map(str::to_owned);
    create.images[0] = image.map(str::to_owned);
    Order::MtCreate(create)
}

/// Whether 64 bytes of one value in a row stand in any file beneath.
fn holds(folder: &Path, fill: u8) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).expect("listed") {
        let path = entry.expect("listed").path();
        let found = if path.is_dir() {
            holds(&path, fill)
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            bytes.windows(64).any(|window| window == [fill; 64]).then(|| path.clone())
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_replica_waits_for_its_key_and_others_go_on() {
    let keys = tempfile::tempdir().expect("temp dir");
    let key = key_file(&keys.path().join("key"));
    let fleet = Fleet::new();
    let mut site = Site::open(&fleet.member(Role::MasterTarget)).await;
    let (mut sealed, mut plain) = (Machine::new(), Machine::new());
    site.order(create(&sealed, Some(&key), None)).await;
    site.order(create(&plain, None, None)).await;
    for machine in [&mut sealed, &mut plain] {
        machine.first_copy(&site).await;
        machine.write(0, 0, 0x5a, 4096);
        machine.marker();
        machine.send(&site).await;
    }
    assert_eq!(site.report(sealed.replica).await.key, Some(key.clone()));
    assert_eq!(site.report(plain.replica).await.key, None);
    let folder = site.dir.path().join(format!("retention/replica-{}", sealed.replica));
    assert_eq!(holds(&folder, 0x5a), None);
    let folder = site.dir.path().join(format!("retention/replica-{}", plain.replica));
    assert!(holds(&folder, 0x5a).is_some(), "the other one is as it was");

    sealed.hang_up();
    plain.hang_up();
    let dir = site.stop().await;
    std::fs::rename(keys.path().join("key"), keys.path().join("away")).expect("renamed");
    site = Site::open_in(dir, site.tls.clone()).await;
    let problems = site.target.report(&site.address).await.problems;
    let codes: Vec<&str> = problems.iter().map(|problem| problem.code.as_str()).collect();
    assert_eq!(codes, ["key-missing"], "{problems:?}");
    assert!(problems[0].cure.contains("key-encryption key"), "{problems:?}");
    let position = |machine: &Machine| Order::MtPoints { replica: machine.replica };
    expect_code(site.try_order(position(&sealed)).await, "key-missing");
    site.order(position(&plain)).await;
    plain.write(0, 8192, 3, 4096);
    plain.marker();
    plain.send(&site).await;

    site.target.retry_problems().await;
    assert_eq!(site.target.report(&site.address).await.problems.len(), 1, "still away");
    std::fs::rename(keys.path().join("away"), keys.path().join("key")).expect("renamed");
    site.target.retry_problems().await;
    assert_eq!(site.target.report(&site.address).await.problems, []);
    sealed.write(1, 0, 4, 4096);
    sealed.marker();
    sealed.send(&site).await;
    site.order(sealed.test_branch("trial", PointChoice::Latest)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_encrypted_is_refused() {
    let keys = tempfile::tempdir().expect("temp dir");
    let key = key_file(&keys.path().join("key"));
    let fleet = Fleet::new();
    let site = Site::open(&fleet.member(Role::MasterTarget)).await;
    let machine = Machine::new();
    let image = keys.path().join("image");
    std::fs::write(&image, vec![0; 1 << 20]).expect("written");
    let foreign = create(&machine, Some(&key), image.to_str());
    expect_code(site.try_order(foreign).await, "not-supported");
    let missing = format!("file:{}", keys.path().join("missing").display());
    expect_code(site.try_order(create(&machine, Some(&missing), None)).await, "key-missing");
    expect_code(site.try_order(create(&machine, Some("secret"), None)).await, "bad-request");
    // Nothing of it is left: the same replica can be made.
    site.order(create(&machine, Some(&key), None)).await;
}
