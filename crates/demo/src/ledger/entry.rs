use anyhow::{Result, bail, ensure};

/// BLAKE3 over the sum before, number, time and body.
pub(crate) type Sum = [u8; 32];

/// The sum before entry 1.
pub(crate) const ROOT: Sum = [0; 32];

/// One entry as it stands on disk 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// 1, 2, 3 …
    pub(crate) number: u64,
    /// Wall time of its making, nanoseconds since 1970.
    pub(crate) time_ns: u64,
    /// Any bytes.
    pub(crate) body: Vec<u8>,
    /// Of this entry, over the one before.
    pub(crate) sum: Sum,
}

impl Entry {
    /// The entry after the one with sum `before`.
    pub(crate) fn new(before: &Sum, number: u64, time_ns: u64, body: Vec<u8>) -> Self {
        let sum = sum(before, number, time_ns, &body);
        Self { number, time_ns, body, sum }
    }

    /// True when it is whole and follows the entry with sum `before`.
    pub(crate) fn follows(&self, before: &Sum) -> bool {
        self.sum == sum(before, self.number, self.time_ns, &self.body)
    }
}

fn sum(before: &Sum, number: u64, time_ns: u64, body: &[u8]) -> Sum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(&number.to_le_bytes()).update(&time_ns.to_le_bytes());
    *hasher.update(body).finalize().as_bytes()
}

/// The entry's line on disk 2: number, time, sum, and a check of these; never longer or shorter.
pub(crate) const LINE_BYTES: usize = 64;

/// What disk 2 says of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    /// The entry's number.
    pub(crate) number: u64,
    /// The entry's time.
    pub(crate) time_ns: u64,
    /// The entry's sum.
    pub(crate) sum: Sum,
}

impl Line {
    /// The line of an entry.
    pub(crate) const fn of(entry: &Entry) -> Self {
        Self { number: entry.number, time_ns: entry.time_ns, sum: entry.sum }
    }

    /// As it stands in the file: number, time, sum, 16 bytes of BLAKE3 over these 48;
    /// little-endian.
    pub(crate) fn encode(&self) -> [u8; LINE_BYTES] {
        let mut bytes = [0; LINE_BYTES];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.time_ns.to_le_bytes());
        bytes[16..48].copy_from_slice(&self.sum);
        let check = blake3::hash(&bytes[..48]);
        bytes[48..].copy_from_slice(&check.as_bytes()[..16]);
        bytes
    }

    /// Reads a line back.
    ///
    /// # Errors
    /// When it is not one that was written.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() == LINE_BYTES, "a line of {} bytes", bytes.len());
        if blake3::hash(&bytes[..48]).as_bytes()[..16] != bytes[48..] {
            bail!("a line that was never written");
        }
        let number = |at: usize| -> u64 {
            let eight = bytes[at..at + 8].try_into().expect("a slice of eight bytes");
            u64::from_le_bytes(eight)
        };
        let sum = bytes[16..48].try_into().expect("a slice of 32 bytes");
        Ok(Self { number: number(0), time_ns: number(8), sum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_follows_only_the_one_it_was_made_after() {
        let first = Entry::new(&ROOT, 1, 10, b"one".to_vec());
        let second = Entry::new(&first.sum, 2, 20, b"two".to_vec());
        assert!(first.follows(&ROOT) && second.follows(&first.sum));
        let other = Entry::new(&ROOT, 1, 11, b"one".to_vec());
        assert!(!second.follows(&other.sum));
        assert!(!Entry { body: b"twO".to_vec(), ..second.clone() }.follows(&first.sum));
        assert!(!Entry { number: 3, ..second }.follows(&first.sum));
    }

    #[test]
    fn a_line_comes_back_and_any_changed_bit_is_seen() {
        let line = Line::of(&Entry::new(&ROOT, 7, 99, b"body".to_vec()));
        let bytes = line.encode();
        assert_eq!(Line::decode(&bytes).unwrap(), line);
        for bit in 0..LINE_BYTES * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Line::decode(&changed).is_err(), "bit {bit}");
        }
        assert!(Line::decode(&bytes[..63]).is_err());
    }
}
