use super::{Facts, FactsError, Operation, Verdict, judge};
use crate::Access;
use crate::proto::constants::{
    CMD_BLOCK_STATUS, CMD_CACHE, CMD_DISC, CMD_FLAG_DF, CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA,
    CMD_FLAG_NO_HOLE, CMD_FLAG_REQ_ONE, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES,
    FLAG_CAN_MULTI_CONN, FLAG_HAS_FLAGS, FLAG_READ_ONLY, FLAG_SEND_CACHE, FLAG_SEND_DF,
    FLAG_SEND_FAST_ZERO, FLAG_SEND_FLUSH, FLAG_SEND_FUA, FLAG_SEND_TRIM, FLAG_SEND_WRITE_ZEROES,
};
use crate::proto::limits::{EXTENTS_MAX, PAYLOAD_BYTES_MAX, STATUS_SPAN_BYTES_MAX};
use crate::proto::{Errno, Request};
use crate::testing::MemoryExport;
use bytes::BufMut;

const SIZE: u64 = 8 << 30;
const BRANCH: Facts =
    Facts { size: SIZE, block_bytes: 512, access: Access::ReadWrite, multi_conn: true };
const VIEW: Facts =
    Facts { size: SIZE, block_bytes: 512, access: Access::ReadOnly, multi_conn: false };

fn request(command: u16, flags: u16, offset: u64, length: u32) -> Request {
    let mut bytes = Vec::new();
    bytes.put_u32(0x2560_9513);
    bytes.put_u16(flags);
    bytes.put_u16(command);
    bytes.put_u64(7);
    bytes.put_u64(offset);
    bytes.put_u32(length);
    Request::decode(bytes.as_slice().try_into().expect("28 bytes")).expect("a good magic")
}

/// What the verdict is, without its words.
fn verdict(
    facts: &Facts,
    command: u16,
    flags: u16,
    offset: u64,
    length: u32,
) -> Result<Operation, u32> {
    match judge(&request(command, flags, offset, length), facts, true, true) {
        Verdict::Run(operation) => Ok(operation),
        Verdict::Refuse(errno, _) => Err(errno.code()),
        Verdict::Disconnect => panic!("only a farewell disconnects"),
    }
}

/// Protocol document, section "Error values": which number answers which nonsense.
#[test]
fn nonsense_is_answered_with_the_number_that_the_document_names() {
    const EPERM: u32 = 1;
    const EINVAL: u32 = 22;
    const ENOSPC: u32 = 28;
    const EOVERFLOW: u32 = 75;
    // tidy: table
    let table: &[(&Facts, u16, u16, u64, u32, u32)] = &[
        (&BRANCH, CMD_READ, 0, SIZE, 512, EINVAL),
        (&BRANCH, CMD_READ, 0, SIZE - 512, 1024, EINVAL),
        (&BRANCH, CMD_READ, 0, u64::MAX - 511, 512, EINVAL),
        (&BRANCH, CMD_WRITE, 0, SIZE, 512, ENOSPC),
        (&BRANCH, CMD_WRITE, 0, u64::MAX - 511, 512, ENOSPC),
        (&BRANCH, CMD_WRITE_ZEROES, 0, SIZE - 512, 1024, ENOSPC),
        (&BRANCH, CMD_TRIM, 0, SIZE, 512, EINVAL),
        (&BRANCH, CMD_BLOCK_STATUS, 0, SIZE, 512, EINVAL),
        (&BRANCH, CMD_READ, 0, 1, 512, EINVAL),
        (&BRANCH, CMD_READ, 0, 0, 511, EINVAL),
        (&BRANCH, CMD_WRITE, 0, 256, 512, EINVAL),
        (&BRANCH, CMD_READ, 0, 0, 0, EINVAL),
        (&BRANCH, CMD_WRITE, 0, 0, 0, EINVAL),
        (&BRANCH, CMD_BLOCK_STATUS, 0, 0, 0, EINVAL),
        (&BRANCH, CMD_READ, 0, 0, PAYLOAD_BYTES_MAX + 512, EOVERFLOW),
        (&BRANCH, CMD_WRITE, 0, 0, PAYLOAD_BYTES_MAX + 512, EINVAL),
        (&BRANCH, CMD_FLUSH, 0, 512, 0, EINVAL),
        (&BRANCH, CMD_FLUSH, 0, 0, 512, EINVAL),
        (&BRANCH, CMD_READ, CMD_FLAG_NO_HOLE, 0, 512, EINVAL),
        (&BRANCH, CMD_READ, 1 << 15, 0, 512, EINVAL),
        (&BRANCH, CMD_WRITE, CMD_FLAG_DF, 0, 512, EINVAL),
        (&BRANCH, CMD_WRITE_ZEROES, CMD_FLAG_REQ_ONE, 0, 512, EINVAL),
        (&BRANCH, CMD_TRIM, CMD_FLAG_FAST_ZERO, 0, 512, EINVAL),
        (&BRANCH, 8, 0, 0, 512, EINVAL),
        (&BRANCH, 99, 0, 0, 512, EINVAL),
        (&VIEW, CMD_WRITE, 0, 0, 512, EPERM),
        (&VIEW, CMD_WRITE_ZEROES, 0, 0, 512, EPERM),
        (&VIEW, CMD_TRIM, 0, 0, 512, EPERM),
        (&VIEW, CMD_WRITE, 0, SIZE, 512, EPERM),
    ];
    for (facts, command, flags, offset, length, errno) in table.iter().copied() {
        let found = verdict(facts, command, flags, offset, length);
        assert_eq!(found, Err(errno), "command {command} flags {flags} {offset}+{length}");
    }
}

#[test]
fn requests_in_order_are_carried_out_up_to_the_last_byte_and_the_largest_payload() {
    let last = SIZE - 512;
    let full = PAYLOAD_BYTES_MAX;
    let whole = 0xffff_fe00; // the largest multiple of 512 in 32 bits
    // tidy: table
    let table: &[(u16, u16, u64, u32, Operation)] = &[
        (CMD_READ, 0, last, 512, Operation::Read { offset: last, length: 512 }),
        (CMD_READ, CMD_FLAG_DF, 0, full, Operation::Read { offset: 0, length: full }),
        (CMD_READ, CMD_FLAG_FUA, 0, 512, Operation::Read { offset: 0, length: 512 }),
        (CMD_WRITE, CMD_FLAG_FUA, last, 512, Operation::Write { offset: last, length: 512 }),
        (CMD_WRITE, 0, 0, full, Operation::Write { offset: 0, length: full }),
        (
            CMD_WRITE_ZEROES,
            CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO | CMD_FLAG_FUA,
            0,
            whole,
            Operation::Zero { offset: 0, length: whole },
        ),
        (CMD_TRIM, 0, 0, whole, Operation::Trim { offset: 0, length: whole }),
        (CMD_FLUSH, 0, 0, 0, Operation::Flush),
        (CMD_CACHE, 0, 0, whole, Operation::Cache { offset: 0, length: PAYLOAD_BYTES_MAX }),
        (
            CMD_BLOCK_STATUS,
            0,
            0,
            whole,
            Operation::Status {
                offset: 0,
                length: STATUS_SPAN_BYTES_MAX,
                extents_max: EXTENTS_MAX,
            },
        ),
        (
            CMD_BLOCK_STATUS,
            CMD_FLAG_REQ_ONE,
            512,
            512,
            Operation::Status { offset: 512, length: 512, extents_max: 1 },
        ),
    ];
    for (command, flags, offset, length, operation) in table.iter().copied() {
        assert_eq!(verdict(&BRANCH, command, flags, offset, length), Ok(operation));
    }
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let status = request(CMD_BLOCK_STATUS, 0, 0, 512);
    assert!(matches!(judge(&status, &BRANCH, true, false), Verdict::Refuse(Errno::Invalid, _)));
    let unfragmented = request(CMD_READ, CMD_FLAG_DF, 0, 512);
    let simple = judge(&unfragmented, &BRANCH, false, false);
    assert!(matches!(simple, Verdict::Refuse(Errno::Invalid, _)));
    let large = request(CMD_READ, 0, 0, PAYLOAD_BYTES_MAX + 512);
    assert!(matches!(judge(&large, &BRANCH, false, false), Verdict::Refuse(Errno::Invalid, _)));
}

#[test]
fn a_farewell_ends_the_session_whatever_its_flags() {
    let farewell = request(CMD_DISC, CMD_FLAG_FUA, 0, 0);
    assert_eq!(judge(&farewell, &VIEW, false, false), Verdict::Disconnect);
    assert_eq!(judge(&request(CMD_DISC, 1 << 9, 0, 0), &VIEW, true, true), Verdict::Disconnect);
}

#[test]
fn flags_say_what_the_export_can_do() {
    let always = FLAG_HAS_FLAGS | FLAG_SEND_FLUSH | FLAG_SEND_FUA | FLAG_SEND_CACHE;
    assert_eq!(VIEW.transmission_flags(false), always | FLAG_READ_ONLY);
    assert_eq!(VIEW.transmission_flags(true), always | FLAG_READ_ONLY | FLAG_SEND_DF);
    let writes = FLAG_SEND_TRIM | FLAG_SEND_WRITE_ZEROES | FLAG_SEND_FAST_ZERO;
    assert_eq!(BRANCH.transmission_flags(false), always | writes | FLAG_CAN_MULTI_CONN);
}

#[test]
fn an_export_that_nbd_cannot_express_is_not_served() {
    assert_eq!(Facts::of(&MemoryExport::new(4096, 512)).map(|facts| facts.size), Ok(4096));
    let odd = MemoryExport::new(3000, 1000);
    assert_eq!(Facts::of(&odd), Err(FactsError::BlockBytes(1000)));
    let large = MemoryExport::new(256 << 10, 128 << 10);
    assert_eq!(Facts::of(&large), Err(FactsError::BlockBytes(128 << 10)));
    let ragged = MemoryExport::new(4096 + 512, 4096);
    assert_eq!(Facts::of(&ragged), Err(FactsError::Size { size: 4608, block_bytes: 4096 }));
}
