//! Licence expressions: `MIT OR (Apache-2.0 WITH LLVM-exception AND ISC)`.

use anyhow::{Result, bail};

/// True when the licences that `allows` accepts satisfy `expression`. The old form with `/` means
/// OR.
///
/// # Errors
/// When the expression is malformed.
pub(super) fn is_satisfied(expression: &str, allows: &dyn Fn(&str) -> bool) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allows };
    let satisfied = parser.either()?;
    if !parser.words.is_empty() {
        bail!("unexpected {:?}", parser.words[0]);
    }
    Ok(satisfied)
}

struct Parser<'a> {
    words: &'a [&'a str],
    allows: &'a dyn Fn(&str) -> bool,
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn either(&mut self) -> Result<bool> {
        let mut satisfied = self.both()?;
        while self.take("OR") {
            satisfied |= self.both()?;
        }
        Ok(satisfied)
    }

    fn both(&mut self) -> Result<bool> {
        let mut satisfied = self.one()?;
        while self.take("AND") {
            satisfied &= self.one()?;
        }
        Ok(satisfied)
    }

    fn one(&mut self) -> Result<bool> {
        if self.take("(") {
            let satisfied = self.either()?;
            if !self.take(")") {
                bail!("a closing parenthesis is missing");
            }
            return Ok(satisfied);
        }
        let Some((id, rest)) = self.words.split_first() else { bail!("a licence is missing") };
        self.words = rest;
        if self.take("WITH") {
            let Some((exception, rest)) = self.words.split_first() else {
                bail!("an exception is missing")
            };
            self.words = rest;
            return Ok((self.allows)(&format!("{id} WITH {exception}")));
        }
        Ok((self.allows)(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str) -> Result<bool> {
        is_satisfied(expression, &|id| {
            ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&id)
        })
    }

    #[test]
    fn operators_bind_as_spdx_says() {
        let cases = [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("GPL-3.0 AND ISC OR MIT", true),
            ("GPL-3.0 AND (ISC OR MIT)", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
        ];
        for (expression, expected) in cases {
            assert_eq!(check(expression).expect("well-formed"), expected, "{expression}");
        }
    }

    #[test]
    fn malformed_expressions_are_refused() {
        for expression in ["", "(MIT", "MIT)", "MIT OR", "MIT WITH", "MIT ISC"] {
            assert!(check(expression).is_err(), "{expression}");
        }
    }
}
