//! One table of an app file, read key by key.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::keys::Format;
use super::problem::Wrong;
use super::values::found;

/// One table of an app file; a table that is not there has no keys.
pub(super) struct Section<'d, 't> {
    document: &'d Document<'t>,
    format: &'static Format,
    /// Its own key, as `service.ports`; empty at the top.
    path: String,
    table: Option<&'d DeTable<'t>>,
}

impl<'d, 't> Section<'d, 't> {
    /// The table at the top of the file.
    pub(super) fn top(document: &'d Document<'t>, format: &'static Format, table: &'d DeTable<'t>) -> Self {
        Self { document, format, path: String::new(), table: Some(table) }
    }

    /// The file that it stands in.
    pub(super) fn document(&self) -> &'d Document<'t> {
        self.document
    }

    /// The table under `key`.
    pub(super) fn section(&self, key: &str) -> Self {
        let path = self.key(key);
        let table = self.get(key, |value| match value {
            DeValue::Table(table) => Ok(table),
            other => Err(Wrong::new(
                format!("expected a section, found {}", found(other)),
                format!("write [{path}] on a line of its own and its keys below"),
            )),
        });
        Section { document: self.document, format: self.format, path, table }
    }

    /// Whether the table itself was written.
    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// The value of `key`; `None` where it is not written, or wrong, which is then reported.
    pub(super) fn get<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&'d DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let (_, value) = self.entry(key)?;
        match parse(value.get_ref()) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.document.report(&self.key(key), Some(value.span()), wrong);
                None
            }
        }
    }

    /// As [`get`](Self::get), but a key that is not written is a problem.
    pub(super) fn require<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl FnOnce(&'d DeValue<'t>) -> Result<T, Wrong>,
    ) -> Option<T> {
        if self.entry(key).is_none() {
            let mend = match self.path.as_str() {
                "" => format!("add {key} = {example}"),
                path => format!("add {key} = {example} to [{path}]"),
            };
            self.document.report(&self.key(key), None, Wrong::new("this key is missing", mend));
        }
        self.get(key, parse)
    }

    /// All that is written in it: keys, and values with their places.
    pub(super) fn entries(&self) -> impl Iterator<Item = (String, Range<usize>, &'d DeValue<'t>)> {
        self.table
            .into_iter()
            .flat_map(|table| table.iter())
            .map(|(key, value)| (key.get_ref().to_string(), key.span(), value.get_ref()))
    }

    /// Where the value of `key` stands.
    pub(super) fn span(&self, key: &str) -> Option<Range<usize>> {
        self.entry(key).map(|(_, value)| value.span())
    }

    /// Reports what is wrong with `key`.
    pub(super) fn report(&self, key: &str, wrong: Wrong) {
        self.document.report(&self.key(key), self.span(key), wrong);
    }

    /// Says of `key` what the writer of the file should know.
    pub(super) fn warn(&self, key: &str, wrong: Wrong) {
        self.document.warn(&self.key(key), self.span(key), wrong);
    }

    /// Reports the keys that its format does not have there, each with the nearest one.
    pub(super) fn refuse_unknown(&self) {
        let known = self.format.keys(&self.path);
        for (key, span, _) in self.entries().filter(|(key, ..)| !known.contains(&key.as_str())) {
            let shown: String = key.chars().flat_map(char::escape_debug).take(60).collect();
            let mend = self.format.mend(&self.path, &key);
            self.document.report(&self.key(&shown), Some(span), Wrong::new("there is no such key", mend));
        }
    }

    /// The whole name of one of its keys.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn entry(&self, key: &str) -> Option<(&'d str, &'d toml::Spanned<DeValue<'t>>)> {
        self.table?
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(name, value)| (name.get_ref().as_ref(), value))
    }
}
