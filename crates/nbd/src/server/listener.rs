use super::Server;
use super::accept::{Socket, accept};
use landfall_types::Class;
use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixSocket};
use tokio::task::JoinHandle;

/// Connections that the kernel holds for us before we accept them.
const BACKLOG: u32 = 128;

/// Why a socket can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error("{0} is in use: a server answers on it")]
    InUse(PathBuf),
    /// Something that is no socket has that name; it is not touched.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// Without TLS only this machine may connect.
    #[error("{0} is no loopback address: disks are served there with TLS only")]
    Exposed(SocketAddr),
    /// A TCP address can't be listened on.
    #[error("listen on {address}")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A step failed.
    #[error("{step} {path}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ListenError {
    /// An operator must free the path or address, or mend the directory.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Permanent
    }
}

/// A socket that a [`Server`] listens on; listening ends, and the socket file goes, when this is
/// dropped.
///
/// Connections that were accepted go on: [`Server::disconnect`] and [`Server::shutdown`] end those.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    /// Device and inode of the socket file: one that someone else put there meanwhile is not
    /// removed.
    identity: (u64, u64),
    accepting: JoinHandle<()>,
    /// Held as long as the socket is ours.
    _lock: File,
}

impl Listener {
    pub(super) fn bind(server: Server, path: &Path) -> Result<Self, ListenError> {
        let lock = lock(path)?;
        remove_stale(path)?;
        let (listener, identity) = bind(path)?;
        let accepting = tokio::spawn(accept(server, Socket::Unix(listener), None));
        Ok(Self { path: path.to_owned(), identity, accepting, _lock: lock })
    }

    /// Where clients connect.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Failing leaves a stale file, which the next server replaces.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Holds `PATH.lock`: without it two servers that start at once could both find a stale socket, and
/// the second would remove the socket that the first has just made.
fn lock(path: &Path) -> Result<File, ListenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let failed = |source| ListenError::Io { step: "create", path: lock_path.clone(), source };
    let file = File::create(&lock_path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ListenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => {
            Err(ListenError::Io { step: "lock", path: lock_path, source })
        }
    }
}

/// Removes a socket file on which nobody answers.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |step| move |source| ListenError::Io { step, path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("inspect")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("remove the stale socket"))
        }
        // It answers, or something else (a full backlog, no permission) says that it may.
        Ok(_) | Err(_) => Err(ListenError::InUse(path.to_owned())),
    }
}

fn bind(path: &Path) -> Result<(UnixListener, (u64, u64)), ListenError> {
    let failed = |step| move |source| ListenError::Io { step, path: path.to_owned(), source };
    let socket = UnixSocket::new_stream().map_err(failed("make a socket for"))?;
    socket.bind(path).map_err(failed("bind"))?;
    // Before listening: until then nobody can connect, so nobody gets in through the mode that the
    // umask left.
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).map_err(failed("set the mode of"))?;
    let identity = identity(path).map_err(failed("inspect"))?;
    let listener = socket.listen(BACKLOG).map_err(failed("listen on"))?;
    Ok((listener, identity))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
