//! The process of QEMU: starts, ends, and never outlives the test.

use std::fs::File;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::GuestError;
use crate::error::io_error;

/// A running QEMU; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    handle: rustix::fd::OwnedFd,
    messages: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to a file in `directory`.
    pub(crate) fn start(mut command: Command, directory: &Path) -> Result<Self, GuestError> {
        let messages = directory.join("qemu.log");
        let log = File::create(&messages).map_err(io_error("create", &messages))?;
        let second = log.try_clone().map_err(io_error("open", &messages))?;
        command.stdin(Stdio::null()).stdout(log).stderr(second);
        let program = command.get_program().to_owned();
        let child = command.spawn().map_err(io_error("start", program))?;
        let pid = Pid::from_child(&child);
        let handle = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| io_error("watch", "QEMU")(error.into()))?;
        Ok(Self { child, handle, messages })
    }

    /// What QEMU printed.
    pub(crate) fn messages(&self) -> String {
        crate::console::tail(&self.messages)
    }

    /// Accepts QEMU's connection; `None` when it ends first or the limit is over.
    pub(crate) fn accept(
        &self,
        listener: &UnixListener,
        limit: Duration,
    ) -> io::Result<Option<UnixStream>> {
        let mut fds =
            [PollFd::new(listener, PollFlags::IN), PollFd::new(&self.handle, PollFlags::IN)];
        wait(&mut fds, limit)?;
        if fds[0].revents().contains(PollFlags::IN) {
            return listener.accept().map(|(stream, _)| Some(stream));
        }
        Ok(None)
    }

    /// Waits for QEMU's own end; false when the limit is over first.
    pub(crate) fn wait_end(&mut self, limit: Duration) -> bool {
        let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
        let ended = wait(&mut fds, limit).is_ok_and(|ready| ready > 0);
        ended && self.child.wait().is_ok()
    }

    /// As if the power were cut: no signal handler of QEMU runs.
    pub(crate) fn kill(&mut self) {
        // Already ended is fine, and there is nothing else that could fail.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn wait(fds: &mut [PollFd<'_>], limit: Duration) -> io::Result<usize> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}
