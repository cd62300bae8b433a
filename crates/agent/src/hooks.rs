//! Programs of the administrator's that bring applications into a state worth a recovery point.
//!
//! Every executable file of the folder is called twice, in the order of the names: with `pre`
//! before the file systems are frozen, and with `post`, in the reverse order, after they were
//! thawed. A hook whose `pre` was called is called with `post` whatever happened in between.

use landfall_types::Class;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::Command;

/// Why a hook is not content.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The folder can't be read.
    #[error("read the folder of hooks {}", dir.display())]
    Folder {
        /// Which.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It can't be started.
    #[error("start the hook {}", hook.display())]
    Start {
        /// Which.
        hook: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says no.
    #[error("the hook {} ended with {status}", hook.display())]
    Failed {
        /// Which.
        hook: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// It took too long, and was killed with all that it had started.
    #[error("the hook {} had not ended after {limit_ms} ms", hook.display())]
    Slow {
        /// Which.
        hook: PathBuf,
        /// Its limit.
        limit_ms: u64,
    },
}

impl HookError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Folder { .. } | Self::Start { .. } => Class::Permanent,
            Self::Failed { .. } | Self::Slow { .. } => Class::Transient,
        }
    }
}

/// The hooks of one point.
pub(crate) struct Hooks {
    files: Vec<PathBuf>,
    /// How many were called with `pre`.
    called: usize,
    point: String,
    limit: Duration,
}

impl Hooks {
    /// Of this folder, none where there is no such folder; `limit` for each call.
    pub(crate) fn find(dir: &Path, point: &str, limit: Duration) -> Result<Self, HookError> {
        let failed = |source| HookError::Folder { dir: dir.to_owned(), source };
        let mut files = Vec::new();
        match fs::read_dir(dir) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry.map_err(failed)?.path();
                    let metadata = fs::metadata(&path).map_err(failed)?;
                    if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
                        files.push(path);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        files.sort();
        Ok(Self { files, called: 0, point: point.to_owned(), limit })
    }

    /// Calls them with `pre`, until one fails.
    pub(crate) async fn pre(&mut self) -> Result<(), HookError> {
        while let Some(hook) = self.files.get(self.called) {
            // Counted before: one that failed half-way has something to undo, too.
            self.called += 1;
            self.call(hook, "pre").await?;
        }
        Ok(())
    }

    /// Calls those that were called before with `post`; all of them, whatever they answer.
    pub(crate) async fn post(self) -> Result<(), HookError> {
        let mut result = Ok(());
        for hook in self.files[..self.called].iter().rev() {
            if let Err(error) = self.call(hook, "post").await {
                tracing::warn!(%error, "after a recovery point");
                result = Err(error);
            }
        }
        result
    }

    async fn call(&self, hook: &Path, phase: &str) -> Result<(), HookError> {
        let child = Command::new(hook)
            .arg(phase)
            .env("LANDFALL_POINT", &self.point)
            .env("LANDFALL_HOOK_LIMIT_MS", self.limit.as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Of its own group, so that what it started can be ended with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let started = |source| HookError::Start { hook: hook.to_owned(), source };
        let mut child = child.map_err(started)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        match tokio::time::timeout(self.limit, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(HookError::Failed { hook: hook.to_owned(), status }),
            Ok(Err(source)) => Err(started(source)),
            Err(_) => {
                if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
                    let kill = rustix::process::Signal::KILL;
                    let _gone = rustix::process::kill_process_group(group, kill);
                }
                let _status = child.wait().await;
                let limit_ms = u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX);
                Err(HookError::Slow { hook: hook.to_owned(), limit_ms })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(dir: &Path, name: &str, script: &str) {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("is ours");
    }

    /// Ample for what is quick, however busy the machine is.
    const AMPLE: Duration = Duration::from_secs(60);

    async fn pre_and_post(dir: &Path, limit: Duration) -> (Result<(), HookError>, String) {
        let mut hooks = Hooks::find(&dir.join("hooks"), "a point", limit).expect("readable");
        let pre = hooks.pre().await;
        let _failed = hooks.post().await;
        (pre, fs::read_to_string(dir.join("calls")).unwrap_or_default())
    }

    #[tokio::test]
    async fn hooks_are_called_in_order_and_back_also_after_a_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        let hooks = dir.path().join("hooks");
        let calls = dir.path().join("calls").display().to_string();
        let (result, called) = pre_and_post(dir.path(), AMPLE).await;
        assert!(result.is_ok() && called.is_empty(), "no folder, no hooks");
        fs::create_dir(&hooks).expect("a directory");
        for name in ["10-a", "20-b", "30-c"] {
            hook(&hooks, name, &format!("echo {name} $1 \"$LANDFALL_POINT\" >> {calls}"));
        }
        fs::write(hooks.join("README"), "not executable").expect("writes");
        let (result, called) = pre_and_post(dir.path(), AMPLE).await;
        assert!(result.is_ok());
        let lines: Vec<&str> = called.lines().collect();
        assert_eq!(lines[..3], ["10-a pre a point", "20-b pre a point", "30-c pre a point"]);
        assert_eq!(lines[3..], ["30-c post a point", "20-b post a point", "10-a post a point"]);
        fs::remove_file(&calls).expect("was written");
        hook(&hooks, "20-b", &format!("echo 20-b $1 >> {calls}; test $1 = post"));
        let (result, called) = pre_and_post(dir.path(), AMPLE).await;
        assert!(matches!(result, Err(HookError::Failed { .. })), "{result:?}");
        assert_eq!(called, "10-a pre a point\n20-b pre\n20-b post\n10-a post a point\n");
    }

    #[tokio::test]
    async fn a_slow_hook_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let hooks = dir.path().join("hooks");
        fs::create_dir(&hooks).expect("a directory");
        let pid = dir.path().join("pid");
        hook(&hooks, "10", &format!("sleep 600 & echo $! > {}; wait", pid.display()));
        let (result, _) = pre_and_post(dir.path(), Duration::from_millis(1500)).await;
        assert!(matches!(result, Err(HookError::Slow { limit_ms: 1500, .. })), "{result:?}");
        let pid = fs::read_to_string(pid).expect("was written");
        let gone = || {
            let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            state.map_or(true, |state| state.contains(") Z "))
        };
        // Killed, it ends when it is its turn.
        let begun = std::time::Instant::now();
        while !gone() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the sleeper is gone");
            std::thread::yield_now();
        }
    }
}
