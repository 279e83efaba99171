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
        let mut problems: Vec<Problem> = Vec::new();
        for error in errors {
            let place = error.span().map(|span| self.place(span.start));
            // One mistake is often told several times from one line.
            if problems.last().is_some_and(|last| last.line == place.map(|(line, _)| line)) {
                continue;
            }
            let wrong = Wrong::new(format!("this is not TOML: {}", error.message()), "");
            problems.push(Problem {
                line: place.map(|(line, _)| line),
                column: place.map(|(_, column)| column),
                ..Problem::of_file(wrong)
            });
        }
        problems.truncate(SYNTAX_ERRORS_SHOWN);
        if problems.is_empty() { Ok(table.into_inner()) } else { Err(problems) }
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
