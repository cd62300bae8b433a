//! What the rules need to know of a Rust file: its functions, its tests, the paths it names.
//!
//! A lexer is enough: comments and strings are told from code, and braces from each other.

use std::str::FromStr;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) first_line: usize,
    pub(super) last_line: usize,
}

/// What was found in a file; lines count from 1.
#[derive(Default, Debug)]
pub(super) struct Source {
    /// Functions outside tests.
    pub(super) functions: Vec<Function>,
    /// First and last line of each `#[cfg(test)]` item.
    pub(super) tests: Vec<(usize, usize)>,
    /// Paths outside tests, `use` groups written out: ("std::fs", line).
    pub(super) paths: Vec<(String, usize)>,
}

impl Source {
    /// Reads a file; one that is no Rust (rustc will say so) has no content.
    pub(super) fn parse(text: &str) -> Self {
        let mut source = Self::default();
        if let Ok(tokens) = TokenStream::from_str(text) {
            source.scan(tokens, "");
        }
        source
    }

    /// How many of the file's `lines` are in tests.
    pub(super) fn test_lines(&self) -> usize {
        self.tests.iter().map(|(first, last)| last - first + 1).sum()
    }

    fn scan(&mut self, tokens: TokenStream, prefix: &str) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            if let Some(end) = test_item(&tokens[at..]) {
                let first = tokens[at].span().start().line;
                let last = tokens[(at + end).min(tokens.len() - 1)].span().end().line;
                self.tests.push((first, last));
                at += end + 1;
                continue;
            }
            if let Some(function) = function(&tokens[at..]) {
                self.functions.push(function);
            }
            at += self.path_or_group(&tokens[at..], prefix);
        }
    }

    /// Takes the path or group or single token at the beginning of `tokens`; returns their number.
    fn path_or_group(&mut self, tokens: &[TokenTree], prefix: &str) -> usize {
        match &tokens[0] {
            TokenTree::Group(group) => {
                self.scan(group.stream(), "");
                1
            }
            TokenTree::Ident(first) => {
                let line = first.span().start().line;
                let mut path = format!("{prefix}{first}");
                let mut at = 1;
                while is_double_colon(&tokens[at.min(tokens.len())..]) {
                    match tokens.get(at + 2) {
                        Some(TokenTree::Ident(next)) => path += &format!("::{next}"),
                        Some(TokenTree::Group(group)) if is_brace(group) => {
                            self.scan(group.stream(), &format!("{path}::"));
                            return at + 3;
                        }
                        _ => break,
                    }
                    at += 3;
                }
                self.paths.push((path, line));
                at
            }
            _ => 1,
        }
    }
}

fn is_brace(group: &Group) -> bool {
    group.delimiter() == Delimiter::Brace
}

fn is_punct(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

fn is_double_colon(tokens: &[TokenTree]) -> bool {
    is_punct(tokens.first(), ':') && is_punct(tokens.get(1), ':')
}

/// The function that begins with `fn` at the beginning of `tokens`, if it has a body.
fn function(tokens: &[TokenTree]) -> Option<Function> {
    let [TokenTree::Ident(word), TokenTree::Ident(name), rest @ ..] = tokens else { return None };
    if word != "fn" {
        return None;
    }
    let body =
        rest.iter().take_while(|token| !is_punct(Some(token), ';')).find_map(
            |token| match token {
                TokenTree::Group(group) if is_brace(group) => Some(group),
                _ => None,
            },
        )?;
    Some(Function {
        name: name.to_string(),
        first_line: word.span().start().line,
        last_line: body.span_close().end().line,
    })
}

/// The index of the last token of the item that follows `#[cfg(test)]` at the beginning of
/// `tokens`.
fn test_item(tokens: &[TokenTree]) -> Option<usize> {
    let (true, Some(TokenTree::Group(attribute))) = (is_punct(tokens.first(), '#'), tokens.get(1))
    else {
        return None;
    };
    if attribute.stream().to_string().replace(' ', "") != "cfg(test)" {
        return None;
    }
    let ends = |token: &TokenTree| {
        is_punct(Some(token), ';') || matches!(token, TokenTree::Group(group) if is_brace(group))
    };
    tokens.iter().skip(2).position(ends).map(|position| position + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_tests_are_found_with_their_lines() {
        let text = "fn a() {\n}\ntrait T { fn no_body(&self); }\nimpl T for X {\n\
             fn b<const N: usize>() -> u8 {\n\"}\";\n}\n}\n\
             #[cfg(test)]\nmod tests {\n  fn c() {}\n}\nfn d() { }\n";
        let source = Source::parse(text);
        let found: Vec<_> = source
            .functions
            .iter()
            .map(|one| (one.name.as_str(), one.first_line, one.last_line))
            .collect();
        assert_eq!(found, [("a", 1, 2), ("b", 5, 7), ("d", 13, 13)]);
        assert_eq!(source.tests, [(9, 12)]);
        assert_eq!(source.test_lines(), 4);
    }

    #[test]
    fn use_groups_are_written_out_and_comments_ignored() {
        let text = "use std::{fs, io::{self, Read}, time::Instant};\n// std::net\n\
             fn f() { std::thread::spawn(g); \"tokio::x\"; }\n";
        let paths: Vec<String> =
            Source::parse(text).paths.into_iter().map(|(path, _)| path).collect();
        for expected in ["std::fs", "std::io::Read", "std::time::Instant", "std::thread::spawn"] {
            assert!(paths.iter().any(|path| path == expected), "{expected} in {paths:?}");
        }
        assert!(!paths.iter().any(|path| path.contains("net") || path.contains("tokio")));
    }
}
