//! The body of an image piece: fixed fields, then the data.

use crate::DecodeError;
use crate::encoder::EncodeError;
use crate::squeeze::Squeeze;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use landfall_repl::limits::{IMAGE_DATA_BYTES_MAX, IMAGE_ZERO_BYTES_MAX};
use landfall_repl::{ImageData, RequestId};
use landfall_types::{DiskIndex, WindowId};

/// Bytes of the fixed fields.
pub(crate) const PREFIX_BYTES: usize = 40;
const CODEC_NONE: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const CODEC_ZEROES: u8 = 2;
const KIND: &str = "image-data";

pub(crate) fn encode(
    request: RequestId,
    piece: &ImageData,
    squeeze: &mut Squeeze,
) -> Result<Vec<Bytes>, EncodeError> {
    let (codec, data) = match &piece.data {
        None => (CODEC_ZEROES, None),
        Some(data) if data.len() as u64 != piece.length => {
            let (length, data) = (piece.length, data.len() as u64);
            return Err(EncodeError::ImageLength { length, data });
        }
        Some(data) if data.len() > IMAGE_DATA_BYTES_MAX => {
            let (length, max) = (data.len(), IMAGE_DATA_BYTES_MAX);
            return Err(EncodeError::TooLong { kind: KIND, length, max });
        }
        Some(data) => match squeeze.try_squeeze(data.len(), || BytesMut::from(&data[..])) {
            Some(squeezed) => (CODEC_ZSTD, Some(squeezed)),
            None => (CODEC_NONE, Some(data.clone())),
        },
    };
    let mut out = BytesMut::with_capacity(PREFIX_BYTES);
    out.put_u8(codec);
    out.put_u8(0);
    out.put_u16_le(piece.disk.0);
    out.put_u32_le(0);
    out.put_u64_le(request.0);
    out.put_u64_le(piece.window.0);
    out.put_u64_le(piece.offset);
    out.put_u64_le(piece.length);
    debug_assert_eq!(out.len(), PREFIX_BYTES);
    let mut parts = vec![out.freeze()];
    parts.extend(data);
    Ok(parts)
}

pub(crate) fn decode(mut body: Bytes) -> Result<(RequestId, ImageData), DecodeError> {
    if body.len() < PREFIX_BYTES {
        return Err(malformed("shorter than its fixed fields"));
    }
    let codec = body.get_u8();
    let reserved = body.get_u8();
    let disk = DiskIndex(body.get_u16_le());
    if reserved != 0 || body.get_u32_le() != 0 {
        return Err(malformed("reserved bytes"));
    }
    let request = RequestId(body.get_u64_le());
    let window = WindowId(body.get_u64_le());
    let (offset, length) = (body.get_u64_le(), body.get_u64_le());
    if length == 0 || offset.checked_add(length).is_none() {
        return Err(malformed("an empty or impossible range"));
    }
    let data = match codec {
        CODEC_ZEROES if body.is_empty() && length <= IMAGE_ZERO_BYTES_MAX => None,
        CODEC_ZEROES => return Err(malformed("zeroes with data, or too many")),
        _ => {
            let length = usize::try_from(length).ok().filter(|len| *len <= IMAGE_DATA_BYTES_MAX);
            let length = length.ok_or(malformed("more data than a piece may carry"))?;
            Some(crate::batch::expand(KIND, codec, body, length)?)
        }
    };
    Ok((request, ImageData { window, disk, offset, length, data }))
}

const fn malformed(what: &'static str) -> DecodeError {
    DecodeError::Malformed { kind: KIND, what }
}
