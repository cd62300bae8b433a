//! The fuzz targets of `fuzz/` over their committed corpus and seeded mutations of it: what
//! `cargo fuzz` found once stays found, and every run tries something new. More mutations by
//! `LANDFALL_TEST_FUZZ`, the seed by `SEED`; `UPDATE=1` writes the corpus' first files anew.

use landfall_journal::fuzzing;
use landfall_testkit::{Rng, seed};
use std::path::{Path, PathBuf};

/// Mutations of each target's corpus in a usual run.
const MUTATIONS_DEFAULT: u64 = 4000;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/log-v1").join(name);
    std::fs::read(path).expect("a golden file")
}

/// The first files of each corpus, from the golden log.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let (superblock, segment) = (golden("superblock"), golden("segment-00000000"));
    let sector = 512;
    let end = segment.len() - sector;
    let index_at = u32::from_le_bytes(*segment[end + 32..].first_chunk().expect("4 bytes"));
    let index_bytes = u32::from_le_bytes(*segment[end + 36..].first_chunk().expect("4 bytes"));
    let (index_at, index_bytes) = (index_at as usize, index_bytes as usize);
    match target {
        "journal_block" => {
            vec![superblock[..512].to_vec(), segment[..512].to_vec(), segment[end..].to_vec()]
        }
        "journal_frame" => vec![segment[sector..index_at.clamp(sector, end)].to_vec()],
        "journal_index" => vec![segment[index_at..][..index_bytes].to_vec()],
        "journal_log" => {
            let mut whole = superblock;
            whole.resize(8192, 0);
            whole.extend(segment);
            vec![whole]
        }
        other => panic!("no target {other}"),
    }
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=rng.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = usize::try_from(rng.below(bytes.len() as u64)).expect("an index");
        match rng.below(7) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next_u64().to_le_bytes()[0],
            2 => bytes.truncate(at),
            3 => {
                let value = [0, 1, u64::MAX, u64::MAX - 1, 1 << 31, 1 << 63][at % 6].to_le_bytes();
                let end = bytes.len().min(at / 4 * 4 + 8);
                let start = at / 4 * 4;
                bytes[start..end].copy_from_slice(&value[..end - start]);
            }
            4 => {
                let from = usize::try_from(rng.below(bytes.len() as u64)).expect("an index");
                let length = (bytes.len() - from).min(bytes.len() - at).min(64);
                bytes.copy_within(from..from + length, at);
            }
            5 => {
                let length = other.len().min(bytes.len() - at).min(512);
                bytes[at..at + length].copy_from_slice(&other[..length]);
            }
            _ => {
                let length = (bytes.len() - at).min(16);
                bytes[at..at + length].fill(0);
            }
        }
    }
}

fn run(target: &str, entry: fn(&[u8])) {
    let dir = corpus(target);
    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        std::fs::create_dir_all(&dir).expect("made");
        for (number, bytes) in seeds(target).into_iter().enumerate() {
            std::fs::write(dir.join(format!("golden-{number}")), bytes).expect("written");
        }
    }
    let mut inputs: Vec<Vec<u8>> = std::fs::read_dir(&dir)
        .expect("a committed corpus")
        .map(|file| std::fs::read(file.expect("readable").path()).expect("readable"))
        .collect();
    inputs.sort();
    for seed in seeds(target) {
        assert!(inputs.contains(&seed), "the corpus is older than the format: UPDATE=1 renews it");
    }
    inputs.iter().for_each(|input| entry(input));
    let mut rng = Rng::new(seed(target));
    let mutations = std::env::var("LANDFALL_TEST_FUZZ")
        .map_or(MUTATIONS_DEFAULT, |text| text.parse().expect("LANDFALL_TEST_FUZZ is a number"));
    for _ in 0..mutations {
        let pick = |rng: &mut Rng| usize::try_from(rng.below(inputs.len() as u64)).expect("small");
        let (one, other) = (pick(&mut rng), pick(&mut rng));
        let mut input = inputs[one].clone();
        mutate(&mut rng, &mut input, &inputs[other]);
        entry(&input);
    }
}

#[test]
fn blocks_take_any_bytes() {
    run("journal_block", fuzzing::block);
}

#[test]
fn frames_take_any_bytes() {
    run("journal_frame", fuzzing::frame);
}

#[test]
fn indexes_take_any_bytes() {
    run("journal_index", fuzzing::index);
}

#[test]
fn logs_take_any_bytes() {
    run("journal_log", fuzzing::log);
}
