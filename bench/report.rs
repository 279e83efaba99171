//! All values of a run, their medians, and the ratios between them.

use anyhow::Result;
use comfy_table::Table;
use serde_json::{Map, Value, json};

use super::load::Measurement;
use super::peers::Kind;

/// The values of a run.
pub struct Report {
    rounds: usize,
    seconds: u64,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    more_is_better: bool,
    values: Vec<(Kind, Vec<f64>)>,
}

impl Report {
    /// An empty one.
    pub const fn new(rounds: usize, seconds: u64) -> Self {
        Self { rounds, seconds, rows: Vec::new() }
    }

    /// Takes what one measurement through one peer gave.
    pub fn add(&mut self, measurement: &Measurement, kind: Kind, values: &[Option<f64>]) {
        for (&(unit, more_is_better), value) in measurement.values.iter().zip(values) {
            let name = format!("{}: {unit}", measurement.name);
            let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
                self.rows.push(Row { name, more_is_better, values: Vec::new() });
                self.rows.len() - 1
            });
            let row = &mut self.rows[at];
            if let Some(value) = *value {
                match row.values.iter_mut().find(|(of, _)| *of == kind) {
                    Some((_, all)) => all.push(value),
                    None => row.values.push((kind, vec![value])),
                }
            }
        }
    }

    /// Medians, and dorc beside each of the others.
    pub fn table(&self, kinds: &[Kind]) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        let others: Vec<Kind> = kinds.iter().copied().filter(|&kind| kind != Kind::Dorc).collect();
        let head = kinds.iter().map(|kind| kind.name().to_owned());
        let ratios = others.iter().map(|kind| format!("dorc ÷ {}", kind.name()));
        table.set_header([String::from("median")].into_iter().chain(head).chain(ratios));
        for row in &self.rows {
            let values = kinds
                .iter()
                .map(|&kind| row.median(kind).map_or(String::new(), |value| format!("{value:.0}")));
            let ratios = others
                .iter()
                .map(|&kind| row.ratio(kind).map_or(String::new(), |ratio| format!("{ratio:.2}")));
            table.add_row([row.name.clone()].into_iter().chain(values).chain(ratios));
        }
        table.to_string()
    }

    /// Everything.
    pub fn json(&self, kinds: &[Kind]) -> Result<String> {
        let rows: Vec<Value> = self.rows.iter().map(|row| row.json(kinds)).collect();
        Ok(serde_json::to_string_pretty(
            &json!({ "rounds": self.rounds, "seconds": self.seconds, "rows": rows }),
        )?)
    }
}

impl Row {
    fn median(&self, kind: Kind) -> Option<f64> {
        let mut values = self.values.iter().find(|(of, _)| *of == kind)?.1.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        Some(if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 })
    }

    fn ratio(&self, other: Kind) -> Option<f64> {
        Some(self.median(Kind::Dorc)? / self.median(other)?)
    }

    fn json(&self, kinds: &[Kind]) -> Value {
        let mut peers = Map::new();
        for (kind, values) in &self.values {
            let median = self.median(*kind);
            peers.insert(kind.name().into(), json!({ "median": median, "all": values }));
        }
        let others = kinds.iter().filter(|&&kind| kind != Kind::Dorc);
        let ratios: Map<String, Value> =
            others.map(|&kind| (kind.name().into(), json!(self.ratio(kind)))).collect();
        json!({ "name": self.name, "more_is_better": self.more_is_better, "peers": peers, "dorc_divided_by": ratios })
    }
}
