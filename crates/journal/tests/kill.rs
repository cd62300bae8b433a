//! `kill -9` of a process that writes a log (fault F1): what it has said is durable is there, and
//! exactly that history.
//!
//! The test program starts itself as the process to be killed, so it has a `main` of its own. More
//! rounds by
//! `LANDFALL_TEST_KILLS`; the seed by `SEED`.

use landfall_blockdev::FsDir;
use landfall_journal::{JournalError, Log, LogConfig, Stamp};
use landfall_testkit::{Rng, seed};
use landfall_types::{
    Chain, DiskIndex, Epoch, EpochId, Incarnation, LogId, Lsn, Record, ReplicaId,
};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const CHILD: &str = "LANDFALL_KILL_CHILD";
const ROUNDS_DEFAULT: u64 = 12;

fn main() {
    if let Ok(path) = std::env::var(CHILD) {
        return child(Path::new(&path));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("what_was_acknowledged_survives_kill_9: test");
        }
        return;
    }
    what_was_acknowledged_survives_kill_9();
}

fn open(path: &Path) -> Log {
    let dir = Arc::new(FsDir::open(path).expect("open the directory"));
    let config = LogConfig {
        log: LogId::generate(),
        replica: ReplicaId::generate(),
        epoch: epoch(),
        base: Lsn::ZERO,
        base_chain: Chain::ROOT,
        segment_bytes: 128 << 10,
    };
    match Log::open(dir.clone()) {
        Ok((log, _)) => log,
        Err(JournalError::NotALog) => Log::create(dir, config).expect("create"),
        Err(error) => panic!("open: {error}"),
    }
}

fn epoch() -> Epoch {
    Epoch { number: 1, id: EpochId::new(1), parent: None }
}

/// Content that tells its LSN and its writer.
fn payload(lsn: Lsn, incarnation: Incarnation, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    Rng::new(lsn.get() ^ incarnation.get()).fill(&mut out);
    out
}

/// Appends, flushes and trims until it is killed; says on standard output what it was promised.
fn child(path: &Path) {
    let log = open(path);
    let incarnation = Incarnation::new(u64::from(std::process::id()));
    let mut rng = Rng::new(incarnation.get());
    let mut out = std::io::stdout().lock();
    loop {
        let (position, ()) = log
            .append_with(|tail| {
                let records: Vec<Record> = (1..=1 + rng.below(20))
                    .map(|number| {
                        let lsn = tail.lsn.plus(number);
                        let length = 1 + usize::try_from(rng.below(6000)).expect("small");
                        let data = payload(lsn, incarnation, length);
                        Record::write(lsn, DiskIndex(0), 512 * lsn.get(), data.into())
                    })
                    .collect();
                let source_position = tail.lsn.plus(records.len() as u64).get();
                let stamp = Stamp { epoch: epoch(), incarnation, source_position };
                Ok::<_, JournalError>((stamp, records, ()))
            })
            .expect("append");
        let durable = log.flush().expect("flush");
        assert_eq!(durable, position);
        let said = writeln!(out, "{} {}", durable.lsn, durable.chain).and_then(|()| out.flush());
        if said.is_err() {
            return; // the parent is gone
        }
        if rng.one_in(8) {
            log.trim(Lsn::new(durable.lsn.get().saturating_sub(100))).expect("trim");
        }
    }
}

fn what_was_acknowledged_survives_kill_9() {
    let mut rng = Rng::new(seed("kill -9"));
    let rounds = std::env::var("LANDFALL_TEST_KILLS")
        .map_or(ROUNDS_DEFAULT, |text| text.parse().expect("LANDFALL_TEST_KILLS is a number"));
    let temp = tempfile::tempdir().expect("tempdir");
    let mut acknowledged = (Lsn::ZERO, Chain::ROOT.to_string());
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .env(CHILD, temp.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the child");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut parse = |line: Option<std::io::Result<String>>| {
            let Some(Ok(line)) = line else { return false };
            let (lsn, chain) = line.split_once(' ').expect("two words");
            acknowledged = (lsn.parse().expect("a position"), chain.to_owned());
            true
        };
        // Killed somewhere behind the n-th acknowledgement, wherever it then is.
        for _ in 0..=rng.below(40) {
            assert!(parse(lines.next()), "the child ended by itself");
        }
        child.kill().expect("kill");
        while parse(lines.next()) {}
        child.wait().expect("wait");
        check(&open(temp.path()), &acknowledged, round);
    }
    assert!(acknowledged.0 > Lsn::new(100));
}

fn check(log: &Log, acknowledged: &(Lsn, String), round: u64) {
    let (lsn, chain) = acknowledged;
    let found = log.position_at(*lsn).expect("readable").map(|position| position.chain.to_string());
    assert_eq!(found.as_ref(), Some(chain), "round {round}: {lsn} was acknowledged");
    let (base, _) = log.base();
    for entry in log.entries(base, log.tail().lsn).expect("entries") {
        let bytes = log.read(&entry).expect("read");
        let writer =
            log.position_at(entry.header.lsn).expect("readable").expect("kept").incarnation;
        assert_eq!(bytes, payload(entry.header.lsn, writer, bytes.len()), "round {round}");
    }
    assert!(log.tail().source_position <= log.tail().lsn.get());
}
