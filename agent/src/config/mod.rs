//! The command line, the variables and the file become one checked [`Config`], once, at start.
//!
//! ```text
//! flags ────────────┐
//! REMORA_… ─────────┼─▶ Settings (args) ─▶ layered ─▶ Config
//! --config FILE ────┘                        ▲
//! OTEL_TRACES_SAMPLER(_ARG) ─────────────────┘
//! ```
//! All three sources have the same names (but for the rules of `sampling`, which only the file has) and go through the same value parsers ([`value`]), so that they cannot come
//! to differ. A flag wins over its variable, a variable over the file; a list is taken whole from the first that has it.

mod args;
mod error;
mod file;
mod layer;
mod rules;
#[cfg(test)]
mod tests;
mod value;

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};
use tracing_subscriber::filter::Targets;

use self::args::{Cli, Settings, Subcommand};
pub use self::error::UsageError;
pub use self::value::{Listen, Propagate, SpansTo};
use crate::causality;
use crate::probe::hooks::Hooks;
use crate::sampling::Sampler;
use crate::trace::{Keep, SdkSpans};

/// The exit status of a wrong command line, variable or file.
pub const USAGE_STATUS: u8 = 2;

/// A wrong parent costs people more than a missing one, so the agent asks for more than what gives the most right traces.
const LINK_FLOOR: f64 = 0.7;

/// Headers whose value is the same in all requests of a trace, as gateways and frameworks use them.
const REQUEST_ID_HEADERS: [&str; 3] = ["x-request-id", "x-correlation-id", "request-id"];

/// What the agent was asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Capture and export.
    Run(Config),
    /// Say what this host allows (`crate::check`).
    Check { config: Config, json: bool },
}

/// Everything that can be set, checked. Settings of OTLP export have their own variables and type (`crate::export`).
#[derive(Clone, Debug)]
pub struct Config {
    /// Where page, metrics and API are served.
    pub listen: Listen,
    /// Where finished spans are written as lines of OTLP/JSON.
    pub spans: Option<SpansTo>,
    /// No line a span on a terminal.
    pub quiet: bool,
    pub selection: Selection,
    pub propagate: Propagate,
    /// Fields are put into requests also where the kernel then misleads programs about what there is to read.
    pub allow_unsafe: bool,
    pub sampler: Sampler,
    /// At most so many new traces a second are exported (`crate::sampling::RateLimiter`).
    pub max_traces_per_second: Option<NonZeroU32>,
    /// Traces that are exported although the head sampler left them out.
    pub keep: Keep,
    /// Bounds and thresholds of what decides within a process.
    pub causality: causality::Settings,
    /// What becomes of spans of processes that make their own.
    pub sdk_spans: SdkSpans,
    /// Lower-case names of request header fields whose value is the same in all requests of a trace.
    pub request_id_headers: Vec<String>,
    /// Lower-case names of request header fields that become span attributes.
    pub capture_request_headers: Vec<String>,
    /// The same of response header fields.
    pub capture_response_headers: Vec<String>,
    /// Keys of messages become span attributes.
    pub capture_message_key: bool,
    /// Where the transfers of octets are seen.
    pub hooks: Hooks,
    /// What is under TLS is seen.
    pub tls: bool,
    /// Octets of the ring that carries payload: a power of two, 64 KiB to 1 GiB.
    pub segment_ring: u32,
    /// Which log messages are written.
    pub log: Targets,
}

/// What is traced. An exclusion wins; a list that is empty excludes nothing and chooses everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Globs that can be read.
    pub exe: Vec<String>,
    pub pids: Vec<u32>,
    /// Server ports.
    pub ports: Vec<u16>,
    pub exclude_exe: Vec<String>,
    pub exclude_ports: Vec<u16>,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Stop {
    /// `--help` or `--version`: the text asked for.
    Page(clap::Error),
    Usage(UsageError),
}

impl Stop {
    /// Prints the page to standard output or the error, one line, to standard error; the exit status is 0 or
    /// [`USAGE_STATUS`].
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Page(page) => match page.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            },
            Self::Usage(error) => {
                eprintln!("remora: {error}");
                ExitCode::from(USAGE_STATUS)
            }
        }
    }
}

impl From<UsageError> for Stop {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

/// Reads the command line `args` (the program's name first), the variables that `variable` knows, and the file that
/// they name, if any.
///
/// # Errors
/// [`Stop::Page`] when help or version was asked for; [`Stop::Usage`] for the first thing that cannot be used.
pub fn from_command_line(
    args: impl IntoIterator<Item = OsString>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Command, Stop> {
    let cli = Cli::command().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches)).map_err(
        |error| if error.use_stderr() { Stop::Usage(UsageError::of_flags(&error)) } else { Stop::Page(error) },
    )?;
    // Flags may stand before the subcommand as well as after it.
    let (settings, file, json) = match cli.command {
        None => (cli.settings, cli.file, None),
        Some(Subcommand::Run { settings, file }) => (settings.joined(cli.settings), file.or(cli.file), None),
        Some(Subcommand::Check { settings, file, json }) => {
            (settings.joined(cli.settings), file.or(cli.file), Some(json))
        }
    };
    let config = Config::resolve(settings, file.config, variable)?;
    Ok(match json {
        None => Command::Run(config),
        Some(json) => Command::Check { config, json },
    })
}

/// A variable of the agent's own environment. What is not UTF-8 in it is replaced, so that it is refused, not ignored.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl Config {
    /// Fills up what the flags leave open, from the variables, then from the file, then by the defaults.
    fn resolve(
        flags: Settings,
        file: Option<PathBuf>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, UsageError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut settings = flags.or(layer::of_variables(&set)?);
        let mut rules = Vec::new();
        if let Some(path) = file.or_else(|| set(&layer::variable_of("config")).map(PathBuf::from)) {
            let of_file;
            (of_file, rules) = layer::of_file(&path)?;
            settings = settings.or(of_file);
        }
        if settings.allow_unsafe == Some(true) && settings.propagate != Some(Propagate::Headers) {
            return Err(UsageError::new("--unsafe: only --propagate headers asks for it"));
        }
        let sampler = Sampler::from_env(variable).map_err(|error| UsageError::new(error.to_string()))?;
        Ok(Self::checked(settings, sampler.with_rules(rules)))
    }

    fn checked(settings: Settings, sampler: Sampler) -> Self {
        let defaults = causality::Settings::default();
        Self {
            listen: settings.listen.unwrap_or_default(),
            spans: settings.spans,
            quiet: settings.quiet.unwrap_or_default(),
            selection: Selection {
                exe: settings.exe,
                pids: settings.pid,
                ports: settings.port,
                exclude_exe: settings.exclude_exe,
                exclude_ports: settings.exclude_port,
            },
            propagate: settings.propagate.unwrap_or_default(),
            allow_unsafe: settings.allow_unsafe.unwrap_or_default(),
            sampler,
            max_traces_per_second: settings.max_traces_per_second,
            keep: Keep {
                errors: settings.keep_errors.unwrap_or_default(),
                slower_than: settings.keep_slower_than.map(nanos),
                slowest: settings.keep_slowest,
            },
            causality: causality::Settings {
                floor: settings.link_floor.unwrap_or(LINK_FLOOR),
                hold_back: settings.link_hold_back.map_or(defaults.hold_back, nanos),
                ..defaults
            },
            sdk_spans: settings.sdk_spans.unwrap_or_default(),
            request_id_headers: if settings.request_id_header.is_empty() {
                REQUEST_ID_HEADERS.map(str::to_owned).to_vec()
            } else {
                settings.request_id_header
            },
            capture_request_headers: settings.capture_request_header,
            capture_response_headers: settings.capture_response_header,
            capture_message_key: settings.capture_message_key.unwrap_or_default(),
            hooks: settings.hooks.unwrap_or_default(),
            tls: settings.tls.unwrap_or(true),
            segment_ring: settings.segment_ring.unwrap_or(agent_common::limits::SEGMENT_RING),
            log: settings.log.unwrap_or_else(value::default_log),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
