//! A target in memory: what a process server and a master target together are to an agent.

use landfall_agent::source::Source;
use landfall_agent::uplink::{Answer, Network, Uplink};
use landfall_repl::{
    Durable, HashReply, HashRequest, ImageCopyPosition, ImageData, LogSource, ReceiverPosition,
    Refusal,
};
use landfall_types::{
    Chain, Control, Incarnation, Lineage, Lsn, Record, RecordKind, WindowReason, Windows,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const SECTOR: usize = 512;

#[derive(Clone)]
struct DiskCopy {
    /// What a read of the newest position gives.
    newest: Vec<u8>,
    /// Sectors that the journal has written: it always lies over the image.
    journaled: Vec<bool>,
}

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) lineage: Lineage,
    pub(crate) incarnation: Incarnation,
    /// The ring's position of the newest batch.
    pub(crate) source_position: u64,
    /// The first disk as it was at each marker that is not crash-consistent, with its position.
    pub(crate) snapshots: Vec<(Lsn, Vec<u8>)>,
    records: Vec<Record>,
    /// The position before the first of `records`.
    base: Lsn,
    chain: Chain,
    windows: Windows,
    disks: Vec<DiskCopy>,
    image_copy: Option<ImageCopyPosition>,
    refuse: Option<Refusal>,
    image_bytes: u64,
    hash_requests: u64,
    /// What lies behind the relay that this target is from now on.
    behind_relay: Option<Box<State>>,
}

impl State {
    /// What is durable, here and at the target.
    fn watermarks(&self) -> Durable {
        let here = self.durable();
        let at_target = self.behind_relay.as_ref().map_or(here, |target| target.durable());
        Durable { here, at_target }
    }

    pub(crate) fn durable(&self) -> Lsn {
        self.base.plus(self.records.len() as u64)
    }

    pub(crate) fn position(&self) -> ReceiverPosition {
        ReceiverPosition {
            lineage: self.lineage.clone(),
            incarnation: self.incarnation,
            durable: self.durable(),
            chain: self.chain,
            source_position: self.source_position,
            durable_at_target: self.durable(),
            image_copy: self.image_copy.clone(),
            open_windows: self.windows.open_ids(),
            rotten: vec![],
        }
    }

    pub(crate) fn take(&mut self, record: Record) {
        assert_eq!(record.header.lsn, self.durable().next(), "dense");
        record.verify().expect("the payload is what the header says");
        self.chain = record.chain(self.chain);
        match record.header.range() {
            None => self.control(&Control::decode(&record.payload).expect("a control record")),
            Some(range) => {
                let disk = &mut self.disks[usize::from(record.header.disk.0)];
                let place = &mut disk.newest[range.start as usize..range.end as usize];
                match record.header.kind {
                    RecordKind::Write => place.copy_from_slice(&record.payload),
                    RecordKind::Zero | RecordKind::Discard => place.fill(0),
                    RecordKind::Control => unreachable!("has no range"),
                }
                disk.journaled[range.start as usize / SECTOR..range.end as usize / SECTOR]
                    .fill(true);
            }
        }
        self.records.push(record);
    }

    fn control(&mut self, control: &Control) {
        self.windows.apply(control).expect("windows are opened before they are closed");
        match control {
            Control::WindowOpen(open) if open.into_image => {
                assert_eq!(open.reason, WindowReason::FirstCopy);
                let durable_bytes = vec![];
                self.image_copy = Some(ImageCopyPosition { window: open.window, durable_bytes });
            }
            Control::Marker(marker) if marker.name.is_some() => {
                let newest = self.disks[0].newest.clone();
                self.snapshots.push((self.durable().next(), newest));
            }
            Control::WindowClose(close) => {
                self.image_copy.take_if(|copy| copy.window == close.window);
            }
            _ => {}
        }
    }

    pub(crate) fn image(&mut self, piece: &ImageData) {
        let copy = self.image_copy.as_mut().expect("a first copy is under way");
        assert_eq!(copy.window, piece.window);
        let begun = copy.durable_bytes.iter().position(|(disk, _)| *disk == piece.disk);
        let begun = begun.unwrap_or_else(|| {
            copy.durable_bytes.push((piece.disk, 0));
            copy.durable_bytes.len() - 1
        });
        assert_eq!(copy.durable_bytes[begun].1, piece.offset, "in order and without gaps");
        copy.durable_bytes[begun].1 += piece.length;
        let disk = &mut self.disks[usize::from(piece.disk.0)];
        for at in (0..piece.length as usize).step_by(SECTOR) {
            let on_disk = piece.offset as usize + at;
            if disk.journaled[on_disk / SECTOR] {
                continue;
            }
            let place = &mut disk.newest[on_disk..on_disk + SECTOR];
            match &piece.data {
                Some(data) => place.copy_from_slice(&data[at..at + SECTOR]),
                None => place.fill(0),
            }
        }
        self.image_bytes += piece.data.as_ref().map_or(0, |data| data.len() as u64);
    }

    pub(crate) fn hash(&mut self, request: &HashRequest) -> HashReply {
        assert!(self.durable() >= request.after, "asked after the window's opening was taken");
        self.hash_requests += 1;
        let newest = &self.disks[usize::from(request.disk.0)].newest;
        let range = request.offset as usize..(request.offset + request.length) as usize;
        let hash = |block: &[u8]| blake3::hash(block).as_bytes()[..16].try_into().expect("16");
        HashReply { hashes: newest[range].chunks(request.block_bytes as usize).map(hash).collect() }
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Target {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    /// What the agent was told to be durable here.
    told: Arc<watch::Sender<Lsn>>,
}

impl Target {
    pub(crate) fn new(lineage: Lineage, sizes: &[u64]) -> Self {
        let copy = |size: &u64| DiskCopy {
            newest: vec![0xee; *size as usize],
            journaled: vec![false; *size as usize / SECTOR],
        };
        let state = State {
            lineage,
            incarnation: Incarnation::NONE,
            source_position: 0,
            snapshots: vec![],
            records: vec![],
            base: Lsn::ZERO,
            chain: Chain::ROOT,
            windows: Windows::new(),
            disks: sizes.iter().map(copy).collect(),
            image_copy: None,
            refuse: None,
            image_bytes: 0,
            hash_requests: 0,
            behind_relay: None,
        };
        let (changed, told) = (watch::channel(0).0, watch::channel(Lsn::ZERO).0);
        let (changed, told) = (Arc::new(changed), Arc::new(told));
        Self { state: Arc::new(Mutex::new(state)), changed, told }
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let result = f(&mut self.state.lock().unwrap());
        self.changed.send_modify(|n| *n += 1);
        result
    }

    /// What reads of the newest position give.
    pub(crate) fn newest(&self, disk: usize) -> Vec<u8> {
        self.state.lock().unwrap().disks[disk].newest.clone()
    }

    pub(crate) fn durable(&self) -> Lsn {
        self.state.lock().unwrap().durable()
    }

    pub(crate) fn image_bytes(&self) -> u64 {
        self.state.lock().unwrap().image_bytes
    }

    pub(crate) fn hash_requests(&self) -> u64 {
        self.state.lock().unwrap().hash_requests
    }

    /// Controls of the log, with their positions.
    pub(crate) fn controls(&self) -> Vec<(Lsn, Control)> {
        let state = self.state.lock().unwrap();
        let controls = state.records.iter().filter(|r| r.header.kind == RecordKind::Control);
        controls.map(|r| (r.header.lsn, Control::decode(&r.payload).unwrap())).collect()
    }

    /// Bytes of catch-up records behind `after`.
    pub(crate) fn catch_up_bytes(&self, after: Lsn) -> u64 {
        let state = self.state.lock().unwrap();
        let records = state.records.iter().filter(|r| r.header.catch_up && r.header.lsn > after);
        records.map(|r| r.header.length).sum()
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.state.lock().unwrap().incarnation
    }

    /// Every session is refused with this from now on, or none any more.
    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        self.with(|state| state.refuse = refusal);
    }

    /// As if the disks of the relay had been lost: the newest records are gone, and so is what they
    /// wrote.
    pub(crate) fn lose_newest(&self, count: usize) {
        self.with(|state| {
            let keep = state.records.len() - count;
            let records: Vec<Record> = state.records.drain(..).take(keep).collect();
            state.chain = Chain::ROOT;
            state.windows = Windows::new();
            state.disks.iter_mut().for_each(|disk| disk.newest.fill(0xdd));
            records.into_iter().for_each(|record| state.take(record));
        });
    }

    /// The link behind the relay is cut: what comes from now on is durable in its spool only.
    pub(crate) fn cut_behind_relay(&self) {
        self.with(|state| state.behind_relay = Some(Box::new(state.clone())));
    }

    /// Waits until the agent knows that the relay has this durable: it has forgotten its records.
    pub(crate) async fn until_forgotten(&self, durable: Lsn) {
        let mut told = self.told.subscribe();
        told.wait_for(|told| *told >= durable).await.expect("the target holds the sender");
    }

    /// The relay loses its spool, and the link comes back: it stands where the target does.
    pub(crate) fn lose_spool(&self) {
        self.with(|state| {
            let target = state.behind_relay.take().expect("it was cut off before");
            let (image_bytes, hash_requests) = (state.image_bytes, state.hash_requests);
            *state = State { image_bytes, hash_requests, ..*target };
        });
    }

    /// Waits until `condition` holds of the positions.
    pub(crate) async fn until(
        &self,
        what: &str,
        condition: impl Fn(&ReceiverPosition, &[Record]) -> bool,
    ) {
        let mut changes = self.changed.subscribe();
        let holds = || {
            let state = self.state.lock().unwrap();
            condition(&state.position(), &state.records)
        };
        let wait = async {
            while !holds() {
                changes.changed().await.expect("the target holds the sender");
            }
        };
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("{what}: not in time"));
    }

    async fn session(&self, source: &Source) -> Result<(), Refusal> {
        if let Some(refusal) = self.state.lock().unwrap().refuse.clone() {
            return Err(refusal);
        }
        let identity = source.identity();
        let position = self.state.lock().unwrap().position();
        source.resume(&position).await?;
        source.acknowledged(self.state.lock().unwrap().watermarks());
        let mut next = position.durable.next();
        let mut refused = self.changed.subscribe();
        loop {
            let batch = tokio::select! {
                batch = source.read(next, 1 << 20) => batch?,
                _ = refused.wait_for(|_| self.state.lock().unwrap().durable().next() != next
                    || self.state.lock().unwrap().refuse.is_some()) => return Ok(()),
            };
            assert_eq!(batch.epoch, identity.lineage.epoch());
            let durable = self.with(|state| {
                assert_eq!(batch.chain_before, state.chain);
                state.incarnation = batch.incarnation;
                state.source_position = batch.source_position;
                state.lineage = identity.lineage.clone();
                batch.records.into_iter().for_each(|record| state.take(record));
                state.watermarks()
            });
            next = durable.here.next();
            source.acknowledged(durable);
            self.told.send_replace(durable.here);
        }
    }
}

impl Network for Target {
    fn connect(&self, _next_hop: &str, source: Arc<Source>) -> Arc<dyn Uplink> {
        let (ended, _) = watch::channel(None);
        let ended = Arc::new(ended);
        let (target, tell) = (self.clone(), Arc::clone(&ended));
        let task = tokio::spawn(async move {
            loop {
                match target.session(&source).await {
                    Err(refusal) if refusal.class() == landfall_types::Class::Fenced => {
                        tell.send_replace(Some(refusal));
                        return;
                    }
                    Ok(()) | Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        Arc::new(Link { target: self.clone(), ended, task })
    }
}

struct Link {
    target: Target,
    ended: Arc<watch::Sender<Option<Refusal>>>,
    task: JoinHandle<()>,
}

impl Uplink for Link {
    fn image(&self, piece: ImageData) -> Answer<()> {
        let target = self.target.clone();
        Box::pin(async move {
            let opened = |p: &ReceiverPosition, _: &[Record]| p.image_copy.is_some();
            target.until("the window is open at the target", opened).await;
            target.with(|state| state.image(&piece));
            Ok(())
        })
    }

    fn hash(&self, request: HashRequest) -> Answer<HashReply> {
        let target = self.target.clone();
        Box::pin(async move {
            let there = |p: &ReceiverPosition, _: &[Record]| p.durable >= request.after;
            target.until("the position of the question", there).await;
            Ok(target.with(|state| state.hash(&request)))
        })
    }

    fn ended(&self) -> Pin<Box<dyn Future<Output = Refusal> + Send>> {
        let mut ended = self.ended.subscribe();
        Box::pin(async move {
            let refusal = ended.wait_for(Option::is_some).await.expect("the link holds the sender");
            refusal.clone().expect("just seen")
        })
    }

    fn sent(&self) -> Lsn {
        self.target.durable()
    }

    fn link(&self) -> (bool, Option<f64>) {
        (true, None)
    }

    fn refusal(&self) -> Option<Refusal> {
        self.ended.borrow().clone()
    }

    fn connect_error(&self) -> Option<String> {
        None
    }

    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.task.abort();
        Box::pin(std::future::ready(()))
    }
}
