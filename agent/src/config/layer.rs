//! Variables and the file, read by the flags' own definitions.

use std::path::Path;

use clap::{Arg, ArgAction, Args as _, Command};

use super::args::Settings;
use super::error::{UsageError, suggestion};
use super::file::{self, Value};
use super::rules::{self, SAMPLING};
use crate::sampling::Rule;

/// The variable of a flag: `--segment-ring` has `REMORA_SEGMENT_RING`.
pub(super) fn variable_of(flag: &str) -> String {
    format!("REMORA_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// What the variables set. A list is separated by commas, but not within the braces or brackets of a glob.
pub(super) fn of_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Settings, UsageError> {
    let mut settings = Settings::default();
    let command = command();
    for arg in command.get_arguments() {
        let Some(flag) = arg.get_long() else { continue };
        let name = variable_of(flag);
        let Some(value) = variable(&name) else { continue };
        let values = if is_list(arg) { split(&value) } else { vec![value.as_str()] };
        set(&mut settings, &command, &name, flag, &values)?;
    }
    Ok(settings)
}

/// What the file sets, and the rules of sampling, which it alone has. Names may be written with `-` or `_`.
pub(super) fn of_file(path: &Path) -> Result<(Settings, Vec<Rule>), UsageError> {
    let entries = file::read(path)?;
    let (mut settings, mut rules) = (Settings::default(), Vec::new());
    let command = command();
    let mut seen = Vec::new();
    for entry in entries {
        let place = file::place(path, entry.line);
        if entry.key == SAMPLING {
            rules = rules::read(path, entry)?;
            continue;
        }
        let flag = entry.key.replace('_', "-");
        let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(&flag)) else {
            let near = nearest(&command, &flag).map(|near| format!(", did you mean '{near}'?")).unwrap_or_default();
            return Err(UsageError::new(format!("{place}: unknown key '{}'{near}", entry.key)));
        };
        let origin = format!("{place}: {}", entry.key);
        if seen.contains(&flag) {
            return Err(UsageError::new(format!("{origin}: given twice")));
        }
        let values = match entry.value {
            Value::One(value) => Some(vec![value]),
            Value::List(values) if is_list(arg) => values.into_iter().map(Value::one).collect(),
            Value::List(_) => return Err(UsageError::new(format!("{origin}: expected one value, not a list"))),
            Value::Mapping(_) | Value::Nothing => None,
        };
        let Some(values) = values else {
            return Err(UsageError::new(format!("{origin}: expected a value or a list of values")));
        };
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        set(&mut settings, &command, &origin, &flag, &values)?;
        seen.push(flag);
    }
    Ok((settings, rules))
}

/// Only the settings, no subcommand, no `--help`.
fn command() -> Command {
    let command = Command::new("remora").no_binary_name(true).disable_help_flag(true).disable_version_flag(true);
    Settings::augment_args(command)
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Sets one flag to `values`, as if they stood on the command line.
fn set(
    settings: &mut Settings,
    command: &Command,
    origin: &str,
    flag: &str,
    values: &[&str],
) -> Result<(), UsageError> {
    use clap::FromArgMatches as _;
    let args = values.iter().map(|value| format!("--{flag}={value}"));
    command
        .clone()
        .try_get_matches_from(args)
        .and_then(|mut matches| settings.update_from_arg_matches_mut(&mut matches))
        .map_err(|error| UsageError::of_setting(origin, &error))
}

/// The known name that is most like `key`, if one is.
fn nearest(command: &Command, key: &str) -> Option<String> {
    let error = command.clone().try_get_matches_from([format!("--{key}")]).err()?;
    suggestion(&error).map(|flag| flag.trim_start_matches('-').to_owned())
}

fn split(list: &str) -> Vec<&str> {
    let mut depth = 0u32;
    list.split(|c: char| {
        match c {
            '{' | '[' => depth = depth.saturating_add(1),
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|value| !value.is_empty())
    .collect()
}
