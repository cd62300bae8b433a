use landfall_nbd::testing::{ExportMap, MemoryExport};
use landfall_nbd::{Client, ListenError, Server, ServerOptions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

fn server() -> Server {
    let export = Arc::new(MemoryExport::new(1 << 20, 512));
    Server::new(ExportMap::of("m/0", export), ServerOptions::default())
}

#[tokio::test]
async fn only_the_owner_may_connect() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("nbd.sock");
    let listener = server().listen_unix(&path).expect("listening");
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(listener);
    assert!(!path.exists(), "the socket goes with its listener");
}

#[tokio::test]
async fn a_socket_that_nobody_answers_on_is_replaced() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("nbd.sock");
    // What a server leaves that was killed.
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists());
    let _listener = server().listen_unix(&path).expect("the stale socket is replaced");
    Client::connect_unix(&path, "m/0").await.expect("served");
}

#[tokio::test]
async fn a_socket_in_use_is_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("nbd.sock");
    let _first = server().listen_unix(&path).expect("listening");
    let second = server().listen_unix(&path);
    assert!(matches!(second, Err(ListenError::InUse(_))), "{second:?}");
    Client::connect_unix(&path, "m/0").await.expect("the first still serves");

    let foreign = directory.path().join("foreign.sock");
    let _foreign = UnixListener::bind(&foreign).expect("bound");
    let third = server().listen_unix(&foreign);
    assert!(matches!(third, Err(ListenError::InUse(_))), "{third:?}");
    assert!(foreign.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("precious");
    std::fs::write(&path, "data").expect("written");
    let outcome = server().listen_unix(&path);
    assert!(matches!(outcome, Err(ListenError::NotASocket(_))), "{outcome:?}");
    assert_eq!(std::fs::read(&path).expect("still there"), b"data");
}
