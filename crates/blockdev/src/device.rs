use crate::DeviceError;
use std::fmt;

/// A disk: a fixed number of bytes, read and written at any offset.
///
/// Offsets and lengths need no alignment; implementations bounce where the medium wants one. A
/// range that ends beyond [`BlockDevice::size`] is [`DeviceError::OutOfRange`] and changes nothing.
pub trait BlockDevice: Send + Sync + fmt::Debug {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Logical sector size in bytes, 512 or 4096: what a guest is told, and the unit that a power
    /// cut tears.
    fn sector_bytes(&self) -> u32;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`DeviceError`]; the buffer's content is then undefined.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError>;
    /// Writes all of `data` at `offset`; durable only after [`BlockDevice::flush`].
    ///
    /// # Errors
    /// [`DeviceError`]; any part of the range may then hold old or new bytes.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError>;
    /// Makes the range read as zeroes; durable only after [`BlockDevice::flush`].
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    fn zero(&self, offset: u64, length: u64) -> Result<(), DeviceError>;
    /// Gives the range's space back where the medium can; what it reads as afterwards is undefined
    /// (trap T-23).
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`]. A medium that knows no discard is no error.
    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError>;
    /// Makes durable what was written by calls that had returned when this one began.
    ///
    /// # Errors
    /// [`DeviceError`]; the handle is poisoned from then on.
    fn flush(&self) -> Result<(), DeviceError>;
}
