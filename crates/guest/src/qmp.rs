//! QEMU's own control channel: hot-plug and reset.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::GuestError;
use crate::error::io_error;

/// QEMU answers at once; only a hung one does not.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection in command mode.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes the greeting and leaves negotiation.
    pub(crate) fn new(stream: UnixStream) -> Result<Self, GuestError> {
        stream.set_read_timeout(Some(LIMIT)).map_err(io_error("configure", "QMP"))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        let greeting = qmp.message()?;
        if greeting.get("QMP").is_none() {
            return Err(GuestError::Protocol(greeting.to_string()));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command; events that come before its answer are dropped.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, GuestError> {
        let request = json!({ "execute": command, "arguments": arguments });
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes()).map_err(io_error("write to", "QMP"))?;
        loop {
            let mut message = self.message()?;
            if let Some(error) = message.get("error") {
                let message = error["desc"].as_str().unwrap_or_default().to_owned();
                return Err(GuestError::Qmp { command: command.to_owned(), message });
            }
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// Waits for an event of this name about the device `id`.
    pub(crate) fn wait_event(&mut self, event: &str, id: &str) -> Result<(), GuestError> {
        loop {
            let message = self.message()?;
            if message["event"] == event && message["data"]["device"] == id {
                return Ok(());
            }
        }
    }

    fn message(&mut self) -> Result<Value, GuestError> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(io_error("read from", "QMP"))?;
        serde_json::from_str(&line).map_err(|_| GuestError::Protocol(line))
    }
}
