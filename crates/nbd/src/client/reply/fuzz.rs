use super::Assembly;
use crate::client::connection::Wanted;
use bytes::{Buf, Bytes};

/// A server's chunks in answer to one read: a kind (16 bits), a length (16 bits), and that many
/// bytes, again and again.
pub(crate) fn fuzz_answer(mut bytes: &[u8]) {
    const LENGTH: u32 = 4096;
    let wanted = Wanted::Data { offset: 512, length: LENGTH, structured: true };
    let mut assembly = Assembly::new(wanted);
    while bytes.len() >= 4 {
        let (kind, length) = (bytes.get_u16(), usize::from(bytes.get_u16()));
        let (payload, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = rest;
        if assembly.add(kind, Bytes::copy_from_slice(payload)).is_err() {
            return;
        }
    }
    if let Ok(Ok(answer)) = assembly.finish() {
        assert_eq!(answer.data.len(), LENGTH as usize, "what was asked for, or nothing");
    }
}
