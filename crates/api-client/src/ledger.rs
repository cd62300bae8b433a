use landfall_api_types::node::OrderResult;
use landfall_types::{Class, OrderId};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// How many results a node remembers. The server has at most a few orders per machine under way,
/// and forgets an order when it has its result; a thousand machines on one node still fit.
pub const LEDGER_RESULTS_MAX: usize = 4096;

/// Why results can't be remembered.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file can't be read or written.
    #[error("{operation} {}", path.display())]
    File {
        /// Verb.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is not a ledger of orders", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl LedgerError {
    /// What it asks of whoever handles it.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::File { .. } => Class::Transient,
            Self::Damaged { .. } => Class::Corrupt,
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    id: OrderId,
    result: OrderResult,
}

/// Results of the last orders, kept durably: a repeated order is answered with its result. One JSON
/// object per line (`orders.jsonl`), appended and synced before the result is sent.
pub struct OrderLedger {
    path: PathBuf,
    entries: VecDeque<Entry>,
    file: fs::File,
    /// Lines in the file; it is rewritten when they are twice what is remembered.
    lines: usize,
}

impl OrderLedger {
    /// Opens the ledger in a node's state directory.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join("orders.jsonl");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(LedgerError::File { operation: "read", path, source }),
        };
        let mut entries = VecDeque::new();
        // A crash can tear only the last line. Its result was never sent, so the order simply comes
        // again.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let entry = serde_json::from_str(line)
                .map_err(|source| LedgerError::Damaged { path: path.clone(), source })?;
            entries.push_back(entry);
            if entries.len() > LEDGER_RESULTS_MAX {
                entries.pop_front();
            }
        }
        // Rewritten at each start: a torn line must not have the next one appended to it.
        let file = rewrite(&path, &entries)?;
        Ok(Self { path, lines: entries.len(), entries, file })
    }

    /// The result of an order that was carried out before.
    #[must_use]
    pub fn find(&self, id: OrderId) -> Option<&OrderResult> {
        self.entries.iter().rev().find(|entry| entry.id == id).map(|entry| &entry.result)
    }

    /// Remembers a result; when this returns, a restart still knows it.
    ///
    /// # Errors
    /// [`LedgerError`]; the result must not be sent then.
    pub fn remember(&mut self, id: OrderId, result: OrderResult) -> Result<(), LedgerError> {
        let entry = Entry { id, result };
        let mut line = serde_json::to_vec(&entry)
            .map_err(|source| LedgerError::Damaged { path: self.path.clone(), source })?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(|source| LedgerError::File {
            operation: "append to",
            path: self.path.clone(),
            source,
        })?;
        self.lines += 1;
        self.entries.push_back(entry);
        if self.entries.len() > LEDGER_RESULTS_MAX {
            self.entries.pop_front();
        }
        if self.lines >= 2 * LEDGER_RESULTS_MAX {
            self.file = rewrite(&self.path, &self.entries)?;
            self.lines = self.entries.len();
        }
        Ok(())
    }
}

/// Replaces the file as a whole and opens it for appending.
fn rewrite(path: &Path, entries: &VecDeque<Entry>) -> Result<fs::File, LedgerError> {
    let failed =
        |operation| move |source| LedgerError::File { operation, path: path.to_owned(), source };
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)
            .map_err(|source| LedgerError::Damaged { path: path.to_owned(), source })?;
        text.push(b'\n');
    }
    let partial = path.with_extension("partial");
    let mut file = fs::File::create(&partial).map_err(failed("create"))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    fs::rename(&partial, path).map_err(failed("rename to"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|dir| dir.sync_all()).map_err(failed("sync the folder of"))?;
    // The handle still names the renamed file, positioned at its end.
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_api_types::order::OrderOutcome;

    fn drained(bytes: u64) -> OrderResult {
        OrderResult::Done(OrderOutcome::Drained { bytes, records: 0, age_s: 0.5 })
    }

    #[test]
    fn results_survive_a_restart_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (first, second) = (OrderId::generate(), OrderId::generate());
        let mut ledger = OrderLedger::open(dir.path()).expect("open");
        ledger.remember(first, drained(1)).expect("remember");
        drop(ledger);
        let path = dir.path().join("orders.jsonl");
        let mut text = fs::read(&path).expect("read");
        let whole = text.len();
        text.extend_from_within(..whole / 2);
        fs::write(&path, &text).expect("tear");
        let mut ledger = OrderLedger::open(dir.path()).expect("open");
        assert_eq!(ledger.find(first), Some(&drained(1)));
        ledger.remember(second, drained(2)).expect("remember");
        drop(ledger);
        let ledger = OrderLedger::open(dir.path()).expect("open");
        assert_eq!(
            (ledger.find(first), ledger.find(second)),
            (Some(&drained(1)), Some(&drained(2)))
        );
        assert_eq!(ledger.find(OrderId::generate()), None);
    }

    #[test]
    fn the_oldest_results_are_forgotten_at_the_limit() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut ledger = OrderLedger::open(dir.path()).expect("open");
        let ids: Vec<_> = (0..=LEDGER_RESULTS_MAX).map(|_| OrderId::generate()).collect();
        for id in &ids {
            ledger.entries.push_back(Entry { id: *id, result: drained(0) });
        }
        ledger.entries.pop_front();
        assert_eq!(ledger.find(ids[0]), None);
        ledger.remember(OrderId::generate(), drained(0)).expect("remember");
        assert_eq!(ledger.entries.len(), LEDGER_RESULTS_MAX);
        assert_eq!(ledger.find(ids[1]), None);
        assert!(ledger.find(ids[2]).is_some());
    }

    #[test]
    fn a_damaged_ledger_is_named_instead_of_forgotten() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join("orders.jsonl"), "not json\n").expect("write");
        let error = OrderLedger::open(dir.path()).err().expect("refused");
        assert_eq!(error.class(), Class::Corrupt);
    }
}
