//! The rows, and medians.

use std::fmt::Write as _;

/// What was measured, against bar and goal.
#[derive(Default)]
pub struct Report(Vec<[String; 5]>);

impl Report {
    /// Adds a row; says it at once as well, since the whole takes minutes.
    pub fn row(&mut self, what: &str, measured: String, bar: &str, goal: &str, how: String) {
        eprintln!("{what}: {measured} ({how})");
        self.0.push([what.to_owned(), measured, bar.to_owned(), goal.to_owned(), how]);
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from("| what | measured | bar | goal | how |\n|---|---|---|---|---|\n");
        for row in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

/// The middle value; of an even number the mean of the two.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => f64::NAN,
        Some(value) if values.len() % 2 == 1 => *value,
        Some(value) => f64::midpoint(*value, values.get(middle - 1).copied().unwrap_or(*value)),
    }
}
