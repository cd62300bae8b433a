use landfall_types::{Chain, Epoch, EpochId, Incarnation, Lsn};

/// Bytes of an encoded epoch.
pub(crate) const EPOCH_BYTES: usize = 32;

/// Appends fields to a fixed block.
pub(crate) struct Writer<'a> {
    block: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(block: &'a mut [u8]) -> Self {
        Self { block, at: 0 }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.block[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
    pub(crate) fn lsn(&mut self, value: Lsn) -> &mut Self {
        self.u64(value.get())
    }
    pub(crate) fn chain(&mut self, value: &Chain) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// Number, ID, parent, and whether there is one.
    pub(crate) fn epoch(&mut self, epoch: &Epoch) -> &mut Self {
        self.u64(epoch.number)
            .u64(epoch.id.get())
            .u64(epoch.parent.map_or(0, EpochId::get))
            .u64(u64::from(epoch.parent.is_some()))
    }

    /// Where the next field goes.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }
}

/// Takes fields from a block whose length the caller has checked.
pub(crate) struct Reader<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(block: &'a [u8]) -> Self {
        Self { block, at: 0 }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.block[self.at..self.at + N]);
        self.at += N;
        out
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }
    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }
    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
    pub(crate) fn lsn(&mut self) -> Lsn {
        Lsn::new(self.u64())
    }
    pub(crate) fn chain(&mut self) -> Chain {
        Chain::from_bytes(self.array())
    }
    pub(crate) fn incarnation(&mut self) -> Incarnation {
        Incarnation::new(self.u64())
    }

    pub(crate) fn epoch(&mut self) -> Epoch {
        let (number, id, parent, has_parent) = (self.u64(), self.u64(), self.u64(), self.u64());
        Epoch {
            number,
            id: EpochId::new(id),
            parent: (has_parent != 0).then_some(EpochId::new(parent)),
        }
    }
}

/// True when all bytes are zero.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
