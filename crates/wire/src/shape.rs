//! The CBOR maps and arrays of the small messages, field by field. The types of `landfall-repl` and
//! `landfall-types` stay free of encodings; what stands here is the format
//! (`docs/formats/wire.md`).

use landfall_repl::limits::{DISKS_MAX, OPEN_WINDOWS_MAX, ROTTEN_RANGES_MAX};
use landfall_repl::{Durable, ImageCopyPosition, Open, ReceiverPosition, SourceIdentity};
use landfall_types::{
    ByteRange, Chain, DiskIndex, Epoch, EpochId, Incarnation, InstanceId, Lineage, LineageEntry,
    Lsn, ReplicaId, WindowId,
};
use minicbor::{Decode, Encode};

#[derive(Clone, Copy, Encode, Decode)]
pub(crate) struct EpochShape {
    #[n(0)]
    number: u64,
    #[n(1)]
    id: u64,
    #[n(2)]
    parent: Option<u64>,
}

impl From<Epoch> for EpochShape {
    fn from(epoch: Epoch) -> Self {
        let parent = epoch.parent.map(EpochId::get);
        Self { number: epoch.number, id: epoch.id.get(), parent }
    }
}
impl From<EpochShape> for Epoch {
    fn from(shape: EpochShape) -> Self {
        let parent = shape.parent.map(EpochId::new);
        Self { number: shape.number, id: EpochId::new(shape.id), parent }
    }
}

#[derive(Encode, Decode)]
pub(crate) struct EntryShape {
    #[n(0)]
    epoch: EpochShape,
    #[n(1)]
    fork: u64,
}

fn entries(lineage: &Lineage) -> Vec<EntryShape> {
    let shape =
        |entry: &LineageEntry| EntryShape { epoch: entry.epoch.into(), fork: entry.fork.get() };
    lineage.entries().iter().map(shape).collect()
}

fn lineage(entries: Vec<EntryShape>) -> Result<Lineage, &'static str> {
    let entry =
        |shape: EntryShape| LineageEntry { epoch: shape.epoch.into(), fork: Lsn::new(shape.fork) };
    let entries = entries.into_iter().map(entry).collect();
    Lineage::from_entries(entries).map_err(|_| "the epochs do not form a lineage")
}

#[derive(Encode, Decode)]
pub(crate) struct OpenShape {
    #[n(0)]
    pub(crate) version_min: u16,
    #[n(1)]
    pub(crate) version_max: u16,
    #[cbor(n(2), with = "minicbor::bytes")]
    replica: [u8; 16],
    #[n(3)]
    lineage: Vec<EntryShape>,
    #[n(4)]
    incarnation: u64,
    #[cbor(n(5), with = "minicbor::bytes")]
    instance: [u8; 16],
    #[n(6)]
    pub(crate) history_bytes: Option<u64>,
}

impl OpenShape {
    pub(crate) fn new(open: &Open) -> Self {
        let identity = &open.identity;
        Self {
            version_min: open.version_min,
            version_max: open.version_max,
            history_bytes: (open.history_bytes > 0).then_some(open.history_bytes),
            replica: *identity.replica.as_bytes(),
            lineage: entries(&identity.lineage),
            incarnation: identity.incarnation.get(),
            instance: *identity.instance.as_bytes(),
        }
    }

    pub(crate) fn identity(self) -> Result<SourceIdentity, &'static str> {
        Ok(SourceIdentity {
            replica: ReplicaId::from_bytes(self.replica),
            lineage: lineage(self.lineage)?,
            incarnation: Incarnation::new(self.incarnation),
            instance: InstanceId::from_bytes(self.instance),
        })
    }
}

#[derive(Encode, Decode)]
pub(crate) struct WelcomeShape {
    #[n(0)]
    pub(crate) version: u16,
    #[n(1)]
    pub(crate) credit: u64,
    #[n(2)]
    pub(crate) image_window: u64,
    #[n(3)]
    position: PositionShape,
    #[n(4)]
    history_bytes: Option<u64>,
}

#[derive(Encode, Decode)]
struct PositionShape {
    #[n(0)]
    lineage: Vec<EntryShape>,
    #[n(1)]
    incarnation: u64,
    #[n(2)]
    durable: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    chain: [u8; 16],
    #[n(4)]
    source_position: u64,
    #[n(5)]
    durable_at_target: u64,
    #[n(6)]
    image_copy: Option<ImageCopyShape>,
    #[n(7)]
    open_windows: Vec<u64>,
    #[n(8)]
    rotten: Option<Vec<RangeShape>>,
}

#[derive(Encode, Decode)]
struct RangeShape {
    #[n(0)]
    disk: u16,
    #[n(1)]
    start: u64,
    #[n(2)]
    end: u64,
}

impl From<&(DiskIndex, ByteRange)> for RangeShape {
    fn from((disk, range): &(DiskIndex, ByteRange)) -> Self {
        Self { disk: disk.0, start: range.start, end: range.end }
    }
}

/// In order, none empty, none over another.
fn ranges(shapes: Vec<RangeShape>) -> Result<Vec<(DiskIndex, ByteRange)>, &'static str> {
    if shapes.len() > ROTTEN_RANGES_MAX {
        return Err("too many rotten ranges");
    }
    let mut ranges: Vec<(DiskIndex, ByteRange)> = Vec::with_capacity(shapes.len());
    for RangeShape { disk, start, end } in shapes {
        let follows = ranges
            .last()
            .is_none_or(|(last, range)| last.0 < disk || last.0 == disk && range.end <= start);
        if start >= end || !follows {
            return Err("rotten ranges out of order");
        }
        ranges.push((DiskIndex(disk), ByteRange { start, end }));
    }
    Ok(ranges)
}

#[derive(Encode, Decode)]
struct ImageCopyShape {
    #[n(0)]
    window: u64,
    #[n(1)]
    durable_bytes: Vec<DiskBytesShape>,
}

#[derive(Encode, Decode)]
struct DiskBytesShape {
    #[n(0)]
    disk: u16,
    #[n(1)]
    bytes: u64,
}

impl WelcomeShape {
    pub(crate) fn new(welcome: &landfall_repl::Welcome) -> Self {
        let position = &welcome.position;
        let image_copy = position.image_copy.as_ref().map(|copy| ImageCopyShape {
            window: copy.window.0,
            durable_bytes: copy
                .durable_bytes
                .iter()
                .map(|(disk, bytes)| DiskBytesShape { disk: disk.0, bytes: *bytes })
                .collect(),
        });
        Self {
            version: welcome.version,
            credit: welcome.credit,
            image_window: welcome.image_window,
            history_bytes: (welcome.history_bytes > 0).then_some(welcome.history_bytes),
            position: PositionShape {
                lineage: entries(&position.lineage),
                incarnation: position.incarnation.get(),
                durable: position.durable.get(),
                chain: *position.chain.as_bytes(),
                source_position: position.source_position,
                durable_at_target: position.durable_at_target.get(),
                image_copy,
                open_windows: position.open_windows.iter().map(|window| window.0).collect(),
                rotten: (!position.rotten.is_empty())
                    .then(|| position.rotten.iter().map(RangeShape::from).collect()),
            },
        }
    }

    pub(crate) fn welcome(self) -> Result<landfall_repl::Welcome, &'static str> {
        let position = self.position;
        if position.open_windows.len() > OPEN_WINDOWS_MAX {
            return Err("too many open windows");
        }
        let image_copy = match position.image_copy {
            Some(copy) if copy.durable_bytes.len() > DISKS_MAX => return Err("too many disks"),
            Some(copy) => Some(ImageCopyPosition {
                window: WindowId(copy.window),
                durable_bytes: copy
                    .durable_bytes
                    .iter()
                    .map(|shape| (DiskIndex(shape.disk), shape.bytes))
                    .collect(),
            }),
            None => None,
        };
        Ok(landfall_repl::Welcome {
            version: self.version,
            credit: self.credit,
            image_window: self.image_window,
            history_bytes: self.history_bytes.unwrap_or(0),
            position: ReceiverPosition {
                lineage: lineage(position.lineage)?,
                incarnation: Incarnation::new(position.incarnation),
                durable: Lsn::new(position.durable),
                chain: Chain::from_bytes(position.chain),
                source_position: position.source_position,
                durable_at_target: Lsn::new(position.durable_at_target),
                image_copy,
                open_windows: position.open_windows.into_iter().map(WindowId).collect(),
                rotten: ranges(position.rotten.unwrap_or_default())?,
            },
        })
    }
}

#[derive(Encode, Decode)]
pub(crate) struct AckShape {
    #[n(0)]
    received: u64,
    #[n(1)]
    durable_here: u64,
    #[n(2)]
    durable_at_target: u64,
    #[n(3)]
    credit: u64,
}

impl From<&landfall_repl::Ack> for AckShape {
    fn from(ack: &landfall_repl::Ack) -> Self {
        Self {
            received: ack.received.get(),
            durable_here: ack.durable.here.get(),
            durable_at_target: ack.durable.at_target.get(),
            credit: ack.credit,
        }
    }
}
impl From<AckShape> for landfall_repl::Ack {
    fn from(shape: AckShape) -> Self {
        let (here, at_target) = (Lsn::new(shape.durable_here), Lsn::new(shape.durable_at_target));
        Self {
            received: Lsn::new(shape.received),
            durable: Durable { here, at_target },
            credit: shape.credit,
        }
    }
}

#[derive(Encode, Decode)]
pub(crate) struct HashRequestShape {
    #[n(0)]
    pub(crate) request: u64,
    #[n(1)]
    pub(crate) after: u64,
    #[n(2)]
    pub(crate) disk: u16,
    #[n(3)]
    pub(crate) offset: u64,
    #[n(4)]
    pub(crate) length: u64,
    #[n(5)]
    pub(crate) block_bytes: u32,
}

#[derive(Encode, Decode)]
pub(crate) struct ImageAckShape {
    #[n(0)]
    pub(crate) request: u64,
    #[n(1)]
    pub(crate) refusal: Option<crate::refusal::RefusalShape>,
}

/// Exactly one of `hashes` and `refusal`.
#[derive(Encode, Decode)]
pub(crate) struct HashReplyShape {
    #[n(0)]
    pub(crate) request: u64,
    /// 16 bytes each.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) hashes: Option<Vec<u8>>,
    #[n(2)]
    pub(crate) refusal: Option<crate::refusal::RefusalShape>,
}

#[derive(Encode, Decode)]
pub(crate) struct ClockShape {
    #[n(0)]
    pub(crate) clock: u64,
}

#[derive(Encode, Decode)]
pub(crate) struct CloseShape {
    #[n(0)]
    pub(crate) refusal: Option<crate::refusal::RefusalShape>,
}
