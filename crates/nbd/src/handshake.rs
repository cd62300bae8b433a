//! The server's half of the fixed newstyle negotiation as a state machine without input or output.
//!
//! ```text
//! ClientFlags ─► Header ─► Data ─► (asking for a list or an export) ─► Header … ─► Over
//!                   └────► Skip ─► Header
//! ```
//!
//! The shell sends [`Handshake::greeting`], then loops: it reads exactly the bytes that
//! [`Handshake::needs`] names, hands them to [`Handshake::handle`], and carries out the effects in
//! order. A negotiation is a dialogue (the client must wait for each answer), so reading exact
//! amounts never splits a message.
//!
//! TLS: [`Protection`] says what the stream needs. Where TLS is required (the protocol document's
//! FORCEDTLS mode), nothing is told before it: every option but STARTTLS and ABORT is answered
//! `ERR_TLS_REQD`, so that nobody on the way learns a name or makes a client go on in plain text.
//! The shell wraps its stream at [`Effect::StartTls`] and goes on with the same machine; it must
//! hold no byte that it read before, because whoever sits on the way could have put it there.

use crate::proto::constants::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, BASE_WILDCARD, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES,
    INFO_BLOCK_SIZE, INFO_EXPORT, INFO_NAME, INIT_MAGIC, OPT_ABORT, OPT_EXPORT_NAME, OPT_GO,
    OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT, OPT_STARTTLS,
    OPT_STRUCTURED_REPLY, OPTION_MAGIC, REP_ACK, REP_ERR_INVALID, REP_ERR_POLICY, REP_ERR_SHUTDOWN,
    REP_ERR_TLS_REQD, REP_ERR_TOO_BIG, REP_ERR_UNKNOWN, REP_ERR_UNSUP, REP_INFO, REP_META_CONTEXT,
    REP_SERVER,
};
use crate::proto::limits::{
    BLOCK_BYTES_PREFERRED, EXPORTS_LISTED_MAX, OPTION_BYTES_MAX, OPTIONS_MAX, PAYLOAD_BYTES_MAX,
    STRING_BYTES_MAX,
};
use crate::proto::{
    Facts, InfoRequest, MetaContextRequest, OptionError, OptionHeader, Violation, options,
    put_option_reply,
};
use bytes::{BufMut, Bytes, BytesMut};

/// What protects the stream that is negotiated on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protection {
    /// TLS is not offered: the mode of a Unix socket protects it, or it never leaves this machine.
    NotOffered,
    /// TLS has to begin before anything else.
    Required,
    /// TLS has begun.
    Running,
}

/// Why an export can't be opened, as far as the client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unavailable {
    /// No such export, or none that can be served, in words.
    Unknown(String),
    /// Revoked, or the server is going away.
    Shutdown,
}

/// What the machine is told.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// The bytes that it needed.
    Received(&'a [u8]),
    /// The exports' names.
    Listed(Vec<String>),
    /// The export that it asked for.
    Opened(Result<Facts, Unavailable>),
}

/// What the machine waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    /// Exactly this many bytes (not 0), at most [`OPTION_BYTES_MAX`] in one piece.
    Bytes(usize),
    /// Bytes that nobody looks at, in pieces of any size up to this many.
    Skip(u32),
    /// The answer to [`Effect::List`] or [`Effect::Open`].
    Answer,
    /// Nothing: it is over.
    Nothing,
}

/// What the shell has to do.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Send these bytes.
    Send(Bytes),
    /// Ask the exports for their names.
    List,
    /// Open an export, or keep it if it is the one opened last: INFO and GO must tell the same.
    Open(String),
    /// Begin TLS on the stream, and go on within it. Everything said before is flushed by then.
    StartTls,
    /// The negotiation succeeded: requests follow.
    Transmit(Negotiated),
    /// Close the stream; nobody is at fault.
    Close,
}

/// The outcome of a negotiation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Negotiated {
    /// The export, as the client named it.
    pub(crate) name: String,
    /// Replies are structured.
    pub(crate) structured: bool,
    /// Block status may be asked for.
    pub(crate) allocation: bool,
}

const NO_DATA: &[u8] = b"the option carries no data";
const TLS_FIRST: &[u8] = b"TLS must come first";

/// Why an export is being opened.
#[derive(Debug)]
enum Purpose {
    ExportName,
    Info { option: u32, wanted: Vec<u16> },
    MetaContext { option: u32, selected: bool },
}

#[derive(Debug)]
enum State {
    ClientFlags,
    Header,
    Data(OptionHeader),
    Skip { option: u32, left: u32 },
    Listing,
    Opening { name: String, purpose: Purpose },
    Over,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Handshake {
    state: State,
    protection: Protection,
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was selected; it counts only if the client then
    /// chooses that export.
    allocation_for: Option<String>,
    options: u32,
}

impl Handshake {
    /// Before the client's first byte.
    pub(crate) const fn new(protection: Protection) -> Self {
        Self {
            state: State::ClientFlags,
            protection,
            no_zeroes: false,
            structured: false,
            allocation_for: None,
            options: 0,
        }
    }

    /// What a server says first.
    pub(crate) fn greeting() -> Bytes {
        let mut out = BytesMut::with_capacity(18);
        out.put_u64(INIT_MAGIC);
        out.put_u64(OPTION_MAGIC);
        out.put_u16(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        out.freeze()
    }

    /// What the shell has to bring next.
    pub(crate) fn needs(&self) -> Needs {
        match &self.state {
            State::ClientFlags => Needs::Bytes(4),
            State::Header => Needs::Bytes(OptionHeader::BYTES),
            State::Data(header) => Needs::Bytes(header.length as usize),
            State::Skip { left, .. } => Needs::Skip(*left),
            State::Listing | State::Opening { .. } => Needs::Answer,
            State::Over => Needs::Nothing,
        }
    }

    /// Takes an input that fits [`Handshake::needs`] and appends what is to be done.
    ///
    /// # Errors
    /// [`Violation`]: close the stream, nothing can be answered.
    pub(crate) fn handle(
        &mut self,
        input: Input<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Violation> {
        let state = std::mem::replace(&mut self.state, State::Over);
        match (state, input) {
            (State::ClientFlags, Input::Received(bytes)) => self.on_client_flags(bytes),
            (State::Header, Input::Received(bytes)) => self.on_header(bytes, out),
            (State::Data(header), Input::Received(data)) => {
                self.on_option(header.option, data, out)
            }
            (State::Skip { option, left }, Input::Received(bytes)) => {
                let skipped = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                self.on_skipped(option, left.saturating_sub(skipped), out);
                Ok(())
            }
            (State::Listing, Input::Listed(names)) => {
                self.on_listed(&names, out);
                Ok(())
            }
            (State::Opening { name, purpose }, Input::Opened(facts)) => {
                self.on_opened(name, purpose, facts, out)
            }
            // The shell brought something that was not asked for: a defect, which ends this session
            // only.
            (_, _) => Err(Violation::Malformed("order of inputs")),
        }
    }

    fn on_client_flags(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let flags = u32::from_be_bytes(exact(bytes)?);
        let known = u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        if flags & !known != 0 {
            return Err(Violation::ClientFlags(flags));
        }
        self.no_zeroes = flags & u32::from(FLAG_NO_ZEROES) != 0;
        self.state = State::Header;
        Ok(())
    }

    fn on_header(&mut self, bytes: &[u8], out: &mut Vec<Effect>) -> Result<(), Violation> {
        let header = OptionHeader::decode(&exact(bytes)?)?;
        self.options += 1;
        if self.options > OPTIONS_MAX {
            return Err(Violation::TooManyOptions(OPTIONS_MAX));
        }
        if header.length as usize > OPTION_BYTES_MAX {
            // EXPORT_NAME can't be answered with an error.
            if header.option == OPT_EXPORT_NAME {
                return Err(Violation::ExportNameRefused);
            }
            self.state = State::Skip { option: header.option, left: header.length };
            return Ok(());
        }
        if header.length == 0 {
            return self.on_option(header.option, &[], out);
        }
        self.state = State::Data(header);
        Ok(())
    }

    fn on_skipped(&mut self, option: u32, left: u32, out: &mut Vec<Effect>) {
        if left > 0 {
            self.state = State::Skip { option, left };
            return;
        }
        if option == OPT_SET_META_CONTEXT {
            self.allocation_for = None;
        }
        if self.protection == Protection::Required {
            return self.answer(out, option, REP_ERR_TLS_REQD, TLS_FIRST);
        }
        self.answer(out, option, REP_ERR_TOO_BIG, b"the option is too long");
    }

    /// The options that exist before TLS.
    fn on_option_in_the_clear(
        &mut self,
        option: u32,
        data: &[u8],
        out: &mut Vec<Effect>,
    ) -> Result<(), Violation> {
        match option {
            OPT_EXPORT_NAME => return Err(Violation::PlainText),
            OPT_STARTTLS if data.is_empty() => {
                self.answer(out, option, REP_ACK, &[]);
                self.protection = Protection::Running;
                out.push(Effect::StartTls);
            }
            OPT_STARTTLS => self.answer(out, option, REP_ERR_INVALID, NO_DATA),
            OPT_ABORT => self.abort(out),
            _ => self.answer(out, option, REP_ERR_TLS_REQD, TLS_FIRST),
        }
        Ok(())
    }

    fn abort(&mut self, out: &mut Vec<Effect>) {
        self.answer(out, OPT_ABORT, REP_ACK, &[]);
        self.state = State::Over;
        out.push(Effect::Close);
    }

    fn on_option(
        &mut self,
        option: u32,
        data: &[u8],
        out: &mut Vec<Effect>,
    ) -> Result<(), Violation> {
        if self.protection == Protection::Required {
            return self.on_option_in_the_clear(option, data, out);
        }
        match option {
            OPT_EXPORT_NAME => {
                let name = options::decode_name(data).map_err(|_| Violation::ExportNameRefused)?;
                self.open(name, Purpose::ExportName, out);
            }
            OPT_ABORT => self.abort(out),
            OPT_LIST | OPT_STRUCTURED_REPLY | OPT_STARTTLS if !data.is_empty() => {
                self.answer(out, option, REP_ERR_INVALID, NO_DATA);
            }
            OPT_LIST => {
                self.state = State::Listing;
                out.push(Effect::List);
            }
            OPT_STRUCTURED_REPLY => {
                self.structured = true;
                self.answer(out, option, REP_ACK, &[]);
            }
            OPT_STARTTLS if self.protection == Protection::Running => {
                self.answer(out, option, REP_ERR_INVALID, b"TLS has begun already");
            }
            OPT_STARTTLS => {
                self.answer(out, option, REP_ERR_POLICY, b"TLS is not offered on this socket");
            }
            OPT_INFO | OPT_GO => match InfoRequest::decode(data) {
                Ok(InfoRequest { name, wanted }) => {
                    self.open(name, Purpose::Info { option, wanted }, out);
                }
                Err(error) => self.refuse(out, option, error),
            },
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => {
                self.on_meta_context(option, data, out);
            }
            _ => self.answer(out, option, REP_ERR_UNSUP, b"the option is unknown"),
        }
        Ok(())
    }

    fn on_meta_context(&mut self, option: u32, data: &[u8], out: &mut Vec<Effect>) {
        let set = option == OPT_SET_META_CONTEXT;
        if set {
            // Replaced even when this fails.
            self.allocation_for = None;
        }
        if !self.structured {
            self.answer(out, option, REP_ERR_INVALID, b"structured replies must come first");
            return;
        }
        match MetaContextRequest::decode(data) {
            Ok(MetaContextRequest { name, queries }) => {
                let selected = if set {
                    queries.iter().any(|query| query == BASE_ALLOCATION)
                } else {
                    queries.is_empty()
                        || queries
                            .iter()
                            .any(|query| query == BASE_ALLOCATION || query == BASE_WILDCARD)
                };
                self.open(name, Purpose::MetaContext { option, selected }, out);
            }
            Err(error) => self.refuse(out, option, error),
        }
    }

    fn on_listed(&mut self, names: &[String], out: &mut Vec<Effect>) {
        let mut replies = BytesMut::new();
        let listable = names.iter().filter(|name| name.len() <= STRING_BYTES_MAX);
        for name in listable.take(EXPORTS_LISTED_MAX) {
            let mut data = Vec::with_capacity(4 + name.len());
            data.put_u32(u32::try_from(name.len()).expect("names were filtered by length"));
            data.put_slice(name.as_bytes());
            put_option_reply(&mut replies, OPT_LIST, REP_SERVER, &data);
        }
        put_option_reply(&mut replies, OPT_LIST, REP_ACK, &[]);
        out.push(Effect::Send(replies.freeze()));
        self.state = State::Header;
    }

    fn on_opened(
        &mut self,
        name: String,
        purpose: Purpose,
        facts: Result<Facts, Unavailable>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Violation> {
        match (purpose, facts) {
            (Purpose::ExportName, Err(_)) => return Err(Violation::ExportNameRefused),
            (Purpose::ExportName, Ok(facts)) => {
                let mut reply = BytesMut::with_capacity(134);
                reply.put_u64(facts.size);
                reply.put_u16(facts.transmission_flags(self.structured));
                reply.put_bytes(0, if self.no_zeroes { 0 } else { 124 });
                out.push(Effect::Send(reply.freeze()));
                self.transmit(name, out);
            }
            (
                Purpose::Info { option, .. } | Purpose::MetaContext { option, .. },
                Err(unavailable),
            ) => self.answer_unavailable(option, unavailable, out),
            (Purpose::Info { option, wanted }, Ok(facts)) => {
                out.push(Effect::Send(self.info_replies(option, &wanted, &name, &facts)));
                self.state = State::Header;
                if option == OPT_GO {
                    self.transmit(name, out);
                }
            }
            (Purpose::MetaContext { option, selected }, Ok(_)) => {
                let mut replies = BytesMut::new();
                if selected {
                    let set = option == OPT_SET_META_CONTEXT;
                    let mut data = Vec::with_capacity(4 + BASE_ALLOCATION.len());
                    data.put_u32(if set { BASE_ALLOCATION_ID } else { 0 });
                    data.put_slice(BASE_ALLOCATION.as_bytes());
                    put_option_reply(&mut replies, option, REP_META_CONTEXT, &data);
                    if set {
                        self.allocation_for = Some(name);
                    }
                }
                put_option_reply(&mut replies, option, REP_ACK, &[]);
                out.push(Effect::Send(replies.freeze()));
                self.state = State::Header;
            }
        }
        Ok(())
    }

    fn info_replies(&self, option: u32, wanted: &[u16], name: &str, facts: &Facts) -> Bytes {
        let mut replies = BytesMut::new();
        let mut export = Vec::with_capacity(12);
        export.put_u16(INFO_EXPORT);
        export.put_u64(facts.size);
        export.put_u16(facts.transmission_flags(self.structured));
        put_option_reply(&mut replies, option, REP_INFO, &export);
        // Sent unasked too: requests that are no multiples of the block are refused, so every
        // client had better know.
        let mut sizes = Vec::with_capacity(14);
        sizes.put_u16(INFO_BLOCK_SIZE);
        sizes.put_u32(facts.block_bytes);
        sizes.put_u32(facts.block_bytes.max(BLOCK_BYTES_PREFERRED));
        sizes.put_u32(PAYLOAD_BYTES_MAX);
        put_option_reply(&mut replies, option, REP_INFO, &sizes);
        if wanted.contains(&INFO_NAME) {
            let mut canonical = Vec::with_capacity(2 + name.len());
            canonical.put_u16(INFO_NAME);
            canonical.put_slice(name.as_bytes());
            put_option_reply(&mut replies, option, REP_INFO, &canonical);
        }
        put_option_reply(&mut replies, option, REP_ACK, &[]);
        replies.freeze()
    }

    fn open(&mut self, name: String, purpose: Purpose, out: &mut Vec<Effect>) {
        out.push(Effect::Open(name.clone()));
        self.state = State::Opening { name, purpose };
    }

    fn transmit(&mut self, name: String, out: &mut Vec<Effect>) {
        let allocation = self.allocation_for.as_deref() == Some(name.as_str());
        self.state = State::Over;
        out.push(Effect::Transmit(Negotiated { name, structured: self.structured, allocation }));
    }

    fn answer_unavailable(&mut self, option: u32, why: Unavailable, out: &mut Vec<Effect>) {
        match why {
            Unavailable::Unknown(why) => {
                let why = &why[..why.floor_char_boundary(STRING_BYTES_MAX)];
                self.answer(out, option, REP_ERR_UNKNOWN, why.as_bytes());
            }
            Unavailable::Shutdown => {
                self.answer(out, option, REP_ERR_SHUTDOWN, b"the export was revoked");
            }
        }
    }

    fn refuse(&mut self, out: &mut Vec<Effect>, option: u32, error: OptionError) {
        let reply = match error {
            OptionError::Lengths | OptionError::Utf8 => REP_ERR_INVALID,
            OptionError::NameTooLong | OptionError::TooManyQueries => REP_ERR_TOO_BIG,
        };
        self.answer(out, option, reply, error.to_string().as_bytes());
    }

    /// One reply, and the next option may come.
    fn answer(&mut self, out: &mut Vec<Effect>, option: u32, reply: u32, data: &[u8]) {
        let mut bytes = BytesMut::with_capacity(20 + data.len());
        put_option_reply(&mut bytes, option, reply, data);
        out.push(Effect::Send(bytes.freeze()));
        self.state = State::Header;
    }
}

fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Violation> {
    bytes.try_into().map_err(|_| Violation::Malformed("amount of bytes"))
}

#[cfg(feature = "testing")]
mod fuzz;
#[cfg(test)]
mod tests;

#[cfg(feature = "testing")]
pub(crate) use fuzz::fuzz_negotiation;
