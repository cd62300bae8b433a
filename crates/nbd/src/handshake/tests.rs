use super::{Effect, Handshake, Input, Needs, Negotiated, Protection, Unavailable};
use crate::Access;
use crate::proto::constants::{
    OPT_ABORT, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT,
    OPT_SET_META_CONTEXT, OPT_STARTTLS, OPT_STRUCTURED_REPLY, REP_ACK, REP_ERR_INVALID,
    REP_ERR_POLICY, REP_ERR_SHUTDOWN, REP_ERR_TLS_REQD, REP_ERR_TOO_BIG, REP_ERR_UNKNOWN,
    REP_ERR_UNSUP, REP_INFO, REP_META_CONTEXT, REP_SERVER,
};
use crate::proto::limits::OPTION_BYTES_MAX;
use crate::proto::{Facts, InfoRequest, MetaContextRequest, Violation, put_option};
use bytes::{Buf, Bytes};
use landfall_testkit::{Rng, seed};

const FACTS: Facts =
    Facts { size: 1 << 20, block_bytes: 4096, access: Access::ReadWrite, multi_conn: true };

/// A shell over bytes in memory: what a client says, and what it hears.
struct Shell {
    machine: Handshake,
    said: Vec<Bytes>,
    outcome: Option<Negotiated>,
    closed: bool,
    /// How often TLS was begun.
    tls: u32,
}

impl Shell {
    fn new() -> Self {
        Self::with(Protection::NotOffered)
    }

    fn with(protection: Protection) -> Self {
        let machine = Handshake::new(protection);
        Self { machine, said: Vec::new(), outcome: None, closed: false, tls: 0 }
    }

    /// Feeds a client's bytes; stops where the client's part ends or the machine is through.
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        loop {
            let take = match self.machine.needs() {
                Needs::Bytes(count) => {
                    assert!((1..=OPTION_BYTES_MAX).contains(&count), "needs {count} bytes");
                    count
                }
                Needs::Skip(left) => bytes.len().min(left as usize).min(700),
                Needs::Answer => panic!("an answer is owed"),
                Needs::Nothing => return Ok(()),
            };
            if take == 0 || bytes.len() < take {
                return Ok(());
            }
            let (piece, rest) = bytes.split_at(take);
            bytes = rest;
            self.step(Input::Received(piece))?;
        }
    }

    fn step(&mut self, input: Input<'_>) -> Result<(), Violation> {
        let mut effects = Vec::new();
        self.machine.handle(input, &mut effects)?;
        for effect in effects {
            match effect {
                Effect::Send(bytes) => self.said.push(bytes),
                Effect::List => self.step(Input::Listed(vec!["a".into(), "b/0@latest".into()]))?,
                Effect::Open(name) => {
                    let facts = match name.as_str() {
                        "disk" | "b/0@latest" => Ok(FACTS),
                        "gone" => Err(Unavailable::Shutdown),
                        _ => Err(Unavailable::Unknown("nothing here".into())),
                    };
                    self.step(Input::Opened(facts))?;
                }
                Effect::Transmit(negotiated) => self.outcome = Some(negotiated),
                Effect::StartTls => self.tls += 1,
                Effect::Close => self.closed = true,
            }
        }
        Ok(())
    }

    /// (reply, data) of everything that was said, which must be replies to `option`.
    fn replies(&mut self, option: u32) -> Vec<(u32, Bytes)> {
        let mut found = Vec::new();
        for mut bytes in std::mem::take(&mut self.said) {
            while bytes.has_remaining() {
                assert_eq!(bytes.get_u64(), 0x0003_e889_0455_65a9);
                assert_eq!(bytes.get_u32(), option);
                let reply = bytes.get_u32();
                let length = bytes.get_u32() as usize;
                found.push((reply, bytes.split_to(length)));
            }
        }
        found
    }

    /// Sends one option and returns the kinds of the replies.
    fn ask(&mut self, option: u32, data: &[u8]) -> Vec<u32> {
        let mut wire = Vec::new();
        put_option(&mut wire, option, data);
        self.feed(&wire).expect("no violation");
        self.replies(option).iter().map(|(reply, _)| *reply).collect()
    }
}

fn greeted() -> Shell {
    let mut shell = Shell::new();
    shell.feed(&3_u32.to_be_bytes()).expect("known flags");
    shell
}

fn go(name: &str) -> Vec<u8> {
    InfoRequest { name: name.into(), wanted: vec![3] }.encode()
}

fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let queries = queries.iter().map(|query| (*query).to_owned()).collect();
    MetaContextRequest { name: name.into(), queries }.encode()
}

#[test]
fn the_greeting_is_that_of_fixed_newstyle() {
    assert_eq!(&Handshake::greeting()[..], b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn a_modern_client_gets_all_it_asks_for() {
    let mut shell = greeted();
    assert_eq!(shell.ask(OPT_STRUCTURED_REPLY, b""), [REP_ACK]);
    let selected = shell.ask(OPT_SET_META_CONTEXT, &meta("disk", &["qemu:x", "base:allocation"]));
    assert_eq!(selected, [REP_META_CONTEXT, REP_ACK]);
    assert_eq!(shell.ask(OPT_INFO, &go("disk")), [REP_INFO, REP_INFO, REP_ACK]);
    assert_eq!(shell.outcome, None);
    assert_eq!(shell.ask(OPT_GO, &go("disk")), [REP_INFO, REP_INFO, REP_ACK]);
    let agreed = Negotiated { name: "disk".into(), structured: true, allocation: true };
    assert_eq!(shell.outcome, Some(agreed));
}

#[test]
fn an_old_client_may_name_its_export_at_once() {
    for (flags, length) in [(0_u32, 134), (1, 134), (3, 10)] {
        let mut shell = Shell::new();
        shell.feed(&flags.to_be_bytes()).expect("known flags");
        let mut wire = Vec::new();
        put_option(&mut wire, OPT_EXPORT_NAME, b"disk");
        shell.feed(&wire).expect("no violation");
        assert_eq!(shell.said[0].len(), length, "flags {flags}");
        assert_eq!(shell.said[0].slice(..8).get_u64(), FACTS.size);
        let agreed = Negotiated { name: "disk".into(), structured: false, allocation: false };
        assert_eq!(shell.outcome, Some(agreed));
    }
}

#[test]
fn facts_are_told_in_the_document_s_order_of_bytes() {
    let mut shell = greeted();
    let mut wire = Vec::new();
    put_option(&mut wire, OPT_INFO, &InfoRequest { name: "disk".into(), wanted: vec![1] }.encode());
    shell.feed(&wire).expect("no violation");
    let replies = shell.replies(OPT_INFO);
    let mut export = replies[0].1.clone();
    assert_eq!((export.get_u16(), export.get_u64()), (0, FACTS.size));
    assert_eq!(export.get_u16(), FACTS.transmission_flags(false));
    let mut sizes = replies[1].1.clone();
    assert_eq!(sizes.get_u16(), 3);
    assert_eq!((sizes.get_u32(), sizes.get_u32(), sizes.get_u32()), (4096, 4096, 32 << 20));
    assert_eq!(&replies[2].1[..], b"\x00\x01disk");
}

#[test]
fn refusals_leave_the_negotiation_going() {
    let mut shell = greeted();
    assert_eq!(shell.ask(OPT_GO, &go("nothing")), [REP_ERR_UNKNOWN]);
    assert_eq!(shell.ask(OPT_GO, &go("gone")), [REP_ERR_SHUTDOWN]);
    assert_eq!(shell.ask(OPT_STARTTLS, b""), [REP_ERR_POLICY]);
    assert_eq!(shell.ask(OPT_STARTTLS, b"x"), [REP_ERR_INVALID]);
    assert_eq!(shell.ask(OPT_LIST, b"x"), [REP_ERR_INVALID]);
    assert_eq!(shell.ask(4, b"withdrawn"), [REP_ERR_UNSUP]);
    assert_eq!(shell.ask(11, b""), [REP_ERR_UNSUP]);
    assert_eq!(shell.ask(OPT_GO, b"\xff"), [REP_ERR_INVALID]);
    assert_eq!(shell.ask(OPT_LIST_META_CONTEXT, &meta("disk", &[])), [REP_ERR_INVALID]);
    assert_eq!(shell.ask(OPT_LIST, b""), [REP_SERVER, REP_SERVER, REP_ACK]);
    assert_eq!(shell.ask(OPT_GO, &vec![0; OPTION_BYTES_MAX + 1]), [REP_ERR_TOO_BIG]);
    assert_eq!(shell.ask(OPT_GO, &vec![0; OPTION_BYTES_MAX]), [REP_ERR_INVALID]);
    assert_eq!(shell.ask(OPT_GO, &go("b/0@latest")), [REP_INFO, REP_INFO, REP_ACK]);
    assert!(shell.outcome.is_some());
}

#[test]
fn a_metadata_context_counts_only_for_the_export_it_was_selected_for() {
    let mut shell = greeted();
    shell.ask(OPT_STRUCTURED_REPLY, b"");
    shell.ask(OPT_SET_META_CONTEXT, &meta("b/0@latest", &["base:allocation"]));
    shell.ask(OPT_GO, &go("disk"));
    assert_eq!(shell.outcome.map(|agreed| agreed.allocation), Some(false));
}

#[test]
fn a_later_selection_replaces_the_earlier_even_when_it_fails() {
    let failing: [&dyn Fn(&mut Shell); 3] = [
        &|shell| drop(shell.ask(OPT_SET_META_CONTEXT, b"\xff")),
        &|shell| drop(shell.ask(OPT_SET_META_CONTEXT, &meta("disk", &["base:"]))),
        &|shell| drop(shell.ask(OPT_SET_META_CONTEXT, &vec![0; OPTION_BYTES_MAX + 1])),
    ];
    for fail in failing {
        let mut shell = greeted();
        shell.ask(OPT_STRUCTURED_REPLY, b"");
        shell.ask(OPT_SET_META_CONTEXT, &meta("disk", &["base:allocation"]));
        fail(&mut shell);
        shell.ask(OPT_GO, &go("disk"));
        assert_eq!(shell.outcome.map(|agreed| agreed.allocation), Some(false));
    }
}

#[test]
fn metadata_contexts_are_listed_by_name_by_wildcard_or_all() {
    let mut shell = greeted();
    shell.ask(OPT_STRUCTURED_REPLY, b"");
    let all: [&[&str]; 3] = [&[], &["base:"], &["base:allocation"]];
    for queries in all {
        let found = shell.ask(OPT_LIST_META_CONTEXT, &meta("disk", queries));
        assert_eq!(found, [REP_META_CONTEXT, REP_ACK]);
    }
    assert_eq!(shell.ask(OPT_LIST_META_CONTEXT, &meta("disk", &["x-y:z"])), [REP_ACK]);
    assert_eq!(shell.ask(OPT_SET_META_CONTEXT, &meta("none", &[])), [REP_ERR_UNKNOWN]);
}

#[test]
fn what_cannot_be_answered_ends_the_session() {
    let mut shell = Shell::new();
    assert_eq!(shell.feed(&4_u32.to_be_bytes()), Err(Violation::ClientFlags(4)));

    let mut wire = Vec::new();
    put_option(&mut wire, OPT_EXPORT_NAME, b"nothing");
    assert_eq!(greeted().feed(&wire), Err(Violation::ExportNameRefused));

    let mut wire = Vec::new();
    put_option(&mut wire, OPT_EXPORT_NAME, &vec![b'n'; OPTION_BYTES_MAX + 1]);
    assert_eq!(greeted().feed(&wire), Err(Violation::ExportNameRefused));

    assert_eq!(greeted().feed(&[b'x'; 16]), Err(Violation::OptionMagic(0x7878_7878_7878_7878)));
}

#[test]
fn a_client_may_leave() {
    let mut shell = greeted();
    assert_eq!(shell.ask(OPT_ABORT, b""), [REP_ACK]);
    assert!(shell.closed);
    assert_eq!(shell.machine.needs(), Needs::Nothing);
}

/// Random changes to a good negotiation: no panic, and never more than the named limit is asked of
/// the shell.
#[test]
fn mutated_negotiations_are_answered_or_ended() {
    let mut rng = Rng::new(seed("mutated_negotiations_are_answered_or_ended"));
    let mut good = 3_u32.to_be_bytes().to_vec();
    put_option(&mut good, OPT_STRUCTURED_REPLY, b"");
    put_option(&mut good, OPT_LIST, b"");
    put_option(&mut good, OPT_SET_META_CONTEXT, &meta("disk", &["base:allocation", "x-y:z"]));
    put_option(&mut good, OPT_INFO, &go("b/0@latest"));
    put_option(&mut good, OPT_GO, &go("disk"));
    let mut through = 0;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(3) {
                0 => bytes[at] = rng.next_u64() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, rng.next_u64() as u8),
            }
        }
        let mut shell = Shell::new();
        // A violation is a fine answer to nonsense.
        let _ = shell.feed(&bytes);
        through += usize::from(shell.outcome.is_some());
    }
    assert!(through > 1000, "only {through} got through: the mutations test nothing");
}

/// No downgrade: before TLS nothing is told and nothing is agreed, and nothing that was said before
/// counts behind it.
#[test]
fn where_tls_is_required_nothing_comes_before_it() {
    let mut shell = Shell::with(Protection::Required);
    shell.feed(&3_u32.to_be_bytes()).expect("flags");
    let name = InfoRequest { name: "disk".into(), wanted: vec![] }.encode();
    for (option, data) in [
        (OPT_LIST, &b""[..]),
        (OPT_STRUCTURED_REPLY, b""),
        (OPT_INFO, &name),
        (OPT_GO, &name),
        (OPT_SET_META_CONTEXT, &name),
        (OPT_GO, &vec![0; OPTION_BYTES_MAX + 1]),
        (4711, b"unknown"),
    ] {
        let mut bytes = Vec::new();
        put_option(&mut bytes, option, data);
        shell.feed(&bytes).expect("answered");
        let replies = shell.replies(option);
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].0, REP_ERR_TLS_REQD, "option {option}");
    }
    let mut bytes = Vec::new();
    put_option(&mut bytes, OPT_STARTTLS, b"x");
    shell.feed(&bytes).expect("answered");
    assert_eq!(shell.replies(OPT_STARTTLS)[0].0, REP_ERR_INVALID);

    let mut bytes = Vec::new();
    put_option(&mut bytes, OPT_STARTTLS, b"");
    shell.feed(&bytes).expect("answered");
    assert_eq!((shell.replies(OPT_STARTTLS)[0].0, shell.tls), (REP_ACK, 1));
    shell.feed(&bytes).expect("answered");
    assert_eq!((shell.replies(OPT_STARTTLS)[0].0, shell.tls), (REP_ERR_INVALID, 1));
    let mut bytes = Vec::new();
    put_option(&mut bytes, OPT_GO, &name);
    shell.feed(&bytes).expect("served");
    let negotiated = shell.outcome.expect("an export");
    assert!(!negotiated.structured, "what was asked before TLS does not count");
}

#[test]
fn an_export_by_name_before_tls_ends_the_connection() {
    let mut shell = Shell::with(Protection::Required);
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    put_option(&mut bytes, OPT_EXPORT_NAME, b"disk");
    assert_eq!(shell.feed(&bytes), Err(Violation::PlainText));
    assert!(shell.said.is_empty() && shell.outcome.is_none());
}
