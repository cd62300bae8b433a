use crate::bugs::{Bugs, SeededBug};
use crate::cover::Cover;
use crate::format::segment::SegmentHeader;
use crate::format::superblock::Superblock;
use crate::log::Log;
use crate::log::roll::new_salt;
use crate::log::segment::{Segment, SegmentState, slot_name, slot_number, write_header};
use crate::log::state::State;
use crate::recovery::{Recovered, recover};
use crate::superblock_file::SuperblockFile;
use crate::table::Table;
use crate::{JournalError, LogConfig, Position, RecoveryReport, TailVerdict, limits};
use landfall_blockdev::{Claim, DeviceError, Dir};
use landfall_types::Incarnation;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

/// Sequence number of a log's first segment.
const FIRST_SEGMENT: u64 = 1;

/// The first segment, then the superblock: as long as that is not there, there is no log.
pub(super) fn create(
    dir: Arc<dyn Dir>,
    config: &LogConfig,
    bugs: Bugs,
) -> Result<Log, JournalError> {
    const DOING: &str = "create a log";
    let claim = claim(&*dir)?;
    let sector_bytes = dir.sector_bytes();
    let cover = Cover::of(&*dir);
    limits::segment_bytes(config.segment_bytes, sector_bytes)?;
    match recover(&*dir) {
        Err(JournalError::NotALog) => {}
        Ok(found) => return Err(JournalError::Exists(found.superblock.current().log)),
        Err(error) => return Err(error),
    }
    // Leftovers of a creation that was cut off; they hold nothing.
    let names = dir.list().map_err(JournalError::device(DOING))?;
    for name in names.iter().filter(|name| slot_number(name).is_some()) {
        dir.remove(name).map_err(JournalError::device(DOING))?;
    }
    let base = Position {
        lsn: config.base,
        chain: config.base_chain,
        epoch: config.epoch,
        incarnation: Incarnation::NONE,
        source_position: 0,
    };
    let header = SegmentHeader {
        sector_bytes,
        log: config.log,
        sequence: FIRST_SEGMENT,
        salt: new_salt()?,
        base,
    };
    let name = slot_name(0);
    let file = dir.create(&name).map_err(JournalError::device(DOING))?;
    file.allocate(0, config.segment_bytes).map_err(JournalError::device(DOING))?;
    write_header(&*file, &header)?;
    dir.sync().map_err(JournalError::device(DOING))?;
    let superblock = Superblock {
        sequence: 1,
        sector_bytes,
        log: config.log,
        replica: config.replica,
        segment_bytes: config.segment_bytes,
        epoch: config.epoch,
        first_segment: FIRST_SEGMENT,
        base: config.base,
        base_chain: config.base_chain,
        floor: config.base,
        key_check: cover.check(config.log),
    };
    let superblock = SuperblockFile::create(&*dir, superblock)?;
    let segment = Segment::new(
        header,
        name,
        file,
        Table::new(base),
        u64::from(sector_bytes),
        SegmentState::Open,
    );
    let state = State::new(VecDeque::new(), segment, Vec::new(), 1, (cover, bugs));
    Ok(assemble(dir, claim, superblock, state, bugs))
}

/// Two writers would take each other's records for a torn tail, and cut them off.
fn claim(dir: &dyn Dir) -> Result<Claim, JournalError> {
    dir.claim().map_err(|error| match error {
        DeviceError::Busy { target } => JournalError::InUse { target },
        other => JournalError::device("claim the log's directory")(other),
    })
}

pub(super) fn open(dir: Arc<dyn Dir>, bugs: Bugs) -> Result<(Log, RecoveryReport), JournalError> {
    let claim = claim(&*dir)?;
    let Recovered { superblock, sealed, mut last, mut spares, next_slot, report } = recover(&*dir)?;
    if let TailVerdict::Torn { at } = report.tail {
        tracing::warn!(
            log = %superblock.current().log, tail = %report.position.lsn, at,
            "the log had a torn tail, which was never acknowledged: it is cut off"
        );
        if bugs.has(SeededBug::StaleTail) {
            last.state = SegmentState::Open;
        }
    }
    // More spares than are kept can be there after a crash in the middle of a trim.
    for name in spares.drain(spares.len().min(limits::SPARE_FILES_MAX)..) {
        match dir.remove(&name) {
            Ok(()) | Err(DeviceError::NotFound { .. }) => {}
            Err(error) => return Err(JournalError::device("remove an unused segment")(error)),
        }
    }
    let state = State::new(sealed, last, spares, next_slot, (Cover::of(&*dir), bugs));
    Ok((assemble(dir, claim, superblock, state, bugs), report))
}

fn assemble(
    dir: Arc<dyn Dir>,
    claim: Claim,
    superblock: SuperblockFile,
    state: State,
    bugs: Bugs,
) -> Log {
    let Superblock { log, replica, sector_bytes, segment_bytes, .. } = *superblock.current();
    Log {
        cover: Cover::of(&*dir),
        dir,
        id: log,
        replica,
        sector_bytes,
        segment_bytes,
        bugs,
        appending: Mutex::new(()),
        superblock: Mutex::new(superblock),
        state: Mutex::new(state),
        flushed: Condvar::new(),
        listeners: Mutex::new(Vec::new()),
        backlog: Arc::default(),
        ahead: Arc::default(),
        _claim: claim,
    }
}
