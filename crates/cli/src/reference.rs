//! The reference of the command line, made from its definition: `docs/operate/cli.md` is this,
//! checked by a test.

use crate::args::Cli;
use crate::exit::Status;
use clap::{Command, CommandFactory as _};
use std::fmt::Write as _;

/// Width of the help texts, so that the reference does not depend on a terminal.
const WIDTH: usize = 100;

/// The whole reference in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(HEAD);
    for (status, meaning) in Status::ALL {
        let _ = writeln!(text, "| {} | {meaning} |", status as u8);
    }
    let mut command = Cli::command().term_width(WIDTH);
    command.build();
    section(&mut text, &mut command, 2);
    text
}

const HEAD: &str = "\
# Command line

This file is made from the program; to write it anew:
`UPDATE=1 cargo nextest run -p landfall-cli reference`.

Every command works unattended: none asks a question. Results go to standard output, as a table or
with `--output json` as one JSON value (the resources of the REST API). Progress and errors go to
standard error; an error has a code (a page each in `docs/errors/`), a cause and a cure.

| exit status | meaning |
|---|---|
";

fn section(text: &mut String, command: &mut Command, level: usize) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    let help = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let _ = write!(text, "\n{} {name}\n\n```text\n{}\n```\n", "#".repeat(level), help.trim_end());
    for inner in command.get_subcommands_mut() {
        if !inner.is_hide_set() && inner.get_name() != "help" {
            section(text, inner, 3);
        }
    }
}
