//! A program that wraps and unwraps data keys: the hook for a KMS. One request and one answer, both
//! JSON, on its standard input and output (`docs/operate/keys.md`).

use crate::{KEY_BYTES, KeyError, Secret};
use serde::{Deserialize, Serialize};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a command may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

#[derive(Serialize)]
struct Request<'a> {
    version: u32,
    operation: &'a str,
    context: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrapped: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data_key: Option<String>,
    #[serde(default)]
    wrapped: Option<String>,
}

/// Wraps a data key; what comes back is any text.
pub(crate) fn wrap(
    name: &str,
    words: &[String],
    context: &str,
    secret: &Secret,
) -> Result<Vec<u8>, KeyError> {
    let data_key = hex(secret);
    let request = Request {
        version: 1,
        operation: "wrap",
        context,
        data_key: Some(&data_key),
        wrapped: None,
    };
    let answer = ask(name, words, &request, TIMEOUT)?;
    answer.wrapped.map(String::into_bytes).ok_or_else(|| failed(name, "no `wrapped` in its answer"))
}

/// Unwraps a data key.
pub(crate) fn unwrap(
    name: &str,
    words: &[String],
    context: &str,
    wrapped: &[u8],
) -> Result<Secret, KeyError> {
    // A command has made it: text.
    let wrapped =
        std::str::from_utf8(wrapped).map_err(|_| KeyError::Wrong { name: name.to_owned() })?;
    let request = Request {
        version: 1,
        operation: "unwrap",
        context,
        data_key: None,
        wrapped: Some(wrapped),
    };
    let answer = ask(name, words, &request, TIMEOUT)?;
    let text = answer.data_key.map(Zeroizing::new);
    let text = text.ok_or_else(|| failed(name, "no `data_key` in its answer"))?;
    let whole = text.len() == 2 * KEY_BYTES;
    let secret = whole.then(|| Secret::parse(text.as_bytes())).flatten();
    secret.ok_or_else(|| KeyError::Malformed { name: name.to_owned() })
}

fn failed(name: &str, what: impl Into<String>) -> KeyError {
    KeyError::Command { name: name.to_owned(), what: what.into() }
}

fn hex(secret: &Secret) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES));
    for byte in secret.expose() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).expect("four bits are a digit"));
        }
    }
    text
}

fn ask(
    name: &str,
    words: &[String],
    request: &Request<'_>,
    timeout: Duration,
) -> Result<Answer, KeyError> {
    let text = serde_json::to_vec(request).map_err(|error| failed(name, error.to_string()))?;
    let text = Zeroizing::new(text);
    let (program, arguments) = words.split_first().ok_or_else(|| failed(name, "no program"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(name, format!("can't be started: {error}")))?;
    let talked = talk(&mut child, text, timeout);
    if talked.is_none() {
        // It has had its time. An error means that it has ended by itself meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(name, error.to_string()))?;
    let Some((answer, complaint)) = talked else {
        return Err(failed(name, format!("no answer in {} s", timeout.as_secs())));
    };
    if !status.success() {
        return Err(failed(name, format!("{status}: {complaint}")));
    }
    serde_json::from_slice(&answer).map_err(|error| failed(name, format!("its answer: {error}")))
}

/// Both pipes are read by threads of their own, so that a program that says much before it reads
/// can't lock us up. `None` when it has not closed its output in time.
fn talk(
    child: &mut Child,
    request: Zeroizing<Vec<u8>>,
    timeout: Duration,
) -> Option<(Zeroizing<Vec<u8>>, String)> {
    let (mut stdin, stdout, stderr) =
        (child.stdin.take()?, child.stdout.take()?, child.stderr.take()?);
    let (answer_out, answer_in) = mpsc::channel();
    std::thread::spawn(move || {
        // A program that does not read its request answers nothing of use either: that is found.
        let _ = stdin.write_all(&request);
        drop(stdin);
    });
    std::thread::spawn(move || {
        let mut answer = Zeroizing::new(Vec::new());
        let read = stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
        let _ = answer_out.send(read.map(|_| answer));
    });
    let (complaint_out, complaint_in) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.take(ANSWER_BYTES_MAX).read_to_end(&mut text);
        let _ = complaint_out.send(String::from_utf8_lossy(&text).trim().to_owned());
    });
    let answer = answer_in.recv_timeout(timeout).ok()?.ok()?;
    let complaint = complaint_in.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    Some((answer, complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_never_answers_is_ended() {
        let request = Request {
            version: 1,
            operation: "wrap",
            context: "replica-1",
            data_key: None,
            wrapped: None,
        };
        let words: Vec<String> = ["/bin/sleep", "1000"].map(str::to_owned).into();
        let Err(error) = ask("command:x", &words, &request, Duration::from_millis(50)) else {
            panic!("sleep has no answer");
        };
        assert!(error.to_string().contains("no answer"), "{error}");
    }
}
