use crate::dir::check_name;
use crate::sim::fault::{Fault, FaultPlan, Faults, Kind, Rot};
use crate::sim::image::{Atom, Child, DirId, FileId, Image, ROOT, to_usize};
use crate::sim::trace::{Change, Op, Trace};
use crate::{Action, DeviceError, Dir, File, KeyedDir, range_check};
use landfall_crypt::{DataKey, Secret};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A simulated medium. Clones are the same medium; [`SimMedium::fork`] makes another one with the
/// same content.
#[derive(Clone, Debug)]
pub struct SimMedium(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    sector_bytes: u32,
    /// What programs see.
    live: Image,
    /// What survives any cut.
    durable: Image,
    /// What separates the two, in order.
    pending: Vec<Atom>,
    trace: Trace,
    next_id: u64,
    faults: Faults,
    /// For what a failed sync leaves; fixed, so that runs repeat.
    random: u64,
    /// What is written to it is sealed with this.
    key: Option<DataKey>,
}

impl SimMedium {
    /// An empty medium with sectors of 512 or 4096 bytes. Its content is sealed (as by
    /// [`SimMedium::sealed`]) where `LANDFALL_TEST_SEALED` is 1: every test then runs over
    /// encrypted logs and replicas.
    #[must_use]
    pub fn new(sector_bytes: u32) -> Self {
        match std::env::var("LANDFALL_TEST_SEALED") {
            Ok(value) if value == "1" => Self::sealed(sector_bytes),
            _ => Self::with_image(sector_bytes, Image::new(), 1, None),
        }
    }

    /// A medium whose root, and those of all its forks and cuts, have a data key.
    #[must_use]
    pub fn sealed(sector_bytes: u32) -> Self {
        let key = DataKey::new(&Secret::take(&mut [0x5e; 32]));
        Self::with_image(sector_bytes, Image::new(), 1, Some(key))
    }

    /// The same content, to be read with another key, or with none.
    #[must_use]
    pub fn with_key(&self, key: Option<DataKey>) -> Self {
        let state = self.lock();
        Self::with_image(state.sector_bytes, state.live.clone(), state.next_id, key)
    }

    pub(crate) fn with_image(
        sector_bytes: u32,
        image: Image,
        next_id: u64,
        key: Option<DataKey>,
    ) -> Self {
        let trace = Trace {
            key: key.clone(),
            sector_bytes,
            next_id,
            initial: image.clone(),
            pending: Vec::new(),
            ops: Vec::new(),
        };
        Self(Arc::new(Mutex::new(State {
            sector_bytes,
            live: image.clone(),
            durable: image,
            pending: Vec::new(),
            trace,
            next_id,
            faults: Faults::default(),
            random: 1,
            key,
        })))
    }

    /// The directory that holds all others.
    #[must_use]
    pub fn root(&self) -> Arc<dyn Dir> {
        let root = SimDir { medium: self.clone(), id: ROOT, poisoned: AtomicBool::new(false) };
        let key = self.lock().key.clone();
        match key {
            Some(key) => KeyedDir::over(Arc::new(root), key),
            None => Arc::new(root),
        }
    }

    /// Records that the code under test has just promised something (an acknowledgement, a trim, a
    /// recovery's result). The test keeps what it was: a [`crate::sim::Cut`] says how many promises
    /// had been made before it.
    pub fn promise(&self) {
        self.lock().trace.ops.push(Op::Promise);
    }

    /// Everything recorded so far.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.lock().trace.clone()
    }

    /// Forgets the recording; what is pending stays so, and stands at the begin of the new
    /// recording.
    pub fn restart_trace(&self) {
        let mut state = self.lock();
        state.trace = Trace {
            key: state.key.clone(),
            sector_bytes: state.sector_bytes,
            next_id: state.next_id,
            initial: state.durable.clone(),
            pending: state.pending.clone(),
            ops: Vec::new(),
        };
    }

    /// Another medium with what programs see on this one, all of it durable and nothing recorded.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.lock();
        Self::with_image(state.sector_bytes, state.live.clone(), state.next_id, state.key.clone())
    }

    /// Another medium as after a power cut that kept nothing unsynced.
    #[must_use]
    pub fn fork_durable(&self) -> Self {
        let state = self.lock();
        Self::with_image(
            state.sector_bytes,
            state.durable.clone(),
            state.next_id,
            state.key.clone(),
        )
    }

    /// Lets an operation fail, or none any more. Counting starts anew.
    pub fn fail(&self, plan: Option<FaultPlan>) {
        self.lock().faults.set(plan);
    }

    /// True when an operation has failed by the present plan.
    #[must_use]
    pub fn fault_fired(&self) -> bool {
        self.lock().faults.fired()
    }

    /// Paths and lengths of all files, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.lock();
        let length = |file| state.live.files.get(file).map_or(0, |bytes| bytes.len() as u64);
        state.live.paths().iter().map(|(path, file)| (path.clone(), length(file))).collect()
    }

    /// Lets the sector of a file rot in which `offset` lies, durably and unrecorded.
    ///
    /// # Panics
    /// When there is no such file or the sector lies behind its end: the test is wrong.
    pub fn rot(&self, path: &str, offset: u64, rot: Rot) {
        let mut state = self.lock();
        let paths = state.live.paths();
        let file = paths.iter().find(|(name, _)| name == path).expect("the file to rot exists").1;
        let sector_bytes = to_usize(state.sector_bytes.into());
        for durable in [false, true] {
            let image = if durable { &mut state.durable } else { &mut state.live };
            let bytes = image.bytes(file);
            let start = to_usize(offset) / sector_bytes * sector_bytes;
            let end = (start + sector_bytes).min(bytes.len());
            match rot {
                Rot::Flip(at) => bytes[start + to_usize(at.into()) % (end - start)] ^= 0x10,
                Rot::Zero => bytes[start..end].fill(0),
                Rot::Garbage => fill_garbage(offset, &mut bytes[start..end]),
                Rot::Misdirected(from) => {
                    let from = to_usize(from) / sector_bytes * sector_bytes;
                    let source =
                        bytes[from..].iter().copied().take(end - start).collect::<Vec<_>>();
                    bytes[start..start + source.len()].copy_from_slice(&source);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that nobody wrote; the same for the same seed.
pub(crate) fn fill_garbage(seed: u64, out: &mut [u8]) {
    let mut state = seed ^ 0x6c61_6e64_6661_6c6c;
    for chunk in out.chunks_mut(8) {
        chunk.copy_from_slice(&next_random(&mut state).to_le_bytes()[..chunk.len()]);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) const fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl State {
    fn change(&mut self, atom: Atom) {
        self.live.apply(&atom);
        self.pending.push(atom.clone());
        self.trace.ops.push(Op::Change(Change(atom)));
    }

    fn write(&mut self, file: FileId, mut offset: u64, mut data: &[u8]) {
        let sector = u64::from(self.sector_bytes);
        while !data.is_empty() {
            let room = to_usize(sector - offset % sector);
            let (now, rest) = data.split_at(room.min(data.len()));
            self.change(Atom::Sector { file, offset, data: now.into() });
            offset += now.len() as u64;
            data = rest;
        }
    }

    fn sync_file(&mut self, file: FileId) {
        let (synced, kept) =
            std::mem::take(&mut self.pending).into_iter().partition(|a| a.file() == Some(file));
        let synced: Vec<Atom> = synced;
        self.pending = kept;
        synced.iter().for_each(|atom| self.durable.apply(atom));
        self.trace.ops.push(Op::SyncFile(file));
    }

    fn sync_dir(&mut self, dir: DirId) {
        let (synced, kept) =
            std::mem::take(&mut self.pending).into_iter().partition(|a| a.dir() == Some(dir));
        let synced: Vec<Atom> = synced;
        self.pending = kept;
        synced.iter().for_each(|atom| self.durable.apply(atom));
        self.trace.ops.push(Op::SyncDir(dir));
    }

    /// Any part of what was pending reaches the medium, the rest is lost, and programs see what the
    /// medium holds: the kernel drops the pages of a failed write-back.
    fn sync_failed(&mut self, file: FileId) {
        let (lost, kept) =
            std::mem::take(&mut self.pending).into_iter().partition(|a| a.file() == Some(file));
        let lost: Vec<Atom> = lost;
        self.pending = kept;
        for atom in &lost {
            if next_random(&mut self.random).is_multiple_of(2) {
                self.durable.apply(atom);
            }
        }
        let content = Arc::clone(self.durable.files.entry(file).or_default());
        self.live.files.insert(file, Arc::clone(&content));
        self.trace.ops.push(Op::SyncFailed(file, content));
    }
}

fn io_error(action: Action, target: &str) -> DeviceError {
    let source = io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
    DeviceError::Io { action, target: target.to_owned(), source }
}

fn fault_error(fault: Fault, action: Action, target: &str) -> DeviceError {
    match fault {
        Fault::Full => DeviceError::Full { action, target: target.to_owned() },
        Fault::Io | Fault::Short | Fault::Sync => io_error(action, target),
    }
}

fn poison_check(poisoned: &AtomicBool, target: &str) -> Result<(), DeviceError> {
    if poisoned.load(Ordering::SeqCst) {
        return Err(DeviceError::Poisoned { target: target.to_owned() });
    }
    Ok(())
}

/// A directory of a [`SimMedium`].
#[derive(Debug)]
struct SimDir {
    medium: SimMedium,
    id: DirId,
    poisoned: AtomicBool,
}

impl SimDir {
    fn begin(
        &self,
        kind: Kind,
        action: Action,
        name: &str,
    ) -> Result<MutexGuard<'_, State>, DeviceError> {
        let mut state = self.medium.lock();
        match state.faults.meet(kind) {
            Some(fault) => Err(fault_error(fault, action, name)),
            None => Ok(state),
        }
    }

    fn open_id(&self, id: FileId, name: &str) -> Arc<dyn File> {
        Arc::new(SimFile {
            medium: self.medium.clone(),
            id,
            name: name.to_owned(),
            poisoned: AtomicBool::new(false),
        })
    }
}

fn not_found(name: &str) -> DeviceError {
    DeviceError::NotFound { target: name.to_owned() }
}

impl Dir for SimDir {
    fn create(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        check_name(name)?;
        let mut state = self.begin(Kind::Grow, Action::Create, name)?;
        if state.live.names(self.id).contains_key(name) {
            return Err(DeviceError::Exists { target: name.to_owned() });
        }
        let id = FileId(state.next_id);
        state.next_id += 1;
        state.change(Atom::Link { dir: self.id, name: name.to_owned(), child: Child::File(id) });
        drop(state);
        Ok(self.open_id(id, name))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn File>, DeviceError> {
        check_name(name)?;
        let mut state = self.begin(Kind::Other, Action::Open, name)?;
        match state.live.names(self.id).get(name) {
            Some(Child::File(id)) => Ok(self.open_id(*id, name)),
            Some(Child::Dir(_)) => Err(io_error(Action::Open, name)),
            None => Err(not_found(name)),
        }
    }

    fn list(&self) -> Result<Vec<String>, DeviceError> {
        let mut state = self.begin(Kind::Other, Action::List, "directory")?;
        let names = state.live.names(self.id).iter();
        Ok(names.filter(|(_, c)| matches!(c, Child::File(_))).map(|(n, _)| n.clone()).collect())
    }

    fn remove(&self, name: &str) -> Result<(), DeviceError> {
        check_name(name)?;
        let mut state = self.begin(Kind::Other, Action::Remove, name)?;
        match state.live.names(self.id).get(name) {
            Some(Child::File(_)) => {
                state.change(Atom::Unlink { dir: self.id, name: name.to_owned() });
                Ok(())
            }
            Some(Child::Dir(_)) => Err(io_error(Action::Remove, name)),
            None => Err(not_found(name)),
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DeviceError> {
        check_name(from)?;
        check_name(to)?;
        let mut state = self.begin(Kind::Other, Action::Rename, from)?;
        let child = *state.live.names(self.id).get(from).ok_or_else(|| not_found(from))?;
        if from != to {
            let (from, to) = (from.to_owned(), to.to_owned());
            state.change(Atom::Rename { dir: self.id, from, to, child });
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DeviceError> {
        poison_check(&self.poisoned, "directory")?;
        let mut state = self.medium.lock();
        if let Some(fault) = state.faults.meet(Kind::Sync) {
            self.poisoned.store(true, Ordering::SeqCst);
            return Err(fault_error(fault, Action::Sync, "directory"));
        }
        state.sync_dir(self.id);
        Ok(())
    }

    fn subdir(&self, name: &str) -> Result<Arc<dyn Dir>, DeviceError> {
        check_name(name)?;
        let mut state = self.begin(Kind::Grow, Action::Create, name)?;
        let id = match state.live.names(self.id).get(name) {
            Some(Child::Dir(id)) => *id,
            Some(Child::File(_)) => {
                return Err(DeviceError::Exists { target: name.to_owned() });
            }
            None => {
                let id = DirId(state.next_id);
                state.next_id += 1;
                let child = Child::Dir(id);
                state.change(Atom::Link { dir: self.id, name: name.to_owned(), child });
                id
            }
        };
        drop(state);
        Ok(Arc::new(Self { medium: self.medium.clone(), id, poisoned: AtomicBool::new(false) }))
    }

    fn list_subdirs(&self) -> Result<Vec<String>, DeviceError> {
        let mut state = self.begin(Kind::Other, Action::List, "directory")?;
        let names = state.live.names(self.id).iter();
        Ok(names.filter(|(_, c)| matches!(c, Child::Dir(_))).map(|(n, _)| n.clone()).collect())
    }

    fn remove_subdir(&self, name: &str) -> Result<(), DeviceError> {
        check_name(name)?;
        let mut state = self.begin(Kind::Other, Action::Remove, name)?;
        match state.live.names(self.id).get(name) {
            Some(Child::Dir(id)) => {
                // Its files go one by one before its own name does, as in a file system.
                let mut dirs = vec![*id];
                while let Some(dir) = dirs.pop() {
                    for (name, child) in state.live.names(dir).clone() {
                        match child {
                            Child::Dir(sub) => dirs.push(sub),
                            Child::File(_) => state.change(Atom::Unlink { dir, name }),
                        }
                    }
                }
                state.change(Atom::Unlink { dir: self.id, name: name.to_owned() });
                Ok(())
            }
            Some(Child::File(_)) => Err(io_error(Action::Remove, name)),
            None => Err(not_found(name)),
        }
    }

    fn sector_bytes(&self) -> u32 {
        self.medium.lock().sector_bytes
    }

    fn free_bytes(&self) -> Result<Option<u64>, DeviceError> {
        Ok(None)
    }
}

/// A file of a [`SimMedium`].
#[derive(Debug)]
struct SimFile {
    medium: SimMedium,
    id: FileId,
    name: String,
    poisoned: AtomicBool,
}

impl SimFile {
    fn begin(&self, kind: Kind, action: Action) -> Result<MutexGuard<'_, State>, DeviceError> {
        if kind != Kind::Read {
            poison_check(&self.poisoned, &self.name)?;
        }
        let mut state = self.medium.lock();
        match state.faults.meet(kind) {
            Some(fault) => Err(fault_error(fault, action, &self.name)),
            None => Ok(state),
        }
    }

    fn length(&self, state: &mut State) -> u64 {
        state.live.bytes(self.id).len() as u64
    }
}

impl File for SimFile {
    fn len(&self) -> Result<u64, DeviceError> {
        let mut state = self.begin(Kind::Read, Action::Query)?;
        Ok(self.length(&mut state))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        let state = self.begin(Kind::Read, Action::Read)?;
        let empty = Vec::new();
        let bytes = state.live.files.get(&self.id).map_or(&empty, |bytes| bytes.as_ref());
        range_check(&self.name, bytes.len() as u64, offset, buf.len() as u64)?;
        let start = to_usize(offset);
        buf.copy_from_slice(&bytes[start..start + buf.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        poison_check(&self.poisoned, &self.name)?;
        let mut state = self.medium.lock();
        match state.faults.meet(Kind::Write) {
            Some(Fault::Short) => {
                state.write(self.id, offset, &data[..data.len() / 2]);
                Err(io_error(Action::Write, &self.name))
            }
            Some(fault) => Err(fault_error(fault, Action::Write, &self.name)),
            None => {
                state.write(self.id, offset, data);
                Ok(())
            }
        }
    }

    fn set_len(&self, length: u64) -> Result<(), DeviceError> {
        let mut state = self.begin(Kind::Grow, Action::Resize)?;
        state.change(Atom::SetLen { file: self.id, length });
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let mut state = self.begin(Kind::Grow, Action::Resize)?;
        let end = offset.saturating_add(length);
        if self.length(&mut state) < end {
            state.change(Atom::SetLen { file: self.id, length: end });
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let mut state = self.begin(Kind::Other, Action::Discard)?;
        let size = self.length(&mut state);
        range_check(&self.name, size, offset, length)?;
        state.change(Atom::Punch { file: self.id, offset, length });
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DeviceError> {
        poison_check(&self.poisoned, &self.name)?;
        let mut state = self.medium.lock();
        if let Some(fault) = state.faults.meet(Kind::Sync) {
            self.poisoned.store(true, Ordering::SeqCst);
            state.sync_failed(self.id);
            return Err(fault_error(fault, Action::Sync, &self.name));
        }
        state.sync_file(self.id);
        Ok(())
    }
}
