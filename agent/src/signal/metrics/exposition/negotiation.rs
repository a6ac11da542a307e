//! Which format a client wants.

use super::Format;

impl Format {
    /// The format that an `Accept` field likes best (RFC 9110, section 12.5.1); text when it says nothing of either. Of
    /// two liked as much it is OpenMetrics if it was named, since that carries more.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let Some(accept) = accept else { return Self::Text };
        let (mut text, mut open_metrics) = (Liked::default(), Liked::default());
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or("").to_ascii_lowercase();
            let (mut quality, mut version) = (1000, None);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = thousandths(value),
                    "version" => version = Some(value),
                    _ => {}
                }
            }
            match (&*media, version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => open_metrics.note(3, quality),
                ("text/plain", None | Some("0.0.4")) => text.note(3, quality),
                ("text/*", None) => text.note(2, quality),
                ("*/*", None) => text.note(1, quality),
                _ => {}
            }
        }
        if open_metrics.quality > 0 && open_metrics.quality >= text.quality { Self::OpenMetrics } else { Self::Text }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How much a format is liked, by the most specific range that speaks of it.
#[derive(Default)]
struct Liked {
    specific: u8,
    quality: u16,
}

impl Liked {
    fn note(&mut self, specific: u8, quality: u16) {
        if specific > self.specific || specific == self.specific && quality > self.quality {
            *self = Self { specific, quality };
        }
    }
}

/// A quality value: 0 to 1 with up to three decimals (RFC 9110, section 12.4.2), in thousandths. What is none counts as 0.
fn thousandths(value: &str) -> u16 {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|octet| octet.is_ascii_digit()) {
        return 0;
    }
    match whole {
        "1" => 1000,
        "0" => format!("{decimals:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_liked_format_is_taken() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
                            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (None, Format::Text),
            (Some(""), Format::Text),
            (Some("*/*"), Format::Text),
            (Some(prometheus_2), Format::OpenMetrics),
            (Some(prometheus_3), Format::OpenMetrics),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), Format::Text),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (Some("Application/OpenMetrics-Text; Version=\"1.0.0\""), Format::OpenMetrics),
            (Some("application/openmetrics-text;q=0.2, text/plain;q=0.3"), Format::Text),
            (Some("application/openmetrics-text;q=0.3, text/plain;q=0.3"), Format::OpenMetrics),
            (Some("application/openmetrics-text;q=0.3, text/*;q=0.4, text/plain;q=0.1"), Format::OpenMetrics),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (Some("application/openmetrics-text;q=0,*/*;q=0"), Format::Text),
            (Some("application/openmetrics-text;version=2.0.0"), Format::Text),
            (Some("application/openmetrics-text;q=bad"), Format::Text),
            (Some(";;,=,;q=,é"), Format::Text),
        ] {
            assert_eq!(Format::negotiate(accept), expected, "{accept:?}");
        }
    }
}
