//! Single values: what is refused is refused here, with the good range named.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use globset::GlobBuilder;
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::probe::hooks::Hooks;
use crate::trace::{Percentile, SdkSpans};

/// The largest process id that Linux gives out (`PID_MAX_LIMIT` of 64-bit kernels).
const PID_MAX: u64 = 4 << 20;
const TRACES_PER_SECOND_MAX: u64 = 1_000_000;
/// The smallest ring that holds a record of the largest size, and the largest that a 32-bit size can name with room.
const SEGMENT_RING: RangeInclusive<u64> = 64 << 10..=1 << 30;
/// Longer, and spans come too late to be of use; shorter, and nothing can be compared.
const HOLD_BACK: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30);
/// The longest name of a header field that is accepted, in octets.
const HEADER_NAME_MAX: usize = 256;

/// Where to listen: `HOST:PORT`. The host is an IP address or a name, resolved when the socket is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Without the brackets of an IPv6 address.
    pub host: Box<str>,
    /// 0 for a free one.
    pub port: u16,
}

impl Default for Listen {
    fn default() -> Self {
        Self::from(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464))
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string().into(), port: address.port() }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Where lines of OTLP/JSON go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpansTo {
    StandardOutput,
    File(PathBuf),
}

/// Which way trace context is written into traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagate {
    /// Nothing is written.
    #[default]
    Off,
    /// Between agents, in a TCP option.
    Tcp,
    /// In the requests themselves.
    Headers,
}

pub(super) fn listen(text: &str) -> Result<Listen, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address.into());
    }
    let wrong = || format!("expected HOST:PORT such as 127.0.0.1:9464 or [::1]:9464, not '{text}'");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    // What consists of numbers alone was meant to be an address.
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
    };
    let name = host.len() <= 253
        && host.trim_end_matches('.').split('.').all(label)
        && host.bytes().any(|octet| octet.is_ascii_alphabetic());
    match digits(port).and_then(|port| u16::try_from(port).ok()) {
        Some(port) if name => Ok(Listen { host: host.into(), port }),
        _ => Err(wrong()),
    }
}

pub(super) fn spans_to() -> impl TypedValueParser<Value = SpansTo> {
    PathBufValueParser::new()
        .map(|path| if path.as_os_str() == "-" { SpansTo::StandardOutput } else { SpansTo::File(path) })
}

/// Kept as text: what it is held against, and how, is up to `crate::process::filter`.
pub(super) fn glob(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("expected a glob such as nginx, 'python3*' or '/usr/bin/*', not nothing".to_owned());
    }
    match GlobBuilder::new(text).build() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("expected a glob such as 'python3*' or '/usr/bin/*': {error}")),
    }
}

pub(super) fn pid(text: &str) -> Result<u32, String> {
    number(text, "a process id", 1..=PID_MAX).map(narrow)
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    number(text, "a port", 1..=u16::MAX.into()).map(narrow)
}

pub(super) fn traces_per_second(text: &str) -> Result<NonZeroU32, String> {
    let number = number(text, "a number of traces a second", 1..=TRACES_PER_SECOND_MAX)?;
    Ok(NonZeroU32::new(narrow(number)).unwrap_or(NonZeroU32::MIN))
}

/// A number of octets, plain or with `KiB`, `MiB` or `GiB` (`B` and `iB` may be left out, case does not count).
pub(super) fn segment_ring(text: &str) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    let (count, unit) = lower.split_at(lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len()));
    let shift = match unit.trim_start() {
        "" | "b" => Some(0),
        "k" | "kib" => Some(10),
        "m" | "mib" => Some(20),
        "g" | "gib" => Some(30),
        _ => None,
    };
    let octets = digits(count).zip(shift).and_then(|(count, shift)| count.checked_mul(1 << shift));
    match octets {
        Some(octets) if octets.is_power_of_two() && SEGMENT_RING.contains(&octets) => Ok(narrow(octets)),
        _ => Err(format!("expected a power of two from 64KiB to 1GiB, such as 8MiB, not '{text}'")),
    }
}

/// A field name is a token (RFC 9110, section 5.1 and 5.6.2); it is compared without regard to case.
pub(super) fn header_name(text: &str) -> Result<String, String> {
    let token = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
    if text.is_empty() || text.len() > HEADER_NAME_MAX || !text.bytes().all(token) {
        return Err(format!("expected the name of a header such as x-request-id, not '{text}'"));
    }
    Ok(text.to_ascii_lowercase())
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("expected true or false, not '{text}'")),
    }
}

/// A length of time with its unit, such as `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("expected a time such as 500ms or 2s, not '{text}'"))
}

pub(super) fn hold_back(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Ok(time) if HOLD_BACK.contains(&time) => Ok(time),
        _ => Err(format!("expected a time from 10ms to 30s, not '{text}'")),
    }
}

pub(super) fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from 0 to 1, not '{text}'")),
    }
}

/// `p50` to `p99.999`.
pub(super) fn percentile(text: &str) -> Result<Percentile, String> {
    let thousandths = || {
        let (whole, part) = text.strip_prefix('p').map(|number| number.split_once('.').unwrap_or((number, "0")))?;
        let scale = 10_u64.checked_pow(3_u32.checked_sub(u32::try_from(part.len()).ok()?)?)?;
        digits(whole)?.checked_mul(1000)?.checked_add(digits(part)? * scale)
    };
    thousandths()
        .and_then(|thousandths| Percentile::new(u32::try_from(thousandths).ok()?))
        .ok_or_else(|| format!("expected a percentile from p50 to p99.999, such as p99, not '{text}'"))
}

pub(super) fn sdk_spans(text: &str) -> Result<SdkSpans, String> {
    match text {
        "leave-out" => Ok(SdkSpans::LeaveOut),
        "keep" => Ok(SdkSpans::Keep),
        _ => Err(format!("expected leave-out or keep, not '{text}'")),
    }
}

pub(super) fn propagate(text: &str) -> Result<Propagate, String> {
    match text {
        "off" => Ok(Propagate::Off),
        "tcp" => Ok(Propagate::Tcp),
        "headers" => Ok(Propagate::Headers),
        _ => Err(format!("expected off, tcp or headers, not '{text}'")),
    }
}

pub(super) fn hooks(text: &str) -> Result<Hooks, String> {
    match text {
        "auto" => Ok(Hooks::Auto),
        "sockets" => Ok(Hooks::Sockets),
        "calls" => Ok(Hooks::Calls),
        _ => Err(format!("expected 'auto', 'sockets' or 'calls', not '{text}'")),
    }
}

/// A level for all targets, levels by target (`info,agent::probe=debug`), or both. `Targets` itself would take a
/// misspelt level for the name of a target.
pub(super) fn log(text: &str) -> Result<Targets, String> {
    let mut targets = Targets::new();
    for part in text.split(',') {
        let (target, level) = match part.split_once('=') {
            Some((target, level)) if !target.trim().is_empty() => (Some(target.trim()), level),
            Some(_) => (None, ""),
            None => (None, part),
        };
        let level = level_of(level.trim()).ok_or_else(|| {
            format!("expected off, error, warn, info, debug or trace, or levels by target such as info,agent::probe=debug, not '{text}'")
        })?;
        targets = match target {
            Some(target) => targets.with_target(target, level),
            None => targets.with_default(level),
        };
    }
    Ok(targets)
}

pub(super) fn default_log() -> Targets {
    Targets::new().with_default(LevelFilter::INFO)
}

/// By name alone: `LevelFilter` would take a number as well.
fn level_of(text: &str) -> Option<LevelFilter> {
    if text.bytes().all(|octet| octet.is_ascii_alphabetic()) && !text.is_empty() { text.parse().ok() } else { None }
}

fn number(text: &str, what: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    match digits(text) {
        Some(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("expected {what} from {} to {}, not '{text}'", range.start(), range.end())),
    }
}

/// Decimal digits alone: `parse` would take a plus sign as well.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A number that its range has made sure to fit.
fn narrow<T: TryFrom<u64> + Default>(number: u64) -> T {
    T::try_from(number).unwrap_or_default()
}
