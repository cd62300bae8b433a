use super::{ClientError, ExportInfo};
use crate::proto::constants::{
    BASE_ALLOCATION, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INFO_BLOCK_SIZE, INFO_EXPORT, INIT_MAGIC,
    OPT_ABORT, OPT_GO, OPT_LIST, OPT_SET_META_CONTEXT, OPT_STARTTLS, OPT_STRUCTURED_REPLY,
    OPTION_MAGIC, REP_ACK, REP_ERROR_BIT, REP_INFO, REP_META_CONTEXT, REP_SERVER,
};
use crate::proto::limits::EXPORTS_LISTED_MAX;
use crate::proto::{InfoRequest, MetaContextRequest, OptionReply, Violation, put_option};
use bytes::Buf;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Takes the server's greeting and answers it: comes before everything else.
pub(super) async fn greet(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), ClientError> {
    Dialogue { reader, writer, export: "" }.greet().await
}

/// Asks for TLS. The server's yes is the last thing that is read in the clear; a no is the end, and
/// never a reason to go on without.
pub(super) async fn start_tls(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), ClientError> {
    let mut dialogue = Dialogue { reader, writer, export: "" };
    let outcome = dialogue.ask(OPT_STARTTLS, &[], |_, _| Ok(())).await?;
    outcome.map_err(|Refusal { reply, message }| ClientError::NoTls { reply, message })
}

/// Chooses an export, with structured replies and `base:allocation` where the server has them.
pub(super) async fn choose(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    export: &str,
) -> Result<ExportInfo, ClientError> {
    let mut dialogue = Dialogue { reader, writer, export };
    let structured = dialogue.ask(OPT_STRUCTURED_REPLY, &[], |_, _| Ok(())).await?.is_ok();
    let allocation = structured && dialogue.select_allocation().await?;
    let request = InfoRequest { name: export.to_owned(), wanted: vec![INFO_BLOCK_SIZE] };
    let mut facts = None;
    let mut block_bytes = 1;
    let outcome = dialogue
        .ask(OPT_GO, &request.encode(), |reply, mut data| {
            if reply != REP_INFO {
                return Ok(());
            }
            match (data.try_get_u16().map_err(|_| BAD_INFO)?, data.len()) {
                (INFO_EXPORT, 10) => facts = Some((data.get_u64(), data.get_u16())),
                (INFO_BLOCK_SIZE, 12) => block_bytes = data.get_u32(),
                (INFO_EXPORT | INFO_BLOCK_SIZE, _) => return Err(BAD_INFO),
                _ => {}
            }
            Ok(())
        })
        .await?;
    outcome.map_err(|refusal| refusal.of(export))?;
    let (size, flags) = facts.ok_or(ClientError::Protocol(BAD_INFO))?;
    if !block_bytes.is_power_of_two() {
        return Err(ClientError::Protocol(BAD_INFO));
    }
    Ok(ExportInfo { size, block_bytes, flags, structured, allocation })
}

/// The names that a server lists.
pub(super) async fn list(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<Vec<String>, ClientError> {
    let mut dialogue = Dialogue { reader, writer, export: "" };
    let mut names = Vec::new();
    let outcome = dialogue
        .ask(OPT_LIST, &[], |reply, mut data| {
            if reply != REP_SERVER {
                return Ok(());
            }
            let length = data.try_get_u32().map_err(|_| BAD_NAME)? as usize;
            let name = data.get(..length).ok_or(BAD_NAME)?;
            if names.len() >= EXPORTS_LISTED_MAX {
                return Err(BAD_NAME);
            }
            names.push(std::str::from_utf8(name).map_err(|_| BAD_NAME)?.to_owned());
            Ok(())
        })
        .await?;
    outcome.map_err(|refusal| refusal.of(""))?;
    // A farewell: that the server has gone already is no failure.
    let _ = dialogue.ask(OPT_ABORT, &[], |_, _| Ok(())).await;
    Ok(names)
}

const BAD_INFO: Violation = Violation::Malformed("export information");
const BAD_NAME: Violation = Violation::Malformed("list of exports");

struct Refusal {
    reply: u32,
    message: String,
}

impl Refusal {
    fn of(self, export: &str) -> ClientError {
        let Self { reply, message } = self;
        ClientError::Refused { export: export.to_owned(), reply, message }
    }
}

struct Dialogue<'a, R, W> {
    reader: &'a mut R,
    writer: &'a mut W,
    export: &'a str,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Dialogue<'_, R, W> {
    async fn greet(&mut self) -> Result<(), ClientError> {
        let (first, second) = (self.u64().await?, self.u64().await?);
        if (first, second) != (INIT_MAGIC, OPTION_MAGIC) {
            return Err(ClientError::Protocol(Violation::Greeting(first, second)));
        }
        let flags = self.reader.read_u16().await.map_err(ClientError::Stream)?;
        if flags & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(ClientError::Protocol(Violation::Oldstyle(flags)));
        }
        let ours = u32::from(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES));
        self.writer.write_u32(ours).await.map_err(ClientError::Stream)
    }

    async fn select_allocation(&mut self) -> Result<bool, ClientError> {
        let queries = vec![BASE_ALLOCATION.to_owned()];
        let request = MetaContextRequest { name: self.export.to_owned(), queries };
        let mut selected = false;
        let outcome = self
            .ask(OPT_SET_META_CONTEXT, &request.encode(), |reply, data| {
                let name = data.get(4..).unwrap_or_default();
                selected |= reply == REP_META_CONTEXT && name == BASE_ALLOCATION.as_bytes();
                Ok(())
            })
            .await?;
        Ok(outcome.is_ok() && selected)
    }

    /// Sends an option and hands each reply before the last to `each`; the inner error is the
    /// server's refusal.
    async fn ask(
        &mut self,
        option: u32,
        data: &[u8],
        mut each: impl FnMut(u32, &[u8]) -> Result<(), Violation>,
    ) -> Result<Result<(), Refusal>, ClientError> {
        let mut message = Vec::with_capacity(16 + data.len());
        put_option(&mut message, option, data);
        self.writer.write_all(&message).await.map_err(ClientError::Stream)?;
        self.writer.flush().await.map_err(ClientError::Stream)?;
        loop {
            let mut header = [0; OptionReply::BYTES];
            self.reader.read_exact(&mut header).await.map_err(ClientError::Stream)?;
            let OptionReply { reply, length } =
                OptionReply::decode(&header, option).map_err(ClientError::Protocol)?;
            let mut data = vec![0; length as usize];
            self.reader.read_exact(&mut data).await.map_err(ClientError::Stream)?;
            if reply == REP_ACK {
                return Ok(Ok(()));
            }
            if reply & REP_ERROR_BIT != 0 {
                let message = String::from_utf8_lossy(&data).into_owned();
                return Ok(Err(Refusal { reply, message }));
            }
            each(reply, &data).map_err(ClientError::Protocol)?;
        }
    }

    async fn u64(&mut self) -> Result<u64, ClientError> {
        self.reader.read_u64().await.map_err(ClientError::Stream)
    }
}
