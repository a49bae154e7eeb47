//! The rows of a run, as a table for people or one JSON object a line. No I/O.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// One figure, with its ratio to others of the same run.
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    ratio_to: Vec<(String, f64)>,
}

/// All figures so far, in order.
#[derive(Default)]
pub struct Report(Vec<Row>);

impl Report {
    /// Adds a figure. Rows named in `others` that are not there give no ratio.
    pub fn row(&mut self, name: &str, value: f64, unit: &'static str, others: &[&str]) {
        let ratio_to = others
            .iter()
            .filter_map(|other| {
                let row = self.0.iter().find(|row| row.name == *other)?;
                (row.value > 0.0).then(|| (row.name.clone(), value / row.value))
            })
            .collect();
        self.0.push(Row {
            name: name.to_owned(),
            value,
            unit,
            ratio_to,
        });
    }

    /// Adds `figure` of a path, next to the same figure of other paths.
    pub fn beside(
        &mut self,
        path: &str,
        figure: &str,
        value: f64,
        unit: &'static str,
        paths: &[&str],
    ) {
        let others: Vec<String> = paths.iter().map(|p| format!("{p}_{figure}")).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        self.row(&format!("{path}_{figure}"), value, unit, &others);
    }

    /// Adds the 50th and the 99th percentile of a path's times (us): the smallest time that so many did not exceed.
    pub fn times(&mut self, path: &str, mut times: Vec<Duration>, paths: &[&str]) {
        times.sort_unstable();
        for percent in [50, 99] {
            let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
            if let Some(time) = times.get(rank) {
                let figure = format!("p{percent}");
                self.beside(path, &figure, time.as_secs_f64() * 1e6, "us", paths);
            }
        }
    }

    /// `{"name", "value", "unit", "ratio_to": {name: ratio}}`, one a line.
    pub fn to_json_lines(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, row| {
            let ratios: Map<String, Value> = row
                .ratio_to
                .iter()
                .map(|(name, ratio)| (name.clone(), json!(ratio)))
                .collect();
            let line = json!({
                "name": row.name, "value": row.value, "unit": row.unit, "ratio_to": ratios
            });
            let _ = writeln!(text, "{line}"); // a String takes everything
            text
        })
    }

    /// Columns: name, value, unit, ratios.
    pub fn to_table(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, row| {
            let _ = write!(text, "{:<24} {:>10.1} {:<8}", row.name, row.value, row.unit);
            for (name, ratio) in &row.ratio_to {
                let _ = write!(text, "  {ratio:.2} x {name}");
            }
            text.push('\n');
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_set_beside_the_same_figure_of_other_paths() {
        let mut report = Report::default();
        report.beside("floor", "p50", 50.0, "us", &[]);
        report.beside("call", "p50", 125.0, "us", &["floor", "absent"]);
        assert_eq!(
            report.to_json_lines(),
            "{\"name\":\"floor_p50\",\"value\":50.0,\"unit\":\"us\",\"ratio_to\":{}}\n\
             {\"name\":\"call_p50\",\"value\":125.0,\"unit\":\"us\",\"ratio_to\":{\"floor_p50\":2.5}}\n"
        );
        assert!(report.to_table().ends_with("  2.50 x floor_p50\n"));
    }

    #[test]
    fn a_percentile_is_a_time_that_was_measured() {
        let mut report = Report::default();
        report.times(
            "call",
            (1..=200).rev().map(Duration::from_micros).collect(),
            &[],
        );
        report.times("none", Vec::new(), &["call"]);
        assert_eq!(
            report.to_json_lines(),
            "{\"name\":\"call_p50\",\"value\":100.0,\"unit\":\"us\",\"ratio_to\":{}}\n\
             {\"name\":\"call_p99\",\"value\":198.0,\"unit\":\"us\",\"ratio_to\":{}}\n"
        );
    }
}
