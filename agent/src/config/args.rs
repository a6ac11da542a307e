//! The flags, as clap reads them. Each is one plain line of help with its unit and default.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser};
use tracing_subscriber::filter::Targets;

use super::value::{self, Listen, Propagate, SpansTo};
use crate::probe::hooks::Hooks;
use crate::trace::{Percentile, SdkSpans};

const AFTER_HELP: &str = "\
Each flag has a variable (--segment-ring: REMORA_SEGMENT_RING; lists are separated by commas) and the same name in the
configuration file. Flags win over variables, variables over the file.

OpenTelemetry's own variables hold as usual:
  OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL, _HEADERS, _TIMEOUT, _COMPRESSION, _CERTIFICATE
      Where spans and metrics go by OTLP; also as OTEL_EXPORTER_OTLP_TRACES_... and OTEL_EXPORTER_OTLP_METRICS_...
      Without an endpoint nothing is sent
  OTEL_RESOURCE_ATTRIBUTES
      Attributes added to every resource
  OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
      Which traces are exported [default: parentbased_always_on]; metrics count every request in any case

The file alone has rates by service and route. The first rule that matches the service and the path (as sent, without its
query) of the request that a trace begins with wins over OTEL_TRACES_SAMPLER, always_off included; what a parent decided
still holds under parentbased_...:
  sampling:
    - {service: 'shop*', route: '/health*', ratio: 0.01}";

/// Traces unmodified processes with eBPF: OpenTelemetry spans, Prometheus metrics and a live page
#[derive(Debug, Parser)]
#[command(name = "remora", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Subcommand>,
    #[command(flatten)]
    pub(super) settings: Settings,
    #[command(flatten)]
    pub(super) file: FileArg,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Capture and export; the default
    #[command(after_help = AFTER_HELP)]
    Run {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        file: FileArg,
    },
    /// Say what this host allows, what is missing and what would be traced; exit status 0 when capture can work
    #[command(after_help = AFTER_HELP)]
    Check {
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        file: FileArg,
    },
}

/// Apart from [`Settings`], since a configuration file cannot name another.
#[derive(Debug, Args)]
pub(super) struct FileArg {
    /// Read settings from this YAML file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// What one source sets: the flags, the variables or the file.
#[derive(Debug, Default, Args)]
pub(super) struct Settings {
    /// Trace processes whose executable matches: its name, or its path if there is a '/' [repeatable] [default: all]
    #[arg(long, value_name = "GLOB", value_parser = value::glob, help_heading = "Selection")]
    pub(super) exe: Vec<String>,
    /// Trace this process and its descendants [repeatable] [default: all]
    #[arg(long, value_name = "N", value_parser = value::pid, allow_negative_numbers = true, help_heading = "Selection")]
    pub(super) pid: Vec<u32>,
    /// Keep exchanges whose server has this port [repeatable] [default: all]
    #[arg(long, value_name = "N", value_parser = value::port, allow_negative_numbers = true, help_heading = "Selection")]
    pub(super) port: Vec<u16>,
    /// Leave out processes whose executable matches [repeatable]
    #[arg(long, value_name = "GLOB", value_parser = value::glob, help_heading = "Selection")]
    pub(super) exclude_exe: Vec<String>,
    /// Leave out exchanges whose server has this port [repeatable]
    #[arg(long, value_name = "N", value_parser = value::port, allow_negative_numbers = true, help_heading = "Selection")]
    pub(super) exclude_port: Vec<u16>,

    /// Serve page, metrics and API here; port 0 takes a free one [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR", value_parser = value::listen, help_heading = "Output")]
    pub(super) listen: Option<Listen>,
    /// Write finished spans as lines of OTLP/JSON to this file, '-' for standard output
    #[arg(long, value_name = "FILE|-", value_parser = value::spans_to(), help_heading = "Output")]
    pub(super) spans: Option<SpansTo>,
    /// Add this request header to spans, as http.request.header.<name> [repeatable]
    #[arg(long, value_name = "NAME", value_parser = value::header_name, help_heading = "Output")]
    pub(super) capture_request_header: Vec<String>,
    /// Add this response header to spans, as http.response.header.<name> [repeatable]
    #[arg(long, value_name = "NAME", value_parser = value::header_name, help_heading = "Output")]
    pub(super) capture_response_header: Vec<String>,
    /// Add the key of a message of Kafka to its span, as messaging.kafka.message.key [default: false]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = value::boolean, action = ArgAction::Set, help_heading = "Output"
    )]
    pub(super) capture_message_key: Option<bool>,
    /// Log from this level on: off, error, warn, info, debug or trace; or target=level,... [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = value::log, help_heading = "Output")]
    pub(super) log: Option<Targets>,
    /// Print no line a span on a terminal [default: false]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = value::boolean, action = ArgAction::Set, help_heading = "Output"
    )]
    pub(super) quiet: Option<bool>,

    /// Export at most so many new traces a second [default: no limit]
    #[arg(long, value_name = "N", value_parser = value::traces_per_second, allow_negative_numbers = true, help_heading = "Sampling")]
    pub(super) max_traces_per_second: Option<NonZeroU32>,
    /// Export traces with an error even when they were not sampled, as far as this host sees them [default: false]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = value::boolean, action = ArgAction::Set, help_heading = "Sampling"
    )]
    pub(super) keep_errors: Option<bool>,
    /// The same for traces with a span that took at least so long, such as 500ms [default: none]
    #[arg(long, value_name = "TIME", value_parser = value::duration, help_heading = "Sampling")]
    pub(super) keep_slower_than: Option<Duration>,
    /// The same for traces with a server span slower than this percentile of its service, route and method, such as p99, once 5 / (1 - p) of them were seen: 500 for p99 [default: none]
    #[arg(long, value_name = "PERCENTILE", value_parser = value::percentile, help_heading = "Sampling")]
    pub(super) keep_slowest: Option<Percentile>,

    /// Requests with the same value of this header are of one trace [repeatable] [default: x-request-id and its like]
    #[arg(long, value_name = "NAME", value_parser = value::header_name, help_heading = "Traces")]
    pub(super) request_id_header: Vec<String>,
    /// Set no parent that is less probable than this, from 0 to 1 [default: 0.7]
    #[arg(long, value_name = "P", value_parser = value::probability, help_heading = "Traces")]
    pub(super) link_floor: Option<f64>,
    /// Decide about a parent at the latest so long after the call returned, 10ms to 30s [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = value::hold_back, help_heading = "Traces")]
    pub(super) link_hold_back: Option<Duration>,
    /// Spans of requests that a process makes spans of itself, with an SDK of OpenTelemetry: leave-out or keep [default: leave-out]
    #[arg(long, value_name = "WHAT", value_parser = value::sdk_spans, help_heading = "Traces")]
    pub(super) sdk_spans: Option<SdkSpans>,

    /// Send trace context on: off, tcp (in an option, to other agents) or headers (in requests) [default: off]
    #[arg(long, value_name = "HOW", value_parser = value::propagate, help_heading = "Advanced")]
    pub(super) propagate: Option<Propagate>,
    /// Put contexts into requests also where the kernel then misleads nginx, Java and .NET about what there is to read
    #[arg(
        long = "unsafe", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = value::boolean, help_heading = "Advanced"
    )]
    pub(super) allow_unsafe: Option<bool>,
    /// See what is sent and received at the sockets, which is cheaper and needs Linux 6.16, or at the system calls: auto,
    /// sockets or calls [default: auto]
    #[arg(long, value_name = "WHERE", value_parser = value::hooks, help_heading = "Advanced")]
    pub(super) hooks: Option<Hooks>,
    /// See what is under TLS, at the functions of OpenSSL, BoringSSL, GnuTLS, Go and rustls [default: true]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = value::boolean, action = ArgAction::Set, help_heading = "Advanced"
    )]
    pub(super) tls: Option<bool>,
    /// Size of the ring that carries payload: a power of two from 64KiB to 1GiB [default: 8MiB]
    #[arg(long, value_name = "BYTES", value_parser = value::segment_ring, help_heading = "Advanced")]
    pub(super) segment_ring: Option<u32>,
}

impl FileArg {
    pub(super) fn or(self, other: Self) -> Self {
        Self { config: self.config.or(other.config) }
    }
}

impl Settings {
    /// What `self` leaves open, from `other`; a list is taken whole from one of them.
    pub(super) fn or(self, other: Self) -> Self {
        self.combined(other, false)
    }

    /// The same with the lists of both: they come from one source.
    pub(super) fn joined(self, other: Self) -> Self {
        self.combined(other, true)
    }

    fn combined(self, other: Self, both: bool) -> Self {
        fn list<T>(mut one: Vec<T>, other: Vec<T>, both: bool) -> Vec<T> {
            if both || one.is_empty() {
                one.extend(other);
            }
            one
        }
        Self {
            exe: list(self.exe, other.exe, both),
            pid: list(self.pid, other.pid, both),
            port: list(self.port, other.port, both),
            exclude_exe: list(self.exclude_exe, other.exclude_exe, both),
            exclude_port: list(self.exclude_port, other.exclude_port, both),
            listen: self.listen.or(other.listen),
            spans: self.spans.or(other.spans),
            capture_request_header: list(self.capture_request_header, other.capture_request_header, both),
            capture_response_header: list(self.capture_response_header, other.capture_response_header, both),
            capture_message_key: self.capture_message_key.or(other.capture_message_key),
            log: self.log.or(other.log),
            quiet: self.quiet.or(other.quiet),
            max_traces_per_second: self.max_traces_per_second.or(other.max_traces_per_second),
            keep_errors: self.keep_errors.or(other.keep_errors),
            keep_slower_than: self.keep_slower_than.or(other.keep_slower_than),
            keep_slowest: self.keep_slowest.or(other.keep_slowest),
            request_id_header: list(self.request_id_header, other.request_id_header, both),
            link_floor: self.link_floor.or(other.link_floor),
            link_hold_back: self.link_hold_back.or(other.link_hold_back),
            sdk_spans: self.sdk_spans.or(other.sdk_spans),
            propagate: self.propagate.or(other.propagate),
            allow_unsafe: self.allow_unsafe.or(other.allow_unsafe),
            hooks: self.hooks.or(other.hooks),
            tls: self.tls.or(other.tls),
            segment_ring: self.segment_ring.or(other.segment_ring),
        }
    }
}
