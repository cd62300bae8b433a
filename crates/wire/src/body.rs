//! Which body belongs to which message.

use crate::decoder::Decoder;
use crate::encoder::{EncodeError, Encoder};
use crate::frame::FrameType;
use crate::shape::{
    AckShape, ClockShape, CloseShape, HashReplyShape, HashRequestShape, ImageAckShape, OpenShape,
    WelcomeShape,
};
use crate::{DecodeError, batch, image};
use bytes::Bytes;
use landfall_repl::limits::{HASH_BLOCK_BYTES_MIN, HASHES_MAX};
use landfall_repl::{HashReply, HashRequest, Message, Open, Refusal, RequestId};
use landfall_types::{DiskIndex, Lsn};

pub(crate) fn encode(message: &Message, encoder: &mut Encoder) -> Result<Vec<Bytes>, EncodeError> {
    Ok(match message {
        Message::Batch(batch) => batch::encode(batch, encoder)?,
        Message::ImageData { request, piece } => {
            image::encode(*request, piece, &mut encoder.squeeze)?
        }
        small => vec![encode_small(small)],
    })
}

fn encode_small(message: &Message) -> Bytes {
    match message {
        Message::Batch(_) | Message::ImageData { .. } => unreachable!("binary, see encode"),
        Message::Open(open) => cbor(&OpenShape::new(open)),
        Message::Welcome(welcome) => cbor(&WelcomeShape::new(welcome)),
        Message::Ack(ack) => cbor(&AckShape::from(ack)),
        Message::ImageAck { request, result } => cbor(&ImageAckShape {
            request: request.0,
            refusal: result.as_ref().err().map(Into::into),
        }),
        Message::HashRequest { request, ask } => cbor(&HashRequestShape {
            request: request.0,
            after: ask.after.get(),
            disk: ask.disk.0,
            offset: ask.offset,
            length: ask.length,
            block_bytes: ask.block_bytes,
        }),
        Message::HashReply { request, result } => cbor(&HashReplyShape {
            request: request.0,
            hashes: result.as_ref().ok().map(|reply| reply.hashes.concat()),
            refusal: result.as_ref().err().map(Into::into),
        }),
        Message::Ping(clock) | Message::Pong(clock) => cbor(&ClockShape { clock: *clock }),
        Message::Close(refusal) => cbor(&CloseShape { refusal: refusal.as_ref().map(Into::into) }),
    }
}

pub(crate) fn decode(
    kind: FrameType,
    body: Bytes,
    decoder: &mut Decoder,
) -> Result<Message, DecodeError> {
    let malformed = |what| DecodeError::Malformed { kind: kind.name(), what };
    Ok(match kind {
        FrameType::Batch => Message::Batch(batch::decode(body, &mut decoder.history)?),
        FrameType::ImageData => {
            let (request, piece) = image::decode(body)?;
            Message::ImageData { request, piece }
        }
        FrameType::Open => {
            let shape: OpenShape = uncbor(kind, &body)?;
            let (version_min, version_max) = (shape.version_min, shape.version_max);
            let history_bytes = shape.history_bytes.unwrap_or(0);
            let identity = shape.identity().map_err(malformed)?;
            Message::Open(Open { version_min, version_max, identity, history_bytes })
        }
        FrameType::Welcome => {
            Message::Welcome(uncbor::<WelcomeShape>(kind, &body)?.welcome().map_err(malformed)?)
        }
        FrameType::Ack => Message::Ack(uncbor::<AckShape>(kind, &body)?.into()),
        FrameType::ImageAck => {
            let shape: ImageAckShape = uncbor(kind, &body)?;
            let refusal = typed(shape.refusal).map_err(malformed)?;
            let result = refusal.map_or(Ok(()), Err);
            Message::ImageAck { request: RequestId(shape.request), result }
        }
        FrameType::HashRequest => hash_request(uncbor(kind, &body)?).map_err(malformed)?,
        FrameType::HashReply => hash_reply(uncbor(kind, &body)?).map_err(malformed)?,
        FrameType::Ping => Message::Ping(uncbor::<ClockShape>(kind, &body)?.clock),
        FrameType::Pong => Message::Pong(uncbor::<ClockShape>(kind, &body)?.clock),
        FrameType::Close => {
            let shape: CloseShape = uncbor(kind, &body)?;
            Message::Close(typed(shape.refusal).map_err(malformed)?)
        }
    })
}

fn hash_request(shape: HashRequestShape) -> Result<Message, &'static str> {
    let ask = HashRequest {
        after: Lsn::new(shape.after),
        disk: DiskIndex(shape.disk),
        offset: shape.offset,
        length: shape.length,
        block_bytes: shape.block_bytes,
    };
    if ask.length == 0 || ask.offset.checked_add(ask.length).is_none() {
        return Err("an empty or impossible range");
    }
    if ask.block_bytes < HASH_BLOCK_BYTES_MIN {
        return Err("blocks smaller than a sector");
    }
    if ask.length.div_ceil(ask.block_bytes.into()) > HASHES_MAX as u64 {
        return Err("more blocks than one answer has room for");
    }
    Ok(Message::HashRequest { request: RequestId(shape.request), ask })
}

fn hash_reply(shape: HashReplyShape) -> Result<Message, &'static str> {
    let result = match (shape.hashes, typed(shape.refusal)?) {
        (Some(bytes), None) => {
            let (hashes, rest) = bytes.as_chunks::<16>();
            if !rest.is_empty() || hashes.len() > HASHES_MAX {
                return Err("hashes are 16 bytes each");
            }
            Ok(HashReply { hashes: hashes.to_vec() })
        }
        (None, Some(refusal)) => Err(refusal),
        (Some(_), Some(_)) | (None, None) => return Err("either hashes or a refusal"),
    };
    Ok(Message::HashReply { request: RequestId(shape.request), result })
}

fn typed(shape: Option<crate::refusal::RefusalShape>) -> Result<Option<Refusal>, &'static str> {
    match shape {
        None => Ok(None),
        Some(shape) => match shape.refusal() {
            Some(refusal) => Ok(Some(refusal)),
            None => Err("a refusal without its values"),
        },
    }
}

fn cbor<T: minicbor::Encode<()>>(shape: &T) -> Bytes {
    Bytes::from(minicbor::to_vec(shape).expect("writing into memory can't fail"))
}

fn uncbor<T>(kind: FrameType, body: &[u8]) -> Result<T, DecodeError>
where
    T: for<'b> minicbor::Decode<'b, ()>,
{
    let mut decoder = minicbor::Decoder::new(body);
    let kind = kind.name();
    let value = decoder.decode().map_err(|source| DecodeError::Cbor { kind, source })?;
    if decoder.position() != body.len() {
        return Err(DecodeError::Malformed { kind, what: "bytes after its end" });
    }
    Ok(value)
}
