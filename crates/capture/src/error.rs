use landfall_types::{Class, DiskIndex};
use std::path::PathBuf;

/// Why data mode ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LostReason {
    /// The ring was full: the records were not read and released fast enough.
    Overflow,
    /// A page of a write could not be read.
    Unreadable,
    /// The kernel skipped the program for at least one write.
    Missed,
    /// A write ended that the hook has not seen: begun before the capture, or passed beside it
    /// (trap T-7).
    Beside,
    /// An operation that writes, and that this version does not know.
    UnknownOperation,
    /// More writes in flight than can be tracked.
    TooManyInFlight,
    /// No place in the ring after many tries.
    Contended,
    /// A reserved record was never completed.
    Stuck,
    /// The ring's content is not what the program writes.
    Malformed,
    /// The kernel offers no capture of bytes, or bytes can't be trusted: the self-test failed.
    NoData,
    /// Asked for: a limit of the administrator's, or an order.
    Asked,
    /// More bytes were captured than the administrator allows.
    RateLimit,
    /// The agent took more of the processors than the administrator allows.
    CpuLimit,
    /// A command was sent past the block layer (`SG_IO`, NVMe pass-through).
    PassThrough,
    /// A write lies beyond the bitmap: the disk has grown (trap T-9).
    Grown,
    /// The ranges are not known.
    Unmarked,
    /// The disk encrypts while it writes: the bytes captured are not those that it holds.
    InlineEncryption,
    /// Writes did not end, or their end was not seen.
    LostCompletion,
}

impl LostReason {
    /// Stable code, kebab-case.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Overflow => "ring-overflow",
            Self::Unreadable => "page-unreadable",
            Self::Missed => "hook-missed",
            Self::Beside => "write-beside-hook",
            Self::UnknownOperation => "unknown-operation",
            Self::TooManyInFlight => "too-many-in-flight",
            Self::Contended => "ring-contended",
            Self::Stuck => "record-stuck",
            Self::Malformed => "ring-malformed",
            Self::NoData => "no-data-mode",
            Self::Asked => "asked",
            Self::RateLimit => "rate-limit",
            Self::CpuLimit => "cpu-limit",
            Self::PassThrough => "pass-through",
            Self::Grown => "disk-grown",
            Self::Unmarked => "ranges-unknown",
            Self::InlineEncryption => "inline-encryption",
            Self::LostCompletion => "completion-lost",
        }
    }
}

/// Why a disk can't be captured. Decided when it is to be protected, never later.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// Nothing there.
    #[error("there is no such device")]
    Missing,
    /// A file, for instance.
    #[error("it is not a block device")]
    NotBlockDevice,
    /// Part of a disk.
    #[error("it is a partition: protect the whole disk")]
    Partition,
    /// A drive without a medium, for instance.
    #[error("its size is 0")]
    Empty,
    /// Nothing can change there.
    #[error("it is read-only")]
    ReadOnly,
    /// Zoned storage.
    #[error("it is zoned: its writes choose their own place")]
    Zoned,
    /// Written past the block layer.
    #[error("it is written by direct access (DAX), past the block layer")]
    Dax,
    /// Other machines write to it too.
    #[error("it holds a cluster file system: other machines write to it, unseen from here")]
    Shared,
    /// Part of an array (trap T-7).
    #[error("it is a member of the array {on_top} ({level}): protect /dev/{on_top}")]
    ArrayMember {
        /// The array.
        on_top: String,
        /// Its kind.
        level: String,
    },
    /// One of several ways to a disk.
    #[error("it is one path to the multipath device {on_top}: protect /dev/{on_top}")]
    Path {
        /// The device with all paths.
        on_top: String,
    },
}

impl Unfit {
    /// Stable code, kebab-case.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "no-such-device",
            Self::NotBlockDevice => "not-a-block-device",
            Self::Partition => "partition",
            Self::Empty => "empty",
            Self::ReadOnly => "read-only",
            Self::Zoned => "zoned",
            Self::Dax => "direct-access",
            Self::Shared => "shared-disk",
            Self::ArrayMember { .. } => "array-member",
            Self::Path { .. } => "multipath-path",
        }
    }
}

/// What the self-test found.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestFailure {
    /// The captured bytes are not those that were written.
    #[error(
        "byte {offset} of the scratch disk was captured as {found:#04x}, written was {written:#04x}"
    )]
    Differs {
        /// Where.
        offset: u64,
        /// What had been written.
        written: u8,
        /// What was captured.
        found: u8,
    },
    /// Writes are missing.
    #[error("the scratch disk took {written} bytes of writes, {captured} were captured")]
    Incomplete {
        /// Bytes written.
        written: u64,
        /// Bytes captured.
        captured: u64,
    },
    /// Capture ended while the test ran.
    #[error("capture ended during the test: {}", .0.code())]
    Lost(LostReason),
}

/// Why capture can't be started, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The kernel lacks what capture needs.
    #[error("writes can't be captured on this kernel ({release}): {missing}")]
    Kernel {
        /// `uname -r`.
        release: String,
        /// What is missing, and how to get it.
        missing: String,
    },
    /// The disk can't be captured.
    #[error("{} can't be captured: {reason}", path.display())]
    Disk {
        /// As it was given.
        path: PathBuf,
        /// Why, and what to do.
        reason: Unfit,
    },
    /// Reading what the system says about a disk.
    #[error("read {}", path.display())]
    Inspect {
        /// The file read.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// More disks than one load can watch, or the same one twice.
    #[error("targets are not usable: {0}")]
    Targets(String),
    /// Loading or attaching the program.
    #[error("{step} of the capture program")]
    Program {
        /// Which step.
        step: &'static str,
        /// libbpf's answer.
        #[source]
        source: libbpf_rs::Error,
    },
    /// A pin, or the directory for it.
    #[error("pin the capture at {}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Another process uses these pins.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The ring or the bitmaps are larger than the kernel's maps can be.
    #[error("the ring or the bitmaps are too large")]
    TooLarge,
    /// The memory shared with the program.
    #[error("map the capture program's memory: {0}")]
    Map(#[source] std::io::Error),
    /// A scratch disk for the self-test.
    #[error("{step} for the self-test of the capture")]
    Scratch {
        /// Which step.
        step: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Bytes can't be captured on this machine.
    #[error("the self-test of the capture failed")]
    SelfTest(#[source] SelfTestFailure),
    /// Random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// Writes that were in flight did not end in time.
    #[error("{in_flight} writes that were in flight have not ended within {waited_ms} ms")]
    Barrier {
        /// How many.
        in_flight: usize,
        /// How long we waited, milliseconds.
        waited_ms: u64,
    },
    /// Data mode has ended.
    #[error("capture has ended: {}", .0.code())]
    Lost(LostReason),
    /// A position that the ring does not hold.
    #[error("the ring holds positions {tail} to {head}, not {position}")]
    Position {
        /// The one asked for.
        position: u64,
        /// Its first.
        tail: u64,
        /// Its end.
        head: u64,
    },
    /// The disk vanished or was replaced (trap T-8).
    #[error("disk {0} is not the one that capture began with")]
    DiskReplaced(DiskIndex),
}

impl CaptureError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Kernel { .. }
            | Self::Disk { .. }
            | Self::Targets(_)
            | Self::SelfTest(_)
            | Self::Position { .. }
            | Self::TooLarge
            | Self::DiskReplaced(_) => Class::Permanent,
            Self::Inspect { .. }
            | Self::Program { .. }
            | Self::Map(_)
            | Self::Pin { .. }
            | Self::InUse(_)
            | Self::Scratch { .. }
            | Self::Random(_)
            | Self::Barrier { .. }
            | Self::Lost(_) => Class::Transient,
        }
    }
}
