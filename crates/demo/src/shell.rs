//! Programs that the demo calls: one place that runs them and says what went wrong.

use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

/// Runs a program to its end and gives what it printed; its exit status is the caller's to judge.
///
/// # Errors
/// When it can't be started.
pub(crate) fn output<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Output> {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}: is it installed?"))
}

/// Runs a program that must succeed and gives its standard output, trimmed.
///
/// # Errors
/// When it can't be started or ends with another status than 0; with what it said.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String> {
    let output = output(program, args)?;
    if !output.status.success() {
        bail!("{} ended with {}: {}", line(program, args), output.status, said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as a person would type it.
pub(crate) fn line<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
    let mut line = program.to_owned();
    for arg in args {
        line.push(' ');
        line.push_str(&arg.as_ref().to_string_lossy());
    }
    line
}

/// Everything that a program printed, on one line.
pub(crate) fn said(output: &Output) -> String {
    let all = [&output.stdout[..], b"\n", &output.stderr[..]].concat();
    let all = String::from_utf8_lossy(&all);
    all.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_an_error_with_what_it_said() {
        let error = run("sh", &["-c", "echo why; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("why"), "{error}");
        assert!(run("no-such-program-anywhere", &["x"]).is_err());
        assert_eq!(run("echo", &["two words"]).unwrap(), "two words");
    }
}
