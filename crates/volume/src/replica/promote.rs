//! Who may write: freeze, promotion, change of point, commit, demotion, following (design section
//! 7, trap T-17).
//!
//! ```text
//! replicating ⇄ frozen ─promote─► writable ─promote (another point)─► writable ─commit─► writable
//!      ▲                                                                          │ demote ⇅ undemote
//!      └──────────────────────────── follow ◄──────────────────────────────── frozen
//! ```

use super::{Branch, Receiving, Replica, branch_stamp};
use crate::body::{Attestation, Body, Demoted, DivergenceEntry, Role};
use crate::error::{RoleError, StorageError};
use crate::line::{AppliedLog, BranchLog};
use crate::sync::{lock, read, write};
use crate::timeline::PointSelector;
use landfall_journal::Position;
use landfall_types::{
    BranchId, Control, Epoch, InstanceId, Lineage, LineageEntry, Lsn, Marker, MarkerKind, Record,
    UnixNanos,
};
use std::sync::Arc;

/// What a branch with authority is made with.
#[derive(Clone, Debug)]
pub struct NewAuthority {
    /// Ours.
    pub id: BranchId,
    /// Unique within the replica.
    pub name: String,
    /// Where, in the log that was replicated.
    pub point: PointSelector,
    /// The new epoch. Its number must be higher than any that this replica has seen; as parent
    /// counts the epoch that the point lies in, whatever the order says, because only the replica
    /// knows it.
    pub epoch: Epoch,
}

impl Replica {
    /// Takes frames no more, durably, and says what is durable. Frozen already: no error.
    ///
    /// # Errors
    /// [`RoleError::WrongRole`], storage errors.
    pub fn freeze(&self) -> Result<Position, RoleError> {
        // Waits for frames that are being taken; after this none is.
        let mut receiving = write(&self.receiving);
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        match body.role {
            Role::Frozen => {}
            Role::Replicating => {
                // Nothing is appended for now: were its end to rot, that would be known as damage.
                self.line().log.close()?;
                body.role = Role::Frozen;
                core.store.write(body)?;
                *receiving = None;
            }
            role => return Err(RoleError::WrongRole { role, wanted: "freezing" }),
        }
        Ok(self.line().log.durable())
    }

    /// Gives a freeze up: nothing was promoted. Replicating already: no error.
    ///
    /// # Errors
    /// [`RoleError::WrongRole`], [`RoleError::Demoted`], storage errors.
    pub fn thaw(&self) -> Result<(), RoleError> {
        let body = self.body()?;
        if body.role == Role::Frozen && body.undo.is_some() {
            // A release that was cut off and given up: nobody else has had the disks. With the undo
            // kept the image could never be folded or released again.
            self.undo()?;
        }
        let mut receiving = write(&self.receiving);
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        if let Some(demoted) = body.demoted {
            return Err(RoleError::Demoted { at: demoted.lsn });
        }
        match body.role {
            Role::Replicating => return Ok(()),
            Role::Frozen => {}
            role => return Err(RoleError::WrongRole { role, wanted: "thawing" }),
        }
        body.role = Role::Replicating;
        core.store.write(body.clone())?;
        *receiving = Some(Receiving {
            log: AppliedLog::new(self.line()),
            lineage: body.lineage,
            instance: body.instance,
        });
        Ok(())
    }

    /// Gives a branch of a new epoch authority: a failover (from [`Role::Frozen`]), or a change of
    /// point (from
    /// [`Role::Writable`], until commit). The former branch's export is revoked first, and its log
    /// becomes divergence (trap T-17). Done already with this ID and epoch: returns the branch.
    ///
    /// # Errors
    /// [`RoleError`]; the former branch stays revoked only if the new one was to be made durable
    /// and that failed.
    pub fn promote(&self, new: &NewAuthority) -> Result<Arc<Branch>, RoleError> {
        self.promote_on(new, None)
    }

    /// As [`Replica::promote`], on somebody's word instead of a configuration server's order: the
    /// word becomes durable in the same step as the authority, and is kept. Only from
    /// [`Role::Frozen`]: a branch that has authority already is somebody's.
    ///
    /// # Errors
    /// As [`Replica::promote`]; [`RoleError::WrongRole`] where a branch has authority.
    pub fn promote_attested(
        &self,
        new: &NewAuthority,
        attestation: Attestation,
    ) -> Result<Arc<Branch>, RoleError> {
        let role = self.body()?.role;
        if role != Role::Frozen {
            return Err(RoleError::WrongRole { role, wanted: "a promotion on somebody's word" });
        }
        self.promote_on(new, Some(attestation))
    }

    /// The words on which branches were given authority without a configuration server.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`].
    pub fn attestations(&self) -> Result<Vec<Attestation>, StorageError> {
        Ok(self.body()?.attestations)
    }

    fn promote_on(
        &self,
        new: &NewAuthority,
        attestation: Option<Attestation>,
    ) -> Result<Arc<Branch>, RoleError> {
        let trims = read(&self.medium.trims);
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        if let Some(branch) = self.promoted_already(&body, new)? {
            return Ok(branch);
        }
        check_may_promote(&body, new)?;
        let fork = self.resolve_in(&body, &new.point)?;
        let lineage = fork_lineage(&body.lineage, new.epoch, fork)?;
        // Revoked before anything of the new branch exists, and what it holds made durable: at no
        // moment are two branches writable, whatever fails from here on.
        let former = body.authority.take();
        if let Some(former) = former {
            self.retire_authority(&mut body, former)?;
        }
        let epoch = lineage.epoch();
        let branch =
            self.make_branch(&mut core, &mut body, new.id, &new.name, fork, epoch, Some(lineage))?;
        body.role = Role::Writable;
        body.authority = Some(new.id);
        body.epoch_highest = new.epoch.number;
        body.attestations.extend(attestation);
        core.store.write(body)?;
        let mut branches = write(&self.branches);
        branches.insert(new.id, Arc::clone(&branch));
        // Not before: a promotion that failed half-way finds the revoked branch here when it is
        // repeated.
        former.map(|former| branches.remove(&former));
        drop(branches);
        drop(core);
        drop(trims);
        Ok(branch)
    }

    fn promoted_already(
        &self,
        body: &Body,
        new: &NewAuthority,
    ) -> Result<Option<Arc<Branch>>, RoleError> {
        let Some(entry) = body.authority_branch() else { return Ok(None) };
        if entry.id != new.id || !entry.epoch.is(&new.epoch) || body.role != Role::Writable {
            return Ok(None);
        }
        let branch = read(&self.branches).get(&new.id).cloned();
        Ok(Some(branch.ok_or(StorageError::LogMissing)?))
    }

    /// Takes the authority from a branch that was not committed; what it wrote becomes divergence.
    fn retire_authority(&self, body: &mut Body, former: BranchId) -> Result<(), RoleError> {
        let branch = read(&self.branches).get(&former).cloned().ok_or(StorageError::LogMissing)?;
        drop(branch.revoke());
        let end = branch.line().log.flush()?;
        let entry = branch.entry();
        body.branches.retain(|branch| branch.id != former);
        body.divergence.push(DivergenceEntry {
            name: unused_name(body, entry.name.clone()),
            description: format!(
                "what was written to branch {} before another point was chosen",
                entry.name
            ),
            log: Some(entry.log),
            epoch: Some(entry.epoch),
            after: entry.fork,
            through: end.lsn,
            discarded: false,
        });
        Ok(())
    }

    /// The branch's log is now the replica's: older points can't be chosen any more, and what the
    /// old log holds behind the fork is divergence. The image is folded to the fork by the next
    /// [`Replica::fold`]. Done already: no error.
    ///
    /// # Errors
    /// [`RoleError::NoAuthority`], storage errors.
    pub fn commit(&self) -> Result<(), RoleError> {
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        let Some(entry) = body.authority_branch().cloned() else {
            return Err(RoleError::NoAuthority);
        };
        if body.committed() {
            return Ok(());
        }
        let old = self.line().log.durable();
        if old.lsn > entry.fork {
            let name = format!("epoch-{}-after-{}", old.epoch.number, entry.fork);
            body.divergence.push(DivergenceEntry {
                description: format!(
                    "what was replicated in epoch {} behind the chosen point",
                    old.epoch
                ),
                name: unused_name(&body, name),
                log: Some(body.log),
                epoch: Some(old.epoch),
                after: entry.fork,
                through: old.lsn,
                discarded: false,
            });
        }
        body.log = entry.log;
        body.points_from = entry.fork;
        body.lineage = body.lineage_in_force().clone();
        body.image_copy = None;
        let branch =
            read(&self.branches).get(&entry.id).cloned().ok_or(StorageError::LogMissing)?;
        core.store.write(body)?;
        *write(&self.current) = Arc::clone(branch.line());
        Ok(())
    }

    /// Ends the branch's authority: revokes its export, puts a last marker into its log, makes it
    /// durable. The receipt allows one promotion elsewhere. Done already: returns the same receipt.
    ///
    /// # Errors
    /// [`RoleError::NotCommitted`], [`RoleError::NoAuthority`], storage errors.
    pub fn demote(&self, now: UnixNanos) -> Result<Demoted, RoleError> {
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        if let Some(demoted) = body.demoted {
            return Ok(demoted);
        }
        let Some(entry) = body.authority_branch().cloned() else {
            return Err(RoleError::NoAuthority);
        };
        if !body.committed() {
            return Err(RoleError::NotCommitted);
        }
        let branch =
            read(&self.branches).get(&entry.id).cloned().ok_or(StorageError::LogMissing)?;
        let log = match branch.revoke() {
            Some(log) => log,
            // An earlier attempt failed behind the revocation.
            None => core.parked.take().ok_or(RoleError::NoAuthority)?,
        };
        let end = self.end_log(&log, now);
        core.parked = Some(log);
        let end = end?;
        let demoted = Demoted { epoch: entry.epoch, lsn: end.lsn, chain: end.chain };
        body.role = Role::Frozen;
        body.demoted = Some(demoted);
        core.store.write(body)?;
        Ok(demoted)
    }

    fn end_log(&self, log: &BranchLog, now: UnixNanos) -> Result<Position, RoleError> {
        let marker = Marker {
            kind: MarkerKind::CrashConsistent,
            time_unix_ns: now.0,
            name: None,
            group: None,
        };
        let written = log.write_with(&self.medium, |lsn, _| {
            Ok(vec![Record::control(lsn, &Control::Marker(marker))])
        });
        written.map_err(|error| match error {
            crate::error::ContentError::Storage(source) => RoleError::Storage(source),
            _ => RoleError::NoAuthority,
        })?;
        Ok(self.line().log.close()?)
    }

    /// Gives a demotion up, before anything was promoted elsewhere: the branch may be written again
    /// in its epoch. Writable already: returns the branch.
    ///
    /// # Errors
    /// [`RoleError::NoAuthority`], storage errors.
    pub fn undemote(&self) -> Result<Arc<Branch>, RoleError> {
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        let Some(entry) = body.authority_branch().cloned() else {
            return Err(RoleError::NoAuthority);
        };
        let branch =
            read(&self.branches).get(&entry.id).cloned().ok_or(StorageError::LogMissing)?;
        if body.demoted.take().is_none() {
            return Ok(branch);
        }
        body.role = Role::Writable;
        core.store.write(body)?;
        let log = core.parked.take();
        let log = log.unwrap_or_else(|| {
            BranchLog::new(Arc::clone(branch.line()), branch_stamp(entry.log, entry.epoch))
        });
        let line = Arc::clone(branch.line());
        let branch =
            Arc::new(Branch::open(entry.clone(), line, Arc::clone(&self.medium), Some(log)));
        write(&self.branches).insert(entry.id, Arc::clone(&branch));
        Ok(branch)
    }

    /// The demoted replica takes frames again, of a new epoch that forked at the end of its log;
    /// they are appended to the same log. Done already: no error.
    ///
    /// # Errors
    /// [`RoleError::WrongRole`], [`RoleError::OtherPosition`] when the log does not end at the
    /// fork,
    /// [`RoleError::EpochNotHigher`], [`RoleError::Lineage`], storage errors.
    pub fn follow(&self, epoch: Epoch, fork: Lsn, instance: InstanceId) -> Result<(), RoleError> {
        let mut receiving = write(&self.receiving);
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        if body.role == Role::Replicating && body.lineage.epoch().is(&epoch) {
            return Ok(());
        }
        if body.role != Role::Frozen || body.demoted.is_none() {
            return Err(RoleError::WrongRole { role: body.role, wanted: "following" });
        }
        check_higher(&body, epoch)?;
        let end = self.line().log.durable();
        if end.lsn != fork || self.line().log.tail().lsn != fork {
            return Err(RoleError::OtherPosition { expected: fork, found: end.lsn });
        }
        body.lineage = fork_lineage(&body.lineage, epoch, fork)?;
        body.role = Role::Replicating;
        body.epoch_highest = epoch.number;
        body.instance = instance;
        body.demoted = None;
        let authority = body.authority.take();
        body.branches.retain(|branch| Some(branch.id) != authority);
        core.store.write(body.clone())?;
        if let Some(id) = authority {
            write(&self.branches).remove(&id);
        }
        // The writer's log becomes the applier's: it can't be both.
        let log = core.parked.take().map(BranchLog::into_applied);
        let log = log.unwrap_or_else(|| AppliedLog::new(self.line()));
        *receiving = Some(Receiving { log, lineage: body.lineage, instance });
        Ok(())
    }

    /// Discards divergence by name; its logs are removed as soon as nothing else needs them.
    /// Discarded already: no error.
    ///
    /// # Errors
    /// [`RoleError::UnknownDivergence`], then nothing is discarded; storage errors.
    pub fn discard_divergence(&self, names: &[String]) -> Result<(), RoleError> {
        let mut core = lock(&self.core);
        let mut body = core.store.body()?.clone();
        for name in names {
            let entry = body.divergence.iter_mut().find(|entry| entry.name == *name);
            entry.ok_or_else(|| RoleError::UnknownDivergence(name.clone()))?.discarded = true;
        }
        Ok(self.collect(&mut core, body)?)
    }
}

fn check_may_promote(body: &Body, new: &NewAuthority) -> Result<(), RoleError> {
    match body.role {
        Role::Frozen | Role::Writable => {}
        role => return Err(RoleError::WrongRole { role, wanted: "a promotion" }),
    }
    if let Some(demoted) = body.demoted {
        return Err(RoleError::Demoted { at: demoted.lsn });
    }
    if body.committed() {
        return Err(RoleError::Committed);
    }
    check_higher(body, new.epoch)?;
    if body.branches.iter().any(|branch| branch.name == new.name) {
        return Err(RoleError::NameTaken(new.name.clone()));
    }
    Ok(())
}

/// An epoch number is used once: an order that is repeated with another branch, or comes from a
/// restored controller, is refused (trap T-17).
fn check_higher(body: &Body, epoch: Epoch) -> Result<(), RoleError> {
    if epoch.number <= body.epoch_highest {
        return Err(RoleError::EpochNotHigher { offered: epoch, highest: body.epoch_highest });
    }
    Ok(())
}

/// The history up to `fork`, continued by `epoch`.
fn fork_lineage(lineage: &Lineage, epoch: Epoch, fork: Lsn) -> Result<Lineage, RoleError> {
    let shared = |entry: &&LineageEntry| entry.fork == Lsn::ZERO || entry.fork <= fork;
    let entries: Vec<LineageEntry> = lineage.entries().iter().take_while(shared).copied().collect();
    let shared = Lineage::from_entries(entries).map_err(RoleError::Lineage)?;
    let epoch = Epoch { parent: Some(shared.epoch().id), ..epoch };
    shared.extend(epoch, fork).map_err(RoleError::Lineage)
}

fn unused_name(body: &Body, name: String) -> String {
    let taken = |name: &String| body.divergence.iter().any(|entry| entry.name == *name);
    if !taken(&name) {
        return name;
    }
    (2_u32..).map(|n| format!("{name}-{n}")).find(|name| !taken(name)).unwrap_or(name)
}
