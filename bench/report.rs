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

    /// Medians, and beside each other what is to be compared.
    pub fn tables(&self, kinds: &[Kind]) -> String {
        let medians = self.table("median", kinds.iter().map(|kind| kind.name().to_owned()), |row| {
            kinds.iter().map(|&kind| row.median(kind).map(|value| format!("{value:.0}"))).collect()
        });
        let pairs = compared(kinds);
        if pairs.is_empty() {
            return medians.to_string();
        }
        let ratios = self.table(
            "ratio of medians",
            pairs.iter().map(|(one, other)| format!("{} ÷ {}", one.name(), other.name())),
            |row| pairs.iter().map(|&pair| row.ratio(pair).map(|ratio| format!("{ratio:.3}"))).collect(),
        );
        format!("{medians}\n\n{ratios}")
    }

    fn table(
        &self,
        corner: &str,
        head: impl Iterator<Item = String>,
        cells: impl Fn(&Row) -> Vec<Option<String>>,
    ) -> Table {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(std::iter::once(corner.to_owned()).chain(head));
        for row in &self.rows {
            let cells = cells(row).into_iter().map(Option::unwrap_or_default);
            table.add_row(std::iter::once(row.name.clone()).chain(cells));
        }
        table
    }

    /// Everything.
    pub fn json(&self, kinds: &[Kind]) -> Result<String> {
        let rows: Vec<Value> = self.rows.iter().map(|row| row.json(kinds)).collect();
        Ok(serde_json::to_string_pretty(
            &json!({ "rounds": self.rounds, "seconds": self.seconds, "rows": rows }),
        )?)
    }
}

/// Which is divided by which.
fn compared(kinds: &[Kind]) -> Vec<(Kind, Kind)> {
    use Kind::{Direct, Dorc, Haproxy, Kernel, Kernel1000, Nginx};
    let pairs = [
        (Kernel, Direct),
        (Kernel, Haproxy),
        (Kernel1000, Direct),
        (Kernel1000, Kernel),
        (Dorc, Direct),
        (Dorc, Haproxy),
        (Dorc, Nginx),
    ];
    pairs.into_iter().filter(|(one, other)| kinds.contains(one) && kinds.contains(other)).collect()
}

impl Row {
    fn median(&self, kind: Kind) -> Option<f64> {
        let mut values = self.values.iter().find(|(of, _)| *of == kind)?.1.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        Some(if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 })
    }

    fn ratio(&self, (one, other): (Kind, Kind)) -> Option<f64> {
        let ratio = self.median(one)? / self.median(other)?;
        ratio.is_finite().then_some(ratio)
    }

    fn json(&self, kinds: &[Kind]) -> Value {
        let mut peers = Map::new();
        for (kind, values) in &self.values {
            let median = self.median(*kind);
            peers.insert(kind.name().into(), json!({ "median": median, "all": values }));
        }
        let mut row = json!({ "name": self.name, "more_is_better": self.more_is_better, "peers": peers });
        for (one, other) in compared(kinds) {
            row[format!("{}_divided_by", one.name())][other.name()] = json!(self.ratio((one, other)));
        }
        row
    }
}
