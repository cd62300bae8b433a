//! The pages of `docs/errors/`, one per stable error code: the head comes from the registry, the
//! rest is written by hand.

use std::fs;

use anyhow::{Context, Result};

use crate::process;

/// Where the codes are defined.
pub(crate) const REGISTRY: &str = "crates/api-types/src/codes.rs";
/// The page that lists the others.
pub(crate) const INDEX: &str = "docs/errors/README.md";

/// A line of the registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) name: String,
    meaning: String,
    status: String,
    class: String,
    cure: String,
}

impl Code {
    /// The generated head of the code's page.
    pub(crate) fn head(&self) -> String {
        format!(
            "# {}\n\n{}\n\n| HTTP status | class |\n|---|---|\n| {} | {} |\n\n**Cure:** {}.\n",
            self.name, self.meaning, self.status, self.class, self.cure
        )
    }
}

/// The path of a code's page.
pub(crate) fn page_path(code: &str) -> String {
    format!("docs/errors/{code}.md")
}

/// Reads the registry's lines: `NAME = "code", status, Class, "cure";` below a doc comment.
pub(crate) fn parse(registry: &str) -> Vec<Code> {
    let mut meaning = String::new();
    let mut codes = Vec::new();
    for line in registry.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            meaning = if meaning.is_empty() { text.into() } else { format!("{meaning} {text}") };
            continue;
        }
        if let Some(code) = parse_line(line, &meaning) {
            codes.push(code);
        }
        meaning.clear();
    }
    codes
}

fn parse_line(line: &str, meaning: &str) -> Option<Code> {
    let (_, rest) = line.split_once(" = \"")?;
    let (name, rest) = rest.split_once("\", ")?;
    let (status, rest) = rest.split_once(", ")?;
    let (class, rest) = rest.split_once(", \"")?;
    let cure = rest.strip_suffix("\";")?.replace("\\\"", "\"");
    let text = str::to_owned;
    status.parse::<u16>().ok()?;
    Some(Code {
        name: text(name),
        meaning: text(meaning),
        status: text(status),
        class: text(class),
        cure,
    })
}

/// Writes the head of every page, keeps what follows it, and writes the list.
///
/// # Errors
/// When a file can't be read or written.
pub(crate) fn run() -> Result<()> {
    let root = process::root();
    let registry = fs::read_to_string(root.join(REGISTRY)).context("read the registry")?;
    fs::create_dir_all(root.join("docs/errors"))?;
    let mut index = String::from(
        "# Error codes\n\n\
         Every refusal and failure that the API, the command line or a log reports carries one of\n\
         these codes. They never change their meaning. Written by `cargo xtask errors`.\n\n\
         | code | meaning |\n|---|---|\n",
    );
    for code in parse(&registry) {
        let path = root.join(page_path(&code.name));
        let old = fs::read_to_string(&path).unwrap_or_default();
        // The hand-written part begins with the first heading of the second level.
        let rest = old.find("\n## ").map_or("", |at| &old[at..]);
        fs::write(&path, code.head() + rest)?;
        index += &format!("| [{0}]({0}.md) | {1} |\n", code.name, code.meaning);
    }
    fs::write(root.join(INDEX), index).context("write the list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_registry_is_read_with_its_doc() {
        let codes = parse(
            "/// One\n/// more.\n\
             A = \"a-b\", 409, Permanent, \"say \\\"x\\\", then y\";\n\
             pub struct X;\n",
        );
        assert_eq!(codes.len(), 1);
        assert_eq!(codes[0].name, "a-b");
        assert_eq!(codes[0].meaning, "One more.");
        assert_eq!(codes[0].cure, "say \"x\", then y");
        assert!(codes[0].head().contains("| 409 | Permanent |"));
    }
}
