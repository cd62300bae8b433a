//! Wraps comments that are wider than 100 columns (rustfmt can't, on stable Rust).
//!
//! Only the wide line and the plain text that follows it in the same paragraph move. Tables, code
//! blocks, headings and links stay as they are.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process;

const COLUMNS_MAX: usize = 100;

/// Rewrites the Rust and C files at or below `paths`.
///
/// # Errors
/// When a file can't be read or written.
pub(crate) fn run(paths: &[String]) -> Result<()> {
    for path in paths {
        wrap_at(&process::root().join(path))?;
    }
    Ok(())
}

fn wrap_at(path: &Path) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("list {path:?}"))? {
            wrap_at(&entry?.path())?;
        }
        return Ok(());
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    if !matches!(extension, Some("rs" | "c" | "h")) {
        return Ok(());
    }
    let text = fs::read_to_string(path).with_context(|| format!("read {path:?}"))?;
    let wrapped = wrap(&text);
    if wrapped != text {
        println!("{}", path.display());
        fs::write(path, wrapped).with_context(|| format!("write {path:?}"))?;
    }
    Ok(())
}

/// A line that is only a comment: what stands before its text, and the text.
fn comment(line: &str) -> Option<(&str, &str)> {
    let body = line.trim_start();
    let indent = line.len() - body.len();
    let marks = ["//!", "///", "//", "*"];
    let mark = marks.into_iter().find(|mark| body.starts_with(mark))?;
    if body.starts_with("*/") || body.starts_with("////") {
        return None;
    }
    Some((&line[..indent + mark.len()], body[mark.len()..].strip_prefix(' ').unwrap_or("")))
}

/// The width of a list item's mark, with the blanks before it: what follows is indented by it.
fn hang(text: &str) -> usize {
    let body = text.trim_start();
    let indent = text.len() - body.len();
    let digits = body.bytes().take_while(u8::is_ascii_digit).count();
    let is_bullet = body.starts_with("* ") || body.starts_with("- ");
    let is_number = digits > 0 && body[digits..].starts_with(". ");
    match (is_bullet, is_number) {
        (true, _) => indent + 2,
        (_, true) => indent + digits + 2,
        _ => indent,
    }
}

/// True when `text` goes on with the paragraph above whose lines are indented by `hang`.
fn continues(text: &str, hanging: usize) -> bool {
    let body = text.trim_start();
    let indent = text.len() - body.len();
    let begins_something = hang(text) != indent
        || body.starts_with(['|', '#', '`', '<', '['])
        || body.starts_with("SAFETY");
    !body.is_empty() && indent == hanging && !begins_something
}

fn wrap(text: &str) -> String {
    let mut out = Vec::new();
    let mut lines: Vec<String> = text.lines().rev().map(str::to_owned).collect();
    let mut in_code = false;
    while let Some(line) = lines.pop() {
        let Some((mark, body)) = comment(&line) else {
            out.push(line);
            continue;
        };
        in_code ^= body.trim_start().starts_with("```");
        let is_fixed = in_code || body.trim_start().starts_with('|') || body.contains("https://");
        let Some(at) = break_point(&line).filter(|_| !is_fixed) else {
            out.push(line);
            continue;
        };
        let hanging = hang(body);
        let mut rest = line[at..].trim_start().to_owned();
        // The rest begins the next line of the paragraph, so that no stump of a line is left.
        let next = lines.last().and_then(|next| comment(next));
        let joined = next.filter(|(m, text)| *m == mark && continues(text, hanging));
        if let Some((_, text)) = joined {
            rest = format!("{rest} {}", text.trim_start());
            lines.pop();
        }
        lines.push(format!("{mark} {}{rest}", " ".repeat(hanging)));
        out.push(line[..at].trim_end().to_owned());
    }
    out.join("\n") + if text.ends_with('\n') { "\n" } else { "" }
}

/// The byte at which to break a line that is too wide: the last blank within the width, behind the
/// first word.
fn break_point(line: &str) -> Option<usize> {
    if line.chars().count() <= COLUMNS_MAX {
        return None;
    }
    let (mark, body) = comment(line)?;
    let first_word = body[hang(body)..].find(' ')?;
    let least = line.len() - body.len() + hang(body) + first_word;
    debug_assert!(least >= mark.len());
    let width = line.char_indices().nth(COLUMNS_MAX + 1).map_or(line.len(), |(at, _)| at);
    line[..width].rfind(' ').filter(|at| *at >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(count: usize) -> String {
        vec!["word"; count].join(" ")
    }

    #[test]
    fn a_wide_paragraph_flows_and_the_next_one_stays() {
        let text =
            format!("    /// {}\n    /// tail.\n    ///\n    /// next\nfn f() {{}}\n", words(30));
        let wrapped = wrap(&text);
        assert!(wrapped.lines().all(|line| line.len() <= 100), "{wrapped}");
        assert!(wrapped.ends_with("word tail.\n    ///\n    /// next\nfn f() {}\n"), "{wrapped}");
        assert_eq!(wrap(&wrapped), wrapped, "wrapping twice changes nothing");
    }

    #[test]
    fn list_items_hang_and_do_not_swallow_each_other() {
        let text = format!("//! * {}\n//! * other\n//! 1. {}\n", words(25), words(25));
        let wrapped = wrap(&text);
        assert!(wrapped.contains("\n//!   word"), "{wrapped}");
        assert!(wrapped.contains("\n//! * other\n//! 1. word"), "{wrapped}");
        assert!(wrapped.contains("\n//!    word"), "{wrapped}");
    }

    #[test]
    fn code_tables_and_code_blocks_stay() {
        let long = words(30);
        for line in [format!("let x = \"{long}\";"), format!("/// | {long} |")] {
            assert_eq!(wrap(&line), line);
        }
        let block = format!("/// ```text\n/// {long}\n/// ```\n");
        assert_eq!(wrap(&block), block);
        assert_eq!(wrap(&format!("/// {}", "x".repeat(120))).lines().count(), 1);
    }
}
