//! The channel on which a test tells its guest what to do.
//!
//! One line, and bytes whose number the line says:
//!
//! ```text
//!   guest: READY release
//!   test:  RUN length, script
//!   guest: DONE status length, output
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A line of the guest is short; what is longer is garbage.
const LINE_MAX: u64 = 256;
/// More output of one script than this is a mistake in the test.
const OUTPUT_MAX: usize = 256 << 20;

/// What a script printed, on both outputs, and how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Its exit status; 128 and the number of a signal that ended it.
    pub status: i32,
    /// What it printed.
    pub bytes: Vec<u8>,
}

impl Output {
    /// What it printed as text, without the last line feeds.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).trim_end_matches('\n').to_owned()
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The limit is over.
    Late,
    /// The other side is gone.
    Ended,
    /// The guest says that it has started.
    Restarted,
    /// Something else came.
    Garbage(String),
}

/// This side of the channel.
#[derive(Debug)]
pub(crate) struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Waits until the guest is up; gives its kernel's release. Whatever else comes before belongs
    /// to a life of the guest that was cut off.
    pub(crate) fn wait_ready(&mut self, limit: Duration) -> Result<String, NoAnswer> {
        let mut deadline = Deadline::new(limit);
        loop {
            let line = self.line(&mut deadline)?;
            if let Some((_, release)) = line.split_once("READY ") {
                return Ok(release.to_owned());
            }
        }
    }

    /// Sends `script` without waiting for its end.
    pub(crate) fn send(&mut self, script: &str) -> Result<(), NoAnswer> {
        let message = format!("RUN {}\n{script}", script.len());
        self.stream.get_mut().write_all(message.as_bytes()).map_err(|_| NoAnswer::Ended)
    }

    /// Waits for the end of the script that was sent.
    pub(crate) fn answer(&mut self, limit: Duration) -> Result<Output, NoAnswer> {
        let mut deadline = Deadline::new(limit);
        let line = self.line(&mut deadline)?;
        if line.contains("READY ") {
            return Err(NoAnswer::Restarted);
        }
        let mut words = line.split(' ');
        let (verb, status, length) = (words.next(), words.next(), words.next());
        let status = status.and_then(|word| word.parse().ok());
        let length = length.and_then(|word| word.parse().ok()).filter(|&n| n <= OUTPUT_MAX);
        let (Some("DONE"), Some(status), Some(length)) = (verb, status, length) else {
            return Err(NoAnswer::Garbage(line));
        };
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            deadline.arm(self.stream.get_ref())?;
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) => return Err(NoAnswer::Ended),
                Ok(n) => filled += n,
                Err(error) => no_answer(&error)?,
            }
        }
        Ok(Output { status, bytes })
    }

    fn line(&mut self, deadline: &mut Deadline) -> Result<String, NoAnswer> {
        let mut line = Vec::new();
        loop {
            deadline.arm(self.stream.get_ref())?;
            let room = LINE_MAX.saturating_sub(line.len() as u64);
            match (&mut self.stream).take(room).read_until(b'\n', &mut line) {
                Ok(_) if line.last() == Some(&b'\n') => break,
                Ok(0) if room == 0 => {
                    return Err(NoAnswer::Garbage(String::from_utf8_lossy(&line).into_owned()));
                }
                Ok(0) => return Err(NoAnswer::Ended),
                Ok(_) => {}
                Err(error) => no_answer(&error)?,
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

/// A read that was interrupted or ran into its limit is tried again; the deadline ends the loop.
fn no_answer(error: &io::Error) -> Result<(), NoAnswer> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(NoAnswer::Ended),
    }
}

struct Deadline(Instant);

impl Deadline {
    fn new(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// Limits the next read to what is left.
    fn arm(&mut self, stream: &UnixStream) -> Result<(), NoAnswer> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NoAnswer::Late);
        }
        stream.set_read_timeout(Some(left)).map_err(|_| NoAnswer::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Control, UnixStream) {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        (Control::new(here), there)
    }

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_script_and_its_answer() {
        let (mut control, mut guest) = pair();
        guest.write_all(b"rest of an old life\nREADY 6.1.0\n").expect("room");
        assert_eq!(control.wait_ready(LIMIT).expect("ready"), "6.1.0");
        control.send("true\n").expect("room");
        let mut sent = [0; 11];
        guest.read_exact(&mut sent).expect("was sent");
        assert_eq!(&sent, b"RUN 5\ntrue\n");
        guest.write_all(b"DONE 3 6\na\nb\nc\n").expect("room");
        let output = control.answer(LIMIT).expect("answers");
        assert_eq!((output.status, output.text().as_str()), (3, "a\nb\nc"));
    }

    #[test]
    fn what_is_no_answer() {
        let (mut control, mut guest) = pair();
        assert!(matches!(control.answer(Duration::from_millis(10)), Err(NoAnswer::Late)));
        guest.write_all(b"READY 6.1.0\n").expect("room");
        assert!(matches!(control.answer(LIMIT), Err(NoAnswer::Restarted)));
        guest.write_all(b"DONE x y\n").expect("room");
        assert!(matches!(control.answer(LIMIT), Err(NoAnswer::Garbage(_))));
        guest.write_all(&[b'x'; 300]).expect("room");
        assert!(matches!(control.answer(LIMIT), Err(NoAnswer::Garbage(_))));
        drop(guest);
        let mut answer = control.answer(LIMIT);
        while matches!(answer, Err(NoAnswer::Garbage(_))) {
            answer = control.answer(LIMIT);
        }
        assert!(matches!(answer, Err(NoAnswer::Ended)));
    }
}
