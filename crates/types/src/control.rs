//! Control records: what the log says about itself. CBOR with numbered fields, so that later
//! versions can add some.

use crate::{DiskGeometry, DiskId, DiskIndex, UnixNanos};
use bytes::Bytes;
use minicbor::{Decode, Encode};

/// Most bytes of an encoded control record.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a marker's name.
pub const MARKER_NAME_BYTES_MAX: usize = 128;

/// How much a recovery point promises about what the machine's programs see after recovery.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum MarkerKind {
    /// As after a power cut.
    #[n(0)]
    CrashConsistent,
    /// All mounted file systems were frozen.
    #[n(1)]
    FileSystemConsistent,
    /// The applications' hooks had run.
    #[n(2)]
    ApplicationConsistent,
    /// Named by a person.
    #[n(3)]
    User,
}

/// A record that makes a recovery point listable: gives it a time, a kind and perhaps a name.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Marker {
    /// What it promises.
    #[n(0)]
    pub kind: MarkerKind,
    /// The source's wall time, nanoseconds since 1970.
    #[n(1)]
    pub time_unix_ns: u64,
    /// Given by a person.
    #[n(2)]
    pub name: Option<String>,
    /// The group point that it belongs to, 16 bytes of UUID.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub group: Option<[u8; 16]>,
}

impl Marker {
    /// The source's wall time.
    #[must_use]
    pub const fn time(&self) -> UnixNanos {
        UnixNanos(self.time_unix_ns)
    }
}

/// Names a window within a replica's log; counted, because windows can overlap (trap T-4).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Encode,
    Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct WindowId(#[n(0)] pub u64);

/// Why a catch-up is made: shown to operators and counted.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum WindowReason {
    /// The first copy of a machine.
    #[n(0)]
    FirstCopy,
    /// The agent or its capture started anew and can't prove its continuity (trap T-1).
    #[n(1)]
    NewIncarnation,
    /// Capture could not keep up: the ring was full.
    #[n(2)]
    RingOverflow,
    /// Some write may have passed beside the capture, or could not be read.
    #[n(3)]
    CaptureGap,
    /// The self-test of the capture failed: bytes can't be captured on this machine.
    #[n(4)]
    SelfTestFailed,
    /// The receiver's position is none that the sender still has.
    #[n(5)]
    PositionLost,
    /// The way home: disks of unknown content are made equal.
    #[n(6)]
    Reprotect,
    /// A disk was added.
    #[n(7)]
    DiskAdded,
    /// An operator asked for it.
    #[n(8)]
    Requested,
    /// What the receiver kept has rotted: it asked for these ranges (trap T-20).
    #[n(9)]
    Rotten,
}

/// How a catch-up finds what to send.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum WindowMode {
    /// Send all that was asked for.
    #[n(0)]
    Copy,
    /// Send what differs by hash at the receiver.
    #[n(1)]
    Compare,
}

/// Opens a window: no position is a recovery point until every open window is closed (design
/// section 14.4).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct WindowOpen {
    /// Which window.
    #[n(0)]
    pub window: WindowId,
    /// Why.
    #[n(1)]
    pub reason: WindowReason,
    /// How.
    #[n(2)]
    pub mode: WindowMode,
    /// The disks that it covers (raw [`DiskIndex`] values).
    #[n(3)]
    pub disks: Vec<u16>,
    /// The copied blocks go straight into the image (first copy only, design section 14.5).
    #[n(4)]
    pub into_image: bool,
}

/// Closes a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct WindowClose {
    /// Which window.
    #[n(0)]
    pub window: WindowId,
    /// The last pass ran under byte capture, or on a frozen or snapshotted source. Where false the
    /// target holds data without a legal point (trap T-5): the closing is *not* a recovery point.
    #[n(1)]
    pub exact: bool,
}

/// A disk of the machine: size and sector size are part of every point (trap T-9).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Geometry {
    /// Raw [`DiskIndex`].
    #[n(0)]
    pub disk: u16,
    /// 16 bytes of [`DiskId`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub id: [u8; 16],
    /// Size in bytes.
    #[n(2)]
    pub size_bytes: u64,
    /// Logical sector size in bytes.
    #[n(3)]
    pub sector_bytes: u32,
}

impl Geometry {
    /// In the words of the rest of the code.
    #[must_use]
    pub fn parts(&self) -> (DiskIndex, DiskId, DiskGeometry) {
        let geometry =
            DiskGeometry { size_bytes: self.size_bytes, sector_bytes: self.sector_bytes };
        (DiskIndex(self.disk), DiskId::from_bytes(self.id), geometry)
    }
}

/// The payload of a record of kind control.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Control {
    /// A recovery point.
    #[n(0)]
    Marker(#[n(0)] Marker),
    /// A window opens.
    #[n(1)]
    WindowOpen(#[n(0)] WindowOpen),
    /// A window closes.
    #[n(2)]
    WindowClose(#[n(0)] WindowClose),
    /// A disk's size and sectors.
    #[n(3)]
    Geometry(#[n(0)] Geometry),
}

/// Why bytes are not a control record.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Longer than [`CONTROL_BYTES_MAX`].
    #[error("control record of {0} bytes, more than {CONTROL_BYTES_MAX}")]
    TooLong(usize),
    /// Not CBOR of the shape we know.
    #[error("control record can't be decoded")]
    Decode(#[source] minicbor::decode::Error),
    /// Bytes after the end.
    #[error("control record has {0} bytes after its end")]
    Trailing(usize),
}

impl Control {
    /// As CBOR.
    ///
    /// # Panics
    /// Never: writing CBOR into memory has no error.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        Bytes::from(minicbor::to_vec(self).expect("writing into memory can't fail"))
    }

    /// From CBOR; unknown *optional* fields of later versions are skipped.
    ///
    /// # Errors
    /// [`ControlError`]; never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
        if bytes.len() > CONTROL_BYTES_MAX {
            return Err(ControlError::TooLong(bytes.len()));
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let control = decoder.decode().map_err(ControlError::Decode)?;
        match bytes.len() - decoder.position() {
            0 => Ok(control),
            rest => Err(ControlError::Trailing(rest)),
        }
    }
}
