//! Sealed logs: the same promises, nothing to be read without the key, and nothing that someone has
//! put there is taken for ours. (All other tests of this crate run over sealed logs with
//! `LANDFALL_TEST_SEALED=1`.)

use crate::cuts::{Again, run_and_cut};
use crate::model::{Step, World, random_steps};
use crate::rot::rot_everywhere;
use Step::{Append, Close, Flush, Prepare, Reopen, TrimBefore, WriteSome};
use landfall_blockdev::sim::SimMedium;
use landfall_crypt::{DataKey, Secret, nonces};
use landfall_journal::inspect::{Depth, inspect};
use landfall_journal::salvage::salvage;
use landfall_journal::{JournalError, Log};
use landfall_testkit::{Rng, seed};
use landfall_types::Lsn;

const WORKLOAD: &[Step] = &[
    Append(20),
    Flush,
    WriteSome,
    Append(25),
    Flush,
    TrimBefore(22),
    Append(3),
    Flush,
    Append(2),
    Flush,
];

#[test]
fn sealed_logs_keep_their_promises() {
    let steps = [
        Append(3),
        Flush,
        Append(12),
        WriteSome,
        Flush,
        Prepare,
        Reopen,
        Append(20),
        Flush,
        TrimBefore(5),
        Append(9),
        Close,
    ];
    let before = nonces::seen();
    run_and_cut("sealed", &mut World::sealed(7, None), &steps, Again::Every(61));
    // Every sealing of every life is noted, and panics where a nonce comes back.
    assert!(nonces::seen() > before + 100);
    let mut rng = Rng::new(seed("sealed_logs_keep_their_promises"));
    let steps = random_steps(&mut rng, 12);
    run_and_cut("sealed", &mut World::sealed(rng.next_u64(), None), &steps, Again::Every(211));
}

#[test]
fn rot_in_a_sealed_log_is_never_served() {
    let [exact, corrupt, shorter] = rot_everywhere(World::sealed(21, None), WORKLOAD);
    assert!(exact > 0 && corrupt > 0 && shorter > 0);
}

fn world(steps: &[Step]) -> World {
    let mut world = World::sealed(5, None);
    world.create().expect("create");
    for step in steps {
        world.step(*step).expect("step");
    }
    world
}

fn other_key() -> DataKey {
    DataKey::new(&Secret::take(&mut [1; 32]))
}

#[test]
fn another_key_none_and_one_too_many_are_told_apart_and_change_nothing() {
    let world = world(WORKLOAD);
    for (key, wrong) in [(Some(other_key()), true), (None, false)] {
        let medium = world.medium.with_key(key);
        let told = |error: &JournalError| {
            matches!(
                (error, wrong),
                (JournalError::WrongKey, true) | (JournalError::KeyMissing, false)
            )
        };
        let dir = medium.root();
        let refused = [
            Log::open(medium.root()).map(|_| ()),
            inspect(&*dir, Depth::Payloads).map(|_| ()),
            salvage(&*dir).map(|_| ()),
            Log::create(medium.root(), crate::model::config(9)).map(|_| ()),
        ];
        for result in refused {
            let error = result.expect_err("refused");
            assert!(told(&error), "{error}");
        }
        let (log, _) = Log::open(medium.with_key(Some(sim_key())).root()).expect("as it was");
        assert_eq!(log.tail(), world.log().tail());
    }
    let mut plain = World::new(5, None);
    plain.medium = plain.medium.with_key(None);
    plain.create().expect("create");
    let medium = plain.medium.with_key(Some(other_key()));
    assert!(matches!(Log::open(medium.root()), Err(JournalError::NotSealed)));
}

/// What `SimMedium::sealed` has.
fn sim_key() -> DataKey {
    SimMedium::sealed(512).root().data_key().expect("sealed")
}

fn bytes(medium: &SimMedium, path: &str, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).expect("small")];
    let file = medium.root().open(path).expect("there");
    file.read_at(0, &mut bytes).expect("read");
    bytes
}

/// No 16 bytes of any payload, and no record header, stand on the medium.
#[test]
fn nothing_of_the_content_is_on_the_medium() {
    let world = world(WORKLOAD);
    let log = world.log();
    let mut needles: Vec<Vec<u8>> = Vec::new();
    for entry in log.entries(log.base().0, log.tail().lsn).expect("entries") {
        let payload = log.read(&entry).expect("read");
        needles.extend(payload.chunks_exact(16).map(<[u8]>::to_vec));
        needles.push(entry.header.encode().to_vec());
    }
    needles.sort();
    needles.dedup();
    needles.retain(|needle| needle.iter().any(|byte| *byte != needle[0]));
    assert!(needles.len() > 50);
    for (path, length) in world.medium.files() {
        let bytes = bytes(&world.medium, &path, length);
        for needle in &needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{path} holds {needle:02x?}");
        }
    }
}

/// Someone with no key puts bytes of our own elsewhere, with all checksums made right.
#[test]
fn frames_that_were_moved_or_replayed_are_refused() {
    let world = world(&[Append(20), Flush, Append(20), Flush, Append(20), Flush]);
    let segments: Vec<(String, u64)> =
        world.medium.files().into_iter().filter(|(path, _)| path.starts_with("segment")).collect();
    assert!(segments.len() >= 3);
    let (from, length) = &segments[0];
    let (to, _) = &segments[1];
    // The header of the second segment stays; the frames behind it are those of the first one, and
    // say that they belong there.
    let medium = world.medium.fork();
    let source = bytes(&medium, from, *length);
    let target = bytes(&medium, to, *length);
    let mut forged = source[512..1024].to_vec();
    forged[16..24].copy_from_slice(&target[40..48]);
    forged[24..32].copy_from_slice(&target[32..40]);
    let crc = crc32c::crc32c(&forged[..156]);
    forged[156..160].copy_from_slice(&crc.to_le_bytes());
    medium.root().open(to).and_then(|file| file.write_at(512, &forged)).expect("written");
    let log = match Log::open(medium.root()) {
        Err(JournalError::Corrupt { .. }) => return,
        Ok((log, _)) => log,
        Err(error) => panic!("{error}"),
    };
    // The index of the segment says where its records are: what is read there is not what was
    // written.
    let (base, tail) = (log.base().0, log.tail().lsn);
    let mut refused = 0;
    for entry in log.entries(base, tail).expect("entries") {
        match log.read(&entry) {
            Ok(payload) => assert_eq!(payload, world.log().read(&entry).expect("intact")),
            Err(JournalError::Corrupt { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
}

/// The volume is put back to an earlier state, more than once, and other records are written from
/// there: same positions, same segments, same salts. The recorder of nonces panics if one repeats.
#[test]
fn a_restored_volume_repeats_no_nonce() {
    let mut world = world(&[Append(5), Flush]);
    let snapshot = world.medium.fork();
    for _ in 0..5 {
        let mut restored = World::sealed(99, None);
        restored.medium = snapshot.fork();
        restored.adopt(&world, world.promises.len());
        restored.reopen().expect("opened");
        let before = nonces::seen();
        for step in [Append(3), Flush, Append(20), Flush] {
            restored.step(step).expect("step");
        }
        assert!(nonces::seen() > before + 5);
    }
    world.step(Append(1)).and_then(|()| world.step(Flush)).expect("goes on");
    assert!(world.log().tail().lsn > Lsn::ZERO);
}
