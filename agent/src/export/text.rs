//! Spans as lines for people, one a span:
//! `14:03:07.512 SERVER nginx GET /cart/{id} 200 3.2 ms 127.0.0.1:51442`.

use std::fmt::Write as _;

use chrono::{DateTime, Local};

use crate::signal::http::{error_type, path_and_query};
use crate::signal::redact;
use crate::signal::span::{Detail, Span, SpanKind, Status};

/// The longest text taken from outside on a line, in characters: a terminal is no place for a 64 KiB target.
const MAX_TEXT: usize = 160;

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";

/// Appends the line of `span`, its line feed included: local start time, kind, service, method and path (without the
/// query), status, duration, peer, error. `colour` adds ANSI escapes. Control characters in what was observed are escaped.
pub fn line(span: &Span, colour: bool, out: &mut String) {
    let mut line = Line { out, colour };
    let nanos = i64::try_from(span.start.0).unwrap_or(i64::MAX);
    let start = DateTime::from_timestamp_nanos(nanos).with_timezone(&Local);
    line.styled(DIM, format_args!("{}", start.format("%H:%M:%S%.3f")));
    let (kind, style) = match span.kind {
        SpanKind::Server => ("SERVER", CYAN),
        SpanKind::Client => ("CLIENT", YELLOW),
        SpanKind::Producer => ("PRODUCER", YELLOW),
        SpanKind::Consumer => ("CONSUMER", CYAN),
    };
    line.styled(style, format_args!("{kind}"));
    line.styled(BOLD, format_args!("{}", Safe(&span.resource.service_name)));
    let (peer, error) = match &span.detail {
        Detail::Http(detail) => {
            let http = &detail.exchange.message;
            let method = http.method_original.as_deref().unwrap_or(crate::signal::http::method_name(http.method));
            match path_and_query(&http.target).0 {
                Some(path) => line.plain(format_args!("{} {}", Safe(method), Safe(path))),
                None => line.plain(format_args!("{} {}", Safe(method), Safe(redact::authority(&http.target)))),
            }
            if let Some(status) = http.status {
                let style = match status {
                    ..400 => GREEN,
                    400..500 => YELLOW,
                    _ => RED,
                };
                line.styled(style, format_args!("{status}"));
            }
            (detail.endpoints.map(|ends| ends.peer), error_type(detail.kind(), &detail.exchange))
        }
        Detail::Connect(detail) => {
            line.plain(format_args!("{}", Safe(&span.name)));
            (Some(detail.peer), Some(detail.error))
        }
        Detail::Message(detail) => {
            line.plain(format_args!("{}", Safe(&span.name)));
            (detail.message.call.endpoints.map(|ends| ends.peer), detail.error_type())
        }
        Detail::Moved(moved) => {
            line.plain(format_args!("{}", Safe(&span.name)));
            (moved.transfer.endpoints.map(|ends| ends.peer), moved.error_type())
        }
    };
    line.plain(format_args!("{}", Duration(span.end.0.saturating_sub(span.start.0))));
    if let Some(peer) = peer {
        let peer = std::net::SocketAddr::new(peer.ip().to_canonical(), peer.port());
        line.styled(DIM, format_args!("{peer}"));
    }
    // An error that the status already tells needs no second word.
    let told = error.is_some_and(|error| error.starts_with(|first: char| first.is_ascii_digit()));
    if let Some(error) = error.filter(|_| !told) {
        line.styled(RED, format_args!("{error}"));
    } else if span.status == Status::Error && !told {
        line.styled(RED, format_args!("error"));
    }
    if out.ends_with(' ') {
        out.pop();
    }
    out.push('\n');
}

struct Line<'a> {
    out: &'a mut String,
    colour: bool,
}

impl Line<'_> {
    fn plain(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = write!(self.out, "{text} ");
    }

    fn styled(&mut self, style: &str, text: std::fmt::Arguments<'_>) {
        let _ = if self.colour { write!(self.out, "{style}{text}{RESET} ") } else { write!(self.out, "{text} ") };
    }
}

/// Text from outside: what could steer a terminal is escaped, what is too long is cut.
struct Safe<'a>(&'a str);

impl std::fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, character) in self.0.chars().enumerate() {
            if at == MAX_TEXT {
                return f.write_char('…');
            }
            if character.is_control() || is_invisible(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Characters without a shape of their own that change how their neighbours are shown (Unicode's bidirectional and
/// zero-width controls, line and paragraph separators).
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Nanoseconds with three or so digits and a unit.
struct Duration(u64);

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let nanos = self.0 as f64;
        let (value, unit) = match self.0 {
            0..1_000_000 => (nanos / 1e3, "µs"),
            1_000_000..1_000_000_000 => (nanos / 1e6, "ms"),
            _ => (nanos / 1e9, "s"),
        };
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        write!(f, "{value:.digits$} {unit}")
    }
}

#[cfg(test)]
mod tests;
