//! Makes a recovery point that promises more than a crash: frozen file systems, applications that
//! know of it.
//!
//! ```text
//!   hooks pre ─► freeze ─► the moment: the ring's head ─► still frozen? ─► thaw ─► hooks post
//!                                        │                     │
//!                                        └── the log stops ────┴──► marker there, or none
//! ```

use crate::freeze::{self, FreezeError, Frozen, GuardCommand};
use crate::hooks::{HookError, Hooks};
use crate::run::{Asking, Command, Held, Verdict};
use landfall_api_types::request::Consistency;
use landfall_api_types::{ApiError, codes};
use landfall_capture::Disk;
use landfall_types::{Class, GroupPointId, Lsn, MarkerKind};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How points are made.
#[derive(Clone, Debug)]
pub struct PointSettings {
    /// How to start the guard.
    pub guard: GuardCommand,
    /// The folder of the hooks.
    pub hooks_dir: PathBuf,
    /// Longest time that a file system stays frozen.
    pub frozen_max: Duration,
    /// Longest time that a hook may take.
    pub hook_max: Duration,
}

/// Why there is no such point.
#[derive(Debug, thiserror::Error)]
enum PointError {
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    #[error("the file systems were thawed before the point was taken")]
    Thawed,
    #[error("nothing is protected here now")]
    NotRunning,
}

impl PointError {
    const fn class(&self) -> Class {
        match self {
            Self::Hook(error) => error.class(),
            Self::Freeze(error) => error.class(),
            Self::Thawed => Class::Transient,
            Self::NotRunning => Class::Permanent,
        }
    }
}

impl From<PointError> for ApiError {
    fn from(error: PointError) -> Self {
        match &error {
            PointError::NotRunning => Self::new(&codes::WRONG_STATE, error.to_string()),
            _ => Self::new(&codes::POINT_FAILED, crate::run::with_causes(&error))
                .detail("again", error.class() == Class::Transient),
        }
    }
}

/// A moment that was taken, and whose marker waits for its verdict.
pub(crate) struct Moment {
    /// Everything, still.
    pub(crate) frozen: Frozen,
    /// To be called after the thaw.
    pub(crate) hooks: Option<Hooks>,
    /// Gives the verdict.
    pub(crate) asking: Asking,
    /// Where the marker stands, when its verdict was good.
    pub(crate) answer: oneshot::Receiver<Result<Lsn, ApiError>>,
}

/// Where a mark is taken, and what answers it.
pub(crate) struct Marking {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) settings: PointSettings,
}

impl Marking {
    /// Makes one; gives its place.
    pub(crate) async fn make(
        &self,
        name: String,
        consistency: Consistency,
    ) -> Result<Lsn, ApiError> {
        let (reply, answer) = oneshot::channel();
        let held = Held { reply: Some(reply), ..Held::default() };
        match consistency {
            Consistency::Crash => self.take(MarkerKind::User, name, held).await?,
            Consistency::FileSystem => {
                self.frozen(MarkerKind::FileSystemConsistent, name, held).await?;
            }
            Consistency::Application => {
                let dir = &self.settings.hooks_dir;
                let mut hooks =
                    Hooks::find(dir, &name, self.settings.hook_max).map_err(PointError::from)?;
                let made = match hooks.pre().await {
                    Ok(()) => self.frozen(MarkerKind::ApplicationConsistent, name, held).await,
                    Err(error) => Err(error.into()),
                };
                // Whatever came of it. A hook that fails here spoils nothing that is in the log.
                let _told = hooks.post().await;
                made?;
            }
        }
        answer.await.map_err(|_| PointError::NotRunning)?
    }

    /// Takes the moment of a marker.
    async fn take(&self, kind: MarkerKind, name: String, held: Held) -> Result<(), PointError> {
        let (taken, moment) = oneshot::channel();
        let mark = Command::Mark { kind, name: Some(name), held, taken };
        self.commands.send(mark).await.map_err(|_| PointError::NotRunning)?;
        moment.await.map_err(|_| PointError::NotRunning)
    }

    /// The same while the file systems are frozen; they stay so.
    async fn frozen_moment(
        &self,
        kind: MarkerKind,
        name: String,
        held: Held,
    ) -> Result<(Frozen, Asking), PointError> {
        let (disks, settings) = (self.disks.clone(), self.settings.clone());
        let frozen = tokio::task::spawn_blocking(move || {
            let mounts = freeze::mounts_of(&disks)?;
            freeze::freeze(&settings.guard, mounts, settings.frozen_max)
        });
        let frozen = frozen.await.map_err(|_| PointError::Thawed)??;
        let (asking, verdict) = Verdict::open();
        self.take(kind, name, Held { verdict: Some(verdict), ..held }).await?;
        Ok((frozen, asking))
    }

    /// The first half of a point of several machines: its moment was taken, everything is frozen,
    /// and the log waits for the verdict.
    pub(crate) async fn hold(
        &self,
        name: String,
        consistency: Consistency,
        group: GroupPointId,
    ) -> Result<Moment, ApiError> {
        let (reply, answer) = oneshot::channel();
        let held = Held { reply: Some(reply), group: Some(group), ..Held::default() };
        let mut hooks = None;
        let kind = match consistency {
            Consistency::Application => {
                let limit = self.settings.hook_max;
                let found = Hooks::find(&self.settings.hooks_dir, &name, limit);
                let found = hooks.insert(found.map_err(PointError::from)?);
                if let Err(error) = found.pre().await {
                    self.give_up(hooks).await;
                    return Err(PointError::from(error).into());
                }
                MarkerKind::ApplicationConsistent
            }
            Consistency::Crash | Consistency::FileSystem => MarkerKind::FileSystemConsistent,
        };
        match self.frozen_moment(kind, name, held).await {
            Ok((frozen, asking)) => Ok(Moment { frozen, hooks, asking, answer }),
            Err(error) => {
                self.give_up(hooks).await;
                Err(error.into())
            }
        }
    }

    /// Every hook that was called before is called after.
    async fn give_up(&self, hooks: Option<Hooks>) {
        if let Some(hooks) = hooks {
            let _told = hooks.post().await;
        }
    }

    /// A frozen point of this machine alone.
    async fn frozen(&self, kind: MarkerKind, name: String, held: Held) -> Result<(), PointError> {
        let (mut frozen, asking) = self.frozen_moment(kind, name, held).await?;
        let done = tokio::task::spawn_blocking(move || {
            // Asked after the moment: what was frozen still now was frozen then (trap T-19).
            let still = frozen.still();
            if still {
                asking.good();
            } else {
                drop(asking);
            }
            (still, frozen.thaw())
        });
        match done.await {
            Ok((true, frozen_for)) => {
                tracing::info!(?frozen_for, "a point was taken while file systems were frozen");
                Ok(())
            }
            Ok((false, _)) | Err(_) => Err(PointError::Thawed),
        }
    }
}
