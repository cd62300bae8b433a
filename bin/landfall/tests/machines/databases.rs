//! Promise: an application-consistent point of a machine with PostgreSQL, made with the hook that
//! the package brings, has every transaction that was acknowledged before it; PostgreSQL starts
//! from it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use landfall_testkit::{postgresql, require};

use crate::member::Member;
use crate::site::{Site, run, until};

const PORT: &str = "55433";
const MACHINE: &str = "database";

/// A server over a data directory.
struct Server {
    sockets: PathBuf,
    process: Child,
}

/// PostgreSQL does not run as root.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"]);
    command.arg(program).current_dir("/");
    command
}

impl Server {
    fn start(bin: &Path, data: &Path, sockets: &Path) -> Self {
        let log = fs::File::create(sockets.join("log")).unwrap();
        let process = as_postgres(&bin.join("postgres"))
            .arg("-D")
            .arg(data)
            .arg("-k")
            .arg(sockets)
            .args(["-p", PORT, "-c", "listen_addresses="])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { sockets: sockets.to_owned(), process };
        until("PostgreSQL answers", || server.ask("SELECT 1").is_some());
        server
    }

    fn ask(&self, sql: &str) -> Option<String> {
        let output = as_postgres(Path::new("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-p", PORT, "-h"])
            .arg(&self.sockets)
            .args(["-c", sql])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        output.status.success().then_some(text)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // "Immediate": as after a crash.
        let _ = Command::new("kill").args(["-QUIT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.sockets.join("log")).unwrap_or_default();
            eprintln!("== PostgreSQL\n{log}");
        }
    }
}

/// A folder of PostgreSQL's own.
fn folder(path: &Path) -> PathBuf {
    fs::create_dir_all(path).unwrap();
    run(Command::new("chown").arg("postgres:postgres").arg(path));
    path.to_owned()
}

#[test]
fn machine_an_application_consistent_point_of_postgresql_has_what_was_committed() {
    if !require(&["root", "loop", "bpf", "e2fsprogs", "libnbd", "postgresql"]) {
        return;
    }
    let bin = postgresql().expect("was required");
    let site = Site::new();
    // Not below the site's folder, which only root may pass.
    let dir = tempfile::Builder::new().prefix("landfall-pg").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let sockets = folder(&dir.path().join("sockets"));
    let arguments = format!("-h {} -p {PORT}", sockets.display());
    let member = Member::new(&site, MACHINE, 320, &[("LANDFALL_PG_ARGS", &arguments)]);
    let at = dir.path().join("disk");
    fs::create_dir(&at).unwrap();
    run(Command::new("mount").arg("--bind").arg(member.mounted()).arg(&at));
    let hooks = member.dir.join("hooks");
    fs::create_dir(&hooks).unwrap();
    let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/hooks/50-postgresql");
    fs::copy(hook, hooks.join("50-postgresql")).unwrap();
    let data = folder(&at.join("data"));
    run(as_postgres(&bin.join("initdb")).arg("-D").arg(&data).args(["-A", "trust"]));
    let server = Server::start(&bin, &data, &sockets);
    server.ask("CREATE TABLE t (n bigint PRIMARY KEY)").unwrap();
    member.protect(&site);

    let (stop, acknowledged) = (AtomicBool::new(false), Arc::new(AtomicU64::new(0)));
    let before = std::thread::scope(|scope| {
        let (server, stop, counted) = (&server, &stop, Arc::clone(&acknowledged));
        scope.spawn(move || {
            for n in 1_u64.. {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                server.ask(&format!("INSERT INTO t VALUES ({n})")).unwrap();
                counted.store(n, Ordering::SeqCst);
            }
        });
        let mut before = 0;
        until("an application-consistent point under load", || {
            before = acknowledged.load(Ordering::SeqCst);
            let mark = ["mark", MACHINE, "with-hook", "--consistency", "application"];
            before > 20 && site.landfall(&mark).output().unwrap().status.success()
        });
        stop.store(true, Ordering::SeqCst);
        before
    });
    drop(server);
    run(Command::new("umount").arg(&at));

    let copy = site.path("copy.raw");
    let socket = site.path("master-target/nbd.sock");
    let socket = socket.display();
    until("the point is at the target", || {
        let uri = format!("nbd+unix:///{MACHINE}%2F0%40point:with-hook?socket={socket}");
        Command::new("nbdcopy").arg(uri).arg(&copy).output().unwrap().status.success()
    });
    run(Command::new("e2fsck").args(["-f", "-n"]).arg(&copy));
    run(Command::new("mount").args(["-o", "loop"]).arg(&copy).arg(&at));
    let recovered = Server::start(&bin, &data, &sockets);
    let there = recovered.ask("SELECT count(*), max(n) FROM t").unwrap();
    drop(recovered);
    run(Command::new("umount").arg(&at));
    let (count, newest) = there.split_once('|').unwrap();
    assert_eq!(count, newest, "one is missing in between");
    assert!(newest.parse::<u64>().unwrap() >= before, "{newest}, and {before} was acknowledged");
}
