//! `sampling` in the configuration file: a list of rules, which no flag and no variable could hold.
//!
//! ```yaml
//! sampling:
//!   - {service: 'shop*', route: '/health*', ratio: 0.01}
//!   - {service: 'shop*', ratio: 0.5}
//! ```

use std::path::Path;

use super::error::UsageError;
use super::file::{self, Entry, Value};
use super::value;
use crate::sampling::Rule;

/// The key.
pub(super) const SAMPLING: &str = "sampling";

const EXPECTED: &str = "expected a list of rules such as {service: 'shop*', route: '/health*', ratio: 0.01}";

/// The rules that `entry` has, in order.
pub(super) fn read(path: &Path, entry: Entry) -> Result<Vec<Rule>, UsageError> {
    let line = entry.line;
    let wrong = || UsageError::new(format!("{}: {SAMPLING}: {EXPECTED}", file::place(path, line)));
    let Value::List(values) = entry.value else { return Err(wrong()) };
    values
        .into_iter()
        .map(|value| match value {
            Value::Mapping(keys) => rule(path, line, keys),
            _ => Err(wrong()),
        })
        .collect()
}

fn rule(path: &Path, line: u64, keys: Vec<Entry>) -> Result<Rule, UsageError> {
    let refused = |line, problem: &str| UsageError::new(format!("{}: {SAMPLING}: {problem}", file::place(path, line)));
    let first = keys.first().map_or(line, |entry| entry.line);
    let (mut service, mut route, mut ratio) = (None, None, None);
    for Entry { key, line, value } in keys {
        let set = match key.as_str() {
            "service" => &mut service,
            "route" => &mut route,
            "ratio" => &mut ratio,
            _ => return Err(refused(line, &format!("unknown key '{key}', expected service, route or ratio"))),
        };
        let Value::One(text) = value else { return Err(refused(line, &format!("{key}: expected one value"))) };
        *set = Some((line, text));
    }
    let Some((at, text)) = ratio else { return Err(refused(first, "a rule needs a ratio from 0 to 1")) };
    let ratio = value::probability(&text).map_err(|problem| refused(at, &format!("ratio: {problem}")))?;
    let text = |set: &Option<(u64, String)>| set.as_ref().map(|(_, text)| text.clone());
    Rule::new(text(&service).as_deref(), text(&route).as_deref(), ratio)
        .map_err(|error| refused(first, &error.to_string()))
}
