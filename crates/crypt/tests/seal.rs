//! What is sealed opens with its key and for its place, and with nothing else.

use landfall_crypt::{
    DataKey, Envelope, KeyError, KeySource, SEAL_BYTES, SEAL_HEAD_BYTES, Secret, Unauthentic,
};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn key(byte: u8) -> DataKey {
    DataKey::new(&Secret::take(&mut [byte; 32]))
}

#[test]
fn every_flipped_bit_and_every_other_place_is_found() {
    let content = b"what the machine wrote";
    let sealed = key(1).batch().expect("random bits").sealed(b"here", content);
    assert_eq!(sealed.len(), content.len() + SEAL_BYTES);
    assert!(!sealed.windows(4).any(|window| content.windows(4).any(|plain| plain == window)));
    let open = |key: DataKey, context: &[u8], sealed: &[u8]| {
        let mut sealed = sealed.to_vec();
        key.open(context, &mut sealed).map(|content| content.to_vec())
    };
    assert_eq!(open(key(1), b"here", &sealed).as_deref(), Ok(&content[..]));
    assert_eq!(open(key(2), b"here", &sealed), Err(Unauthentic));
    assert_eq!(open(key(1), b"there", &sealed), Err(Unauthentic));
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(key(1), b"here", &flipped), Err(Unauthentic), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert_eq!(open(key(1), b"here", &sealed[..length]), Err(Unauthentic), "{length} bytes");
    }
}

/// The same content at the same place, by the same key: nothing repeats.
#[test]
fn nothing_repeats() {
    let mut heads = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let mut batch = key(1).batch().expect("random bits");
        for _ in 0..10 {
            let sealed = batch.sealed(b"", b"");
            assert!(heads.insert(sealed[..SEAL_HEAD_BYTES].to_vec()));
        }
    }
}

/// The recorder of nonces can fail: two batches with the same bits, two contents.
#[test]
#[should_panic(expected = "a nonce was used for two contents")]
fn a_repeated_nonce_is_noticed() {
    let key = key(9);
    let _ = key.batch_with_salt(7).sealed(b"", b"one");
    let _ = key.batch_with_salt(7).sealed(b"", b"two");
}

fn key_file(dir: &Path, name: &str, content: &[u8], mode: u32) -> KeySource {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("changed");
    KeySource::File(path)
}

#[test]
fn a_data_key_is_wrapped_by_a_file_and_by_another_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = key_file(dir.path(), "first", &[7; 32], 0o600);
    let digits = "0a".repeat(32) + "\n";
    let second = key_file(dir.path(), "second", digits.as_bytes(), 0o400);
    let (envelope, key) = Envelope::create(&first, "replica-1").expect("wrapped");
    let same = |other: &DataKey| other.check(b"x") == key.check(b"x");
    assert!(same(&envelope.open("replica-1").expect("opened")));
    assert!(matches!(envelope.open("replica-2"), Err(KeyError::Wrong { .. })));
    assert!(matches!(envelope.open_with(&second, "replica-1"), Err(KeyError::Wrong { .. })));
    let moved = envelope.rewrap(&first, &second, "replica-1").expect("wrapped again");
    assert!(same(&moved.open("replica-1").expect("opened")), "only the wrapping changes");
    assert_ne!(moved.wrapped, envelope.wrapped);
    let mut garbled = envelope;
    garbled.wrapped[30] ^= 1;
    assert!(matches!(garbled.open("replica-1"), Err(KeyError::Wrong { .. })));
}

#[test]
fn a_key_that_others_can_read_or_that_is_none_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let create = |source: &KeySource| Envelope::create(source, "replica-1").map(|_| ());
    for mode in [0o640, 0o604, 0o666] {
        let exposed = key_file(dir.path(), "exposed", &[7; 32], mode);
        assert!(matches!(create(&exposed), Err(KeyError::Exposed { .. })), "{mode:o}");
    }
    for content in [&b"short"[..], &[7; 33], "zz".repeat(32).as_bytes(), &[b'0'; 2000]] {
        let none = key_file(dir.path(), "none", content, 0o600);
        assert!(
            matches!(create(&none), Err(KeyError::Malformed { .. })),
            "{} bytes",
            content.len()
        );
    }
    let away = KeySource::File(dir.path().join("away"));
    assert!(matches!(create(&away), Err(KeyError::Missing { .. })));
}

#[test]
fn names_of_keys_are_read_and_written() {
    for name in ["file:/etc/landfall/key", "keyring:landfall", "command:/opt/kms --key a"] {
        assert_eq!(KeySource::parse(name).expect(name).to_string(), name);
    }
    for name in ["", "file:", "file:relative", "keyring:", "command:kms", "vault:x", "/etc/key"] {
        assert!(matches!(KeySource::parse(name), Err(KeyError::BadName { .. })), "{name}");
    }
}

/// A KMS of two lines: what it wraps is turned around.
#[test]
fn a_command_wraps_and_unwraps() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("kms");
    let text = r#"#!/bin/sh
read -r request
field() { printf '%s' "$request" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
case "$request" in
*'"operation":"wrap"'*) echo "{\"wrapped\":\"kept-$(field data_key | rev)\"}" ;;
*'"wrapped":"kept-'*) echo "{\"data_key\":\"$(field wrapped | cut -c6- | rev)\"}" ;;
*) echo "unknown key" >&2; exit 3 ;;
esac
"#;
    // JSON without a line end: `read` takes it and says no.
    let text = text.replace("read -r request\n", "read -r request || true\n");
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("changed");
    let source = KeySource::parse(&format!("command:{} --x", script.display())).expect("a name");
    let (envelope, key) = Envelope::create(&source, "replica-1").expect("wrapped");
    assert_eq!(envelope.open("replica-1").expect("opened").check(b""), key.check(b""));
    let mut other = envelope;
    other.wrapped = b"other".to_vec();
    match other.open("replica-1").expect_err("refused") {
        KeyError::Command { what, .. } => assert!(what.contains("unknown key"), "{what}"),
        error => panic!("{error}"),
    }
}
