use super::{Answer, carry_out, merge};
use crate::proto::{Errno, Operation};
use crate::testing::MemoryExport;
use crate::{Access, Export, ExportError, Extent};
use async_trait::async_trait;
use bytes::Bytes;

/// A store with a defect: it answers with a byte too few, and with extents that end early.
struct Short(MemoryExport);

#[async_trait]
impl Export for Short {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn block_bytes(&self) -> u32 {
        self.0.block_bytes()
    }
    fn access(&self) -> Access {
        self.0.access()
    }
    fn revoked(&self) -> bool {
        false
    }
    async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ExportError> {
        self.0.read(offset, length - 1).await
    }
    async fn write(&self, offset: u64, data: Bytes) -> Result<(), ExportError> {
        self.0.write(offset, data).await
    }
    async fn zero(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        self.0.zero(offset, length).await
    }
    async fn trim(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        self.0.trim(offset, length).await
    }
    async fn flush(&self) -> Result<(), ExportError> {
        self.0.flush().await
    }
    async fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        self.0.extents(offset, length - 512).await
    }
}

/// P5: what the store answers wrong becomes an error, never data in the wrong place.
#[tokio::test]
async fn an_answer_of_the_wrong_size_is_an_error() {
    let export = Short(MemoryExport::new(8192, 512));
    for operation in [
        Operation::Read { offset: 0, length: 1024 },
        Operation::Status { offset: 0, length: 1024, extents_max: 9 },
    ] {
        let finished = carry_out(&export, 1, operation, Bytes::new()).await;
        let error = finished.outcome.expect_err("the store is wrong");
        assert_eq!(finished.effect.errno(&error), Errno::Io);
    }
}

#[tokio::test]
async fn failures_of_the_store_have_the_numbers_that_the_document_names() {
    let outside = || ExportError::OutOfRange { offset: 0, length: 1, size: 0 };
    let export = MemoryExport::new(8192, 512);
    let write = Operation::Write { offset: 0, length: 512 };
    let stores = carry_out(&export, 1, write, Bytes::from(vec![0; 512])).await.effect;
    let looks = carry_out(&export, 1, Operation::Flush, Bytes::new()).await.effect;
    assert_eq!(stores.errno(&outside()), Errno::NoSpace);
    assert_eq!(looks.errno(&outside()), Errno::Invalid);
    assert_eq!(stores.errno(&ExportError::NoSpace), Errno::NoSpace);
    assert_eq!(stores.errno(&ExportError::Revoked), Errno::Shutdown);
    assert_eq!(stores.errno(&ExportError::ReadOnly), Errno::NotPermitted);
}

#[tokio::test]
async fn a_read_is_answered_with_its_place() {
    let export = MemoryExport::new(8192, 512);
    export.store(512, &[7; 512]);
    let read = Operation::Read { offset: 512, length: 512 };
    match carry_out(&export, 1, read, Bytes::new()).await.outcome {
        Ok(Answer::Data { offset: 512, length: 512, data }) => assert_eq!(&data[..], &[7; 512]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn neighbors_of_one_state_become_one_extent() {
    let hole = |length| Extent { length, hole: true };
    let data = |length| Extent { length, hole: false };
    let extents = [hole(512), hole(512), hole(0), data(512), data(1024), hole(512)];
    assert_eq!(merge(&extents, 9), [hole(1024), data(1536), hole(512)]);
    assert_eq!(merge(&extents, 2), [hole(1024), data(1536)]);
    assert_eq!(merge(&extents, 1), [hole(1024)]);
}
