//! The text of an app file, the places in it, and what was found wrong so far.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;

use super::problem::{Problem, Severity, Wrong};

/// More syntax errors than this help nobody: the later ones follow from the first.
const SYNTAX_ERRORS_SHOWN: usize = 5;

/// An app file while it is read.
pub(super) struct Document<'t> {
    text: &'t str,
    base: Option<&'t Path>,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Document<'t> {
    /// Nothing is known to be wrong with it yet.
    pub(super) fn new(text: &'t str, base: Option<&'t Path>) -> Self {
        Self { text, base, problems: RefCell::default() }
    }

    /// The folder that relative paths are taken from.
    pub(super) fn base(&self) -> Option<&'t Path> {
        self.base
    }

    /// The text as TOML.
    pub(super) fn parse(&self) -> Result<DeTable<'t>, Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let mut problems: Vec<Problem> = errors.iter().map(|error| self.syntax(error)).collect();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        // One mistake is often told several times from one line.
        problems.dedup_by_key(|problem| problem.line);
        problems.truncate(SYNTAX_ERRORS_SHOWN);
        if problems.is_empty() { Ok(table.into_inner()) } else { Err(problems) }
    }

    fn syntax(&self, error: &toml::de::Error) -> Problem {
        let place = error.span().map(|span| self.place(span.start));
        let said = error.message();
        let mend = match said {
            _ if said.starts_with("duplicate key") => "leave one of them out",
            _ if said.starts_with("key with no value") => "write key = value",
            _ if said.starts_with("string values must be quoted") || said.starts_with("invalid boolean") => {
                "a text stands in quotes: key = \"text\""
            }
            _ => "the format is explained at https://toml.io",
        };
        Problem {
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            ..Problem::of_file(Wrong::new(format!("this is not TOML: {said}"), mend))
        }
    }

    /// Notes that something is wrong with `key`.
    pub(super) fn report(&self, key: &str, span: Option<Range<usize>>, wrong: Wrong) {
        self.note(Problem { line: self.line(span), ..Problem::of_key(key, wrong) });
    }

    /// Notes what the writer of the file should know.
    pub(super) fn warn(&self, key: &str, span: Option<Range<usize>>, wrong: Wrong) {
        self.note(Problem { line: self.line(span), ..Problem::of_key(key, wrong).into_warning() });
    }

    /// The warnings if the file is right, else its problems.
    pub(super) fn finish(self) -> Result<Vec<Problem>, Vec<Problem>> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line.unwrap_or(0));
        if problems.iter().all(|problem| problem.severity == Severity::Warning) {
            return Ok(problems);
        }
        problems.retain(|problem| problem.severity == Severity::Error);
        Err(problems)
    }

    fn note(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    fn line(&self, span: Option<Range<usize>>) -> Option<usize> {
        span.map(|span| self.place(span.start).0)
    }

    /// Line and column of a byte, both counted from 1.
    fn place(&self, byte: usize) -> (usize, usize) {
        let mut end = byte.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}
