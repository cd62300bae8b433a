//! Home's promotion: the image is folded to the end of the log with undo kept, and the disks are
//! given to the machine.

use super::{Replica, open_devices};
use crate::body::{Body, Role, UndoPhase};
use crate::error::{FoldError, RoleError, StorageError};
use crate::sums::{BLOCK_BYTES, Sum};
use crate::sync::lock;
use landfall_types::{Chain, Epoch, Lineage, Lsn};

/// What was handed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Released {
    /// Paths of the disks, now the machine's own.
    pub disks: Vec<String>,
    /// Bytes that were written into them.
    pub folded_bytes: u64,
}

impl Replica {
    /// Folds to `lsn`, which must be the end of the log and of the same history (`chain`, trap
    /// T-17), with undo kept, closes the disks and gives them to the machine in `epoch`. Done
    /// already: says so again. Cut off: goes on.
    ///
    /// # Errors
    /// [`RoleError::WrongRole`], [`RoleError::OtherPosition`], [`RoleError::EpochNotHigher`], and
    /// [`crate::FoldError::DivergenceKept`] within [`RoleError::Fold`] (trap T-15); storage errors.
    pub fn release(&self, lsn: Lsn, chain: Chain, epoch: Epoch) -> Result<Released, RoleError> {
        let body = self.body()?;
        let disks: Vec<String> = body.disks.iter().map(|disk| disk.image.clone()).collect();
        let folded_before = body.undo.as_ref().map_or(0, |undo| undo.folded_bytes);
        if body.role == Role::Released && body.lineage.epoch().is(&epoch) {
            return Ok(Released { disks, folded_bytes: folded_before });
        }
        if body.role != Role::Frozen {
            return Err(RoleError::WrongRole { role: body.role, wanted: "a release" });
        }
        if let Some(disk) = self.sealed_disk(&body) {
            return Err(RoleError::Encrypted(disk));
        }
        let line = self.line();
        let end = line.log.durable();
        // Records behind `lsn` would be lost; another chain is another history under the same
        // position.
        if line.log.tail().lsn != lsn || end.lsn != lsn || end.chain != chain {
            return Err(RoleError::OtherPosition { expected: lsn, found: end.lsn });
        }
        if epoch.number <= body.epoch_highest {
            return Err(RoleError::EpochNotHigher { offered: epoch, highest: body.epoch_highest });
        }
        let parent = Epoch { parent: Some(body.lineage.epoch().id), ..epoch };
        let lineage = body.lineage.extend(parent, lsn).map_err(RoleError::Lineage)?;
        let folded_bytes = self.fold_with_undo(lsn)?;
        {
            let mut core = lock(&self.core);
            let body = core.store.body()?.clone();
            // Given up while the image was being folded: a replica that takes frames must not be
            // handed over.
            if body.role != Role::Frozen {
                return Err(RoleError::WrongRole { role: body.role, wanted: "a release" });
            }
            let body = Body { role: Role::Released, lineage, epoch_highest: epoch.number, ..body };
            core.store.write(body)?;
        }
        // Dropped last: until the role is durable a restart would have opened them again.
        self.medium.set_devices(None);
        Ok(Released { disks, folded_bytes })
    }

    /// Takes the disks back, before the machine has started: undoes the fold; the replica is frozen
    /// again. Frozen without undo already: no error.
    ///
    /// # Errors
    /// [`RoleError::WrongRole`]; [`crate::FoldError::ForeignWrite`] within [`RoleError::Fold`] when
    /// the machine has written (trap T-13); storage errors.
    pub fn unrelease(&self) -> Result<(), RoleError> {
        let body = self.body()?;
        match body.role {
            Role::Released | Role::Frozen => {}
            role => return Err(RoleError::WrongRole { role, wanted: "taking disks back" }),
        }
        if body.undo.is_none() && body.role == Role::Frozen {
            return Ok(());
        }
        if self.medium.devices().is_err() {
            let opened = open_devices(&*self.dir, &*self.images, &body.disks)?;
            self.set_opened(opened);
        }
        // The disks were in other hands, as far as anyone here knows. What was compared before
        // counts only if all of both disks can be shown to be as they were released (trap T-15).
        let doubt = self.doubt(&body);
        // One version of the superblock ends both: a cut between them would leave a release without
        // a way back.
        let undone = doubt.and_then(|doubt| Ok(self.undo_and(|body| end_release(body, doubt))?));
        if let Err(error) = undone {
            // Refused before anything was changed: the disks stay the machine's.
            let undoing = self.body()?.undo.is_some_and(|undo| undo.phase == UndoPhase::Undoing);
            if body.role == Role::Released && !undoing {
                self.medium.set_devices(None);
            }
            return Err(error);
        }
        Ok(())
    }

    /// Up to where comparisons count for nothing once the disks are taken back: nowhere if they
    /// were not handed over, or if every block of every disk has a checksum and fits it.
    fn doubt(&self, body: &Body) -> Result<Option<Lsn>, RoleError> {
        if body.role != Role::Released {
            return Ok(None);
        }
        let undoing = body.undo.as_ref().is_some_and(|undo| undo.phase == UndoPhase::Undoing);
        let known = !undoing && self.shown_untouched(body)?;
        Ok((!known).then(|| self.line().log.tail().lsn))
    }

    /// False when nothing speaks against it but not all is known.
    fn shown_untouched(&self, body: &Body) -> Result<bool, RoleError> {
        let (devices, all) = (self.medium.devices()?, self.medium.sums());
        let mut known = true;
        for (disk, device) in devices.iter() {
            let Some(sums) = all.get(disk) else { return Ok(false) };
            let size = body.disk(*disk).map_or(0, |disk| disk.geometry.size_bytes);
            for start in
                (0..size.min(device.size())).step_by(usize::try_from(READ_BYTES).expect("1 MiB"))
            {
                let length = READ_BYTES.min(size.min(device.size()) - start);
                let mut content = vec![0; usize::try_from(length).expect("at most 1 MiB")];
                device.read_at(start, &mut content).map_err(StorageError::device("read image"))?;
                let first = start / BLOCK_BYTES;
                if let Some(block) = sums.check(first, &content)? {
                    let offset = block * BLOCK_BYTES;
                    return Err(FoldError::ForeignWrite { disk: *disk, offset }.into());
                }
                for block in first..(start + length).div_ceil(BLOCK_BYTES) {
                    known &= sums.get(block)? != Sum::UNKNOWN;
                }
            }
        }
        Ok(known)
    }
}

/// Bytes read at once while the disks are compared with their checksums.
const READ_BYTES: u64 = 1 << 20;

/// The replica is frozen again, in the history that it had before.
fn end_release(body: &mut Body, doubt: Option<Lsn>) {
    if body.role == Role::Released {
        body.doubt = body.doubt.max(doubt);
        let mut entries = body.lineage.entries().to_vec();
        entries.pop();
        // The epoch's number stays used: another order must bring a higher one.
        if let Ok(lineage) = Lineage::from_entries(entries) {
            body.lineage = lineage;
        }
        body.role = Role::Frozen;
    }
}
