//! One line for whatever is wrong with the settings.

use std::error::Error as _;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What cannot be used: where it comes from and what would be right, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl std::error::Error for UsageError {}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl UsageError {
    /// Control characters, line feeds among them, are escaped: a value may come from anywhere.
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        let mut line = String::new();
        for c in text.as_ref().chars() {
            if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
        }
        Self(line)
    }

    /// What is wrong with the command line.
    pub(super) fn of_flags(error: &clap::Error) -> Self {
        let flag = context(error, ContextKind::InvalidArg).unwrap_or_default();
        let flag = flag.split([' ', '[', '=']).next().unwrap_or_default();
        match problem(error) {
            Some(problem) => Self::new(format!("{flag}: {problem}")),
            None => Self::new(format!("{} (remora --help lists all flags)", told(error))),
        }
    }

    /// What is wrong with one setting that stands at `origin`: a variable, or a place in the file.
    pub(super) fn of_setting(origin: &str, error: &clap::Error) -> Self {
        let problem = problem(error).unwrap_or_else(|| told(error));
        Self::new(format!("{origin}: {problem}"))
    }
}

/// What the value parser said; `None` where the value is not the problem.
fn problem(error: &clap::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::ValueValidation => error.source().map(ToString::to_string),
        ErrorKind::InvalidValue | ErrorKind::NoEquals => Some("expected a value".to_owned()),
        ErrorKind::ArgumentConflict => Some("given twice".to_owned()),
        ErrorKind::TooManyValues => Some("expected one value".to_owned()),
        _ => None,
    }
}

/// clap's text without its heading and usage, with its tips, on one line.
fn told(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let parts: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .map(|line| line.trim_start_matches("error: ").trim_start_matches("tip: "))
        .collect();
    parts.join("; ")
}

/// The name in clap's context that is nearest to a name it knows.
pub(super) fn suggestion(error: &clap::Error) -> Option<String> {
    context(error, ContextKind::SuggestedArg)
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}
