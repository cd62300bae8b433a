//! Magic numbers, flags and codes, with the names of the protocol document (without their `NBD_`
//! prefix).

/// First eight bytes of a server: `NBDMAGIC`.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`: second eight bytes of a server, first eight of each option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First eight bytes of each reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First four bytes of a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First four bytes of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First four bytes of a structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake flag of the server, and the same bit of the client: options may follow.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Handshake flag of the server, and the same bit of the client: no zeroes after `EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 1 << 1;

/// Transmission flag: always set.
pub const FLAG_HAS_FLAGS: u16 = 1 << 0;
/// Transmission flag: writes are refused.
pub const FLAG_READ_ONLY: u16 = 1 << 1;
/// Transmission flag: `CMD_FLUSH` is understood.
pub const FLAG_SEND_FLUSH: u16 = 1 << 2;
/// Transmission flag: `CMD_FLAG_FUA` is understood.
pub const FLAG_SEND_FUA: u16 = 1 << 3;
/// Transmission flag: `CMD_TRIM` is understood.
pub const FLAG_SEND_TRIM: u16 = 1 << 5;
/// Transmission flag: `CMD_WRITE_ZEROES` is understood.
pub const FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// Transmission flag: `CMD_FLAG_DF` is understood.
pub const FLAG_SEND_DF: u16 = 1 << 7;
/// Transmission flag: several connections see one disk.
pub const FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// Transmission flag: `CMD_CACHE` is understood.
pub const FLAG_SEND_CACHE: u16 = 1 << 10;
/// Transmission flag: `CMD_FLAG_FAST_ZERO` is understood.
pub const FLAG_SEND_FAST_ZERO: u16 = 1 << 11;

/// Option: choose an export, no errors possible.
pub const OPT_EXPORT_NAME: u32 = 1;
/// Option: end the negotiation.
pub const OPT_ABORT: u32 = 2;
/// Option: list the exports.
pub const OPT_LIST: u32 = 3;
/// Option: upgrade to TLS.
pub const OPT_STARTTLS: u32 = 5;
/// Option: facts of an export.
pub const OPT_INFO: u32 = 6;
/// Option: choose an export.
pub const OPT_GO: u32 = 7;
/// Option: structured replies from now on.
pub const OPT_STRUCTURED_REPLY: u32 = 8;
/// Option: which metadata can be asked for.
pub const OPT_LIST_META_CONTEXT: u32 = 9;
/// Option: choose metadata for block status.
pub const OPT_SET_META_CONTEXT: u32 = 10;

/// Option reply: done.
pub const REP_ACK: u32 = 1;
/// Option reply: an export's name.
pub const REP_SERVER: u32 = 2;
/// Option reply: a fact of an export.
pub const REP_INFO: u32 = 3;
/// Option reply: a metadata context.
pub const REP_META_CONTEXT: u32 = 4;
/// Bit 31 marks errors.
pub const REP_ERROR_BIT: u32 = 1 << 31;
/// Option reply: the option is unknown here.
pub const REP_ERR_UNSUP: u32 = REP_ERROR_BIT | 1;
/// Option reply: the option is known and not allowed here.
pub const REP_ERR_POLICY: u32 = REP_ERROR_BIT | 2;
/// Option reply: the option's data make no sense.
pub const REP_ERR_INVALID: u32 = REP_ERROR_BIT | 3;
/// Option reply: TLS must begin first.
pub const REP_ERR_TLS_REQD: u32 = REP_ERROR_BIT | 5;
/// Option reply: no such export.
pub const REP_ERR_UNKNOWN: u32 = REP_ERROR_BIT | 6;
/// Option reply: the server is going away, or the export was revoked.
pub const REP_ERR_SHUTDOWN: u32 = REP_ERROR_BIT | 7;
/// Option reply: more than the server handles.
pub const REP_ERR_TOO_BIG: u32 = REP_ERROR_BIT | 9;

/// Info: size and transmission flags.
pub const INFO_EXPORT: u16 = 0;
/// Info: the canonical name.
pub const INFO_NAME: u16 = 1;
/// Info: smallest, preferred and largest sizes of requests.
pub const INFO_BLOCK_SIZE: u16 = 3;

/// Request type.
pub const CMD_READ: u16 = 0;
/// Request type.
pub const CMD_WRITE: u16 = 1;
/// Request type.
pub const CMD_DISC: u16 = 2;
/// Request type.
pub const CMD_FLUSH: u16 = 3;
/// Request type.
pub const CMD_TRIM: u16 = 4;
/// Request type.
pub const CMD_CACHE: u16 = 5;
/// Request type.
pub const CMD_WRITE_ZEROES: u16 = 6;
/// Request type.
pub const CMD_BLOCK_STATUS: u16 = 7;

/// Command flag: answered only when durable.
pub const CMD_FLAG_FUA: u16 = 1 << 0;
/// Command flag of `WRITE_ZEROES`: the client would like no hole.
pub const CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Command flag of `READ`: one content chunk at most.
pub const CMD_FLAG_DF: u16 = 1 << 2;
/// Command flag of `BLOCK_STATUS`: one extent.
pub const CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Command flag of `WRITE_ZEROES`: only if faster than writing.
pub const CMD_FLAG_FAST_ZERO: u16 = 1 << 4;

/// Flag of a structured chunk: the last of its reply.
pub const REPLY_FLAG_DONE: u16 = 1 << 0;
/// Chunk type: nothing.
pub const REPLY_TYPE_NONE: u16 = 0;
/// Chunk type: bytes at an offset.
pub const REPLY_TYPE_OFFSET_DATA: u16 = 1;
/// Chunk type: zeroes at an offset.
pub const REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// Chunk type: extents of a metadata context.
pub const REPLY_TYPE_BLOCK_STATUS: u16 = 5;
/// Bit 15 marks error chunks.
pub const REPLY_TYPE_ERROR_BIT: u16 = 1 << 15;
/// Chunk type: an error of the whole request.
pub const REPLY_TYPE_ERROR: u16 = REPLY_TYPE_ERROR_BIT | 1;

/// The one metadata context that is served.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// The wildcard by which `base:allocation` may be listed.
pub const BASE_WILDCARD: &str = "base:";
/// Our number of `base:allocation`; the protocol leaves it to the server.
pub const BASE_ALLOCATION_ID: u32 = 1;
/// `base:allocation`: no space is taken.
pub const STATE_HOLE: u32 = 1 << 0;
/// `base:allocation`: reads as zeroes.
pub const STATE_ZERO: u32 = 1 << 1;
