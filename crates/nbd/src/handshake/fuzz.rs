use super::{Effect, Handshake, Input, Needs, Protection, Unavailable};
use crate::Access;
use crate::proto::Facts;
use crate::proto::limits::OPTION_BYTES_MAX;

const FACTS: Facts =
    Facts { size: 1 << 20, block_bytes: 4096, access: Access::ReadWrite, multi_conn: true };

/// A client's whole negotiation, in plain text and where TLS is required first.
pub(crate) fn fuzz_negotiation(bytes: &[u8]) {
    for protection in [Protection::NotOffered, Protection::Required] {
        feed(Handshake::new(protection), bytes);
    }
}

fn feed(mut machine: Handshake, mut bytes: &[u8]) {
    let clear = machine.protection == Protection::Required;
    let mut tls = false;
    loop {
        let take = match machine.needs() {
            Needs::Bytes(count) => {
                assert!((1..=OPTION_BYTES_MAX).contains(&count), "needs {count} bytes");
                count
            }
            Needs::Skip(left) => bytes.len().min(left as usize),
            Needs::Answer => unreachable!("every question is answered below"),
            Needs::Nothing => return,
        };
        if take == 0 || bytes.len() < take {
            return;
        }
        let (piece, rest) = bytes.split_at(take);
        bytes = rest;
        let mut effects = Vec::new();
        if machine.handle(Input::Received(piece), &mut effects).is_err() {
            return;
        }
        while let Some(effect) = effects.pop() {
            let told = !clear || tls;
            let answer = match effect {
                Effect::Send(_) | Effect::Close => continue,
                Effect::StartTls => {
                    assert!(clear && !tls, "TLS begins once, where it is required");
                    tls = true;
                    continue;
                }
                Effect::List => Input::Listed(vec!["a".into(), "b/0@latest".into()]),
                Effect::Open(name) if name.len() % 2 == 0 => Input::Opened(Ok(FACTS)),
                Effect::Open(_) => Input::Opened(Err(Unavailable::Unknown("nothing here".into()))),
                Effect::Transmit(_) => {
                    assert!(told, "an export is served without the TLS that is required");
                    continue;
                }
            };
            assert!(told, "exports are looked at before TLS");
            if machine.handle(answer, &mut effects).is_err() {
                return;
            }
        }
    }
}
