//! Requirements (`RQ-…`), traps (`T-…`) and sections of the design that are cited exist, and no
//! page defines one twice.

use std::collections::BTreeSet;

use super::{Finding, Tree};

const RULE: &str = "identifiers";
const REQUIREMENTS: &str = "docs/requirements.md";
const TRAPS: &str = "docs/traps.md";
const DESIGN: &str = "docs/design.md";
// Written in two halves, so that the rule's own text is no citation.
const SECTION: &str = concat!("design sec", "tion ");

/// Checks the citations in all files.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut known = BTreeSet::new();
    for page in [REQUIREMENTS, TRAPS] {
        for (index, line) in tree.text(page).unwrap_or_default().lines().enumerate() {
            let Some(id) = defined(line) else { continue };
            // The second table of the page says for each trap what is carried out.
            let is_again = page == TRAPS && line.starts_with(&format!("| {id} |"));
            if !is_again && !known.insert(id.to_owned()) {
                let what = format!("{id} is defined twice");
                findings.push(finding(page, index + 1, what, "an ID names one thing for ever"));
            }
        }
    }
    findings.extend(check_carried_out(tree));
    let sections: BTreeSet<&str> =
        tree.text(DESIGN).unwrap_or_default().lines().filter_map(section_heading).collect();
    for (path, text) in tree.files() {
        for (index, line) in text.lines().enumerate() {
            for section in cited_sections(line).filter(|section| !sections.contains(section)) {
                let what = format!("{SECTION}{section} is unknown");
                findings.push(finding(path, index + 1, what, "see docs/design.md"));
            }
            for id in cited(line) {
                if !known.contains(&id) {
                    let what = format!("{id} is unknown");
                    let cure = "see docs/requirements.md and docs/traps.md";
                    findings.push(finding(path, index + 1, what, cure));
                }
            }
        }
    }
    findings
}

fn finding(path: &str, line: usize, what: String, cure: &'static str) -> Finding {
    Finding { path: path.into(), line, rule: RULE, what, cure }
}

/// What the page of traps links as a trap's test cites the trap.
fn check_carried_out(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in tree.text(TRAPS).unwrap_or_default().lines().enumerate() {
        let Some(id) = defined(line) else { continue };
        for link in line.split("](../").skip(1).filter_map(|rest| rest.split(')').next()) {
            let text = tree.text(link).unwrap_or_default();
            if link.ends_with(".rs") && !text.lines().any(|line| cited(line).contains(&id.into())) {
                let what = format!("{link} does not cite {id}");
                findings.push(finding(TRAPS, index + 1, what, "cite it at the test, or unlink"));
            }
        }
    }
    findings
}

/// The number of a heading: `## 14 Semantics`.
fn section_heading(line: &str) -> Option<&str> {
    line.strip_prefix("## ")?.split(' ').next()
}

/// The numbers of the sections that a line cites; items of a section (14.10) count as the section.
fn cited_sections(line: &str) -> impl Iterator<Item = &str> {
    line.split(SECTION).skip(1).filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
}

/// The ID that a row of a table defines: the first word of its first cell.
fn defined(line: &str) -> Option<&str> {
    let word = line.strip_prefix("| ")?.split([' ', '|']).next()?;
    (!cited(word).is_empty()).then_some(word)
}

/// The IDs in a line.
fn cited(line: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for (at, _) in line.char_indices() {
        let is_inside_word =
            line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '-');
        if is_inside_word {
            continue;
        }
        let rest = &line[at..];
        let letters = match rest.strip_prefix("RQ-") {
            Some(after) => 3 + after.bytes().take_while(u8::is_ascii_uppercase).count() + 1,
            None => 2,
        };
        let is_id = rest.starts_with("T-")
            || rest.starts_with("RQ-") && rest.as_bytes().get(letters - 1) == Some(&b'-');
        let Some(number) = rest.get(letters..).filter(|_| is_id) else { continue };
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            ids.push(rest[..letters + digits].to_owned());
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_are_told_from_other_words() {
        // Built from halves: the samples are not citations of this file.
        let (t, rq) = (concat!("T", "-"), concat!("R", "Q-"));
        let line = format!("see {t}900, ({rq}ZZ-900) and UTF-8, M{t}1, {t}x, {rq}ZZ, {rq}…");
        assert_eq!(cited(&line), [format!("{t}900"), format!("{rq}ZZ-900")]);
    }

    #[test]
    fn a_section_that_does_not_exist_is_found() {
        let code = format!("// {SECTION}2\n// {SECTION}2.10, {SECTION}3\n");
        let tree = Tree::sample(&[("a.rs", &code), (DESIGN, "## 2 Words\n")]);
        let found: Vec<_> = check(&tree).into_iter().map(|one| (one.path, one.line)).collect();
        assert_eq!(found, [("a.rs".into(), 2)]);
    }

    #[test]
    fn a_linked_test_that_does_not_cite_its_trap_is_found() {
        let t = concat!("T", "-");
        let traps =
            format!("| {t}900 name | x |\n\n| {t}900 | yes | [a](../a.rs), [b](../b.rs) |\n");
        let code = format!("/// {t}900: …\n");
        let tree = Tree::sample(&[(TRAPS, &traps), ("a.rs", &code), ("b.rs", "")]);
        let found: Vec<_> = check(&tree).into_iter().map(|one| one.what).collect();
        assert_eq!(found, [format!("b.rs does not cite {t}900")]);
    }

    #[test]
    fn an_unknown_and_a_twice_defined_id_are_found() {
        let (t, rq) = (concat!("T", "-"), concat!("R", "Q-"));
        let traps = format!("| {t}900 name | text |\n| {t}900 again | text |\n");
        let requirements = format!("| {rq}ZZ-900 | text |\n");
        let code = format!("// {t}900 and {rq}ZZ-900\n// {t}901 and {rq}ZZ-901\n");
        let tree = Tree::sample(&[("a.rs", &code), (TRAPS, &traps), (REQUIREMENTS, &requirements)]);
        let found: Vec<_> = check(&tree).into_iter().map(|one| (one.path, one.line)).collect();
        assert_eq!(found, [(TRAPS.into(), 2), ("a.rs".into(), 2), ("a.rs".into(), 2)]);
    }
}
