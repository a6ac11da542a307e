//! Which spans somebody wants to see.

use serde::Deserialize;

use crate::signal::http::path_and_query;
use crate::signal::span::{Detail, Span, SpanKind, Status};

/// A filter as query parameters; an absent or empty one lets everything through.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Params {
    /// `service.name`, exactly.
    pub service: String,
    /// `server`, `client`, `producer` or `consumer`.
    pub kind: String,
    /// `all`, a class (`4xx`), a code (`404`) or `errors` (spans whose status is an error).
    pub status: String,
    /// Part of the path or the topic, case-sensitive.
    pub path: String,
    /// At most so many spans (`/api/spans`).
    pub limit: Option<usize>,
    /// The cursor to go on from (`/api/stream`).
    pub after: Option<u64>,
}

/// Query parameters that made sense.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    service: Option<Box<str>>,
    kind: Option<SpanKind>,
    status: StatusFilter,
    path: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusFilter {
    All,
    Class(u16),
    Code(u16),
    Errors,
}

/// A parameter's value is none that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FilterError {
    #[error("kind is server, client, producer or consumer")]
    Kind,
    #[error("status is all, errors, a class such as 4xx or a code such as 404")]
    Status,
}

impl TryFrom<Params> for Filter {
    type Error = FilterError;

    fn try_from(params: Params) -> Result<Self, FilterError> {
        let text = |text: String| (!text.is_empty()).then(|| text.into_boxed_str());
        let kind = match params.kind.as_str() {
            "" | "all" => None,
            "server" => Some(SpanKind::Server),
            "client" => Some(SpanKind::Client),
            "producer" => Some(SpanKind::Producer),
            "consumer" => Some(SpanKind::Consumer),
            _ => return Err(FilterError::Kind),
        };
        let status = match params.status.as_str() {
            "" | "all" => StatusFilter::All,
            "errors" => StatusFilter::Errors,
            class if class.len() == 3 && class.ends_with("xx") => {
                let digit = class.chars().next().and_then(|digit| digit.to_digit(10));
                let digit = digit.filter(|digit| (1..=9).contains(digit)).ok_or(FilterError::Status)?;
                StatusFilter::Class(u16::try_from(digit).map_err(|_| FilterError::Status)?)
            }
            code => {
                let code = code.parse().ok().filter(|code| (100..=999).contains(code));
                StatusFilter::Code(code.ok_or(FilterError::Status)?)
            }
        };
        Ok(Self { service: text(params.service), kind, status, path: text(params.path) })
    }
}

impl Filter {
    #[must_use]
    pub(super) fn matches(&self, span: &Span) -> bool {
        let code = match &span.detail {
            Detail::Http(detail) => detail.exchange.message.status,
            Detail::Connect(_) | Detail::Message(_) | Detail::Moved(_) => None,
        };
        let status = match self.status {
            StatusFilter::All => true,
            StatusFilter::Class(class) => code.is_some_and(|code| code / 100 == class),
            StatusFilter::Code(wanted) => code == Some(wanted),
            StatusFilter::Errors => span.status == Status::Error,
        };
        status
            && self.kind.is_none_or(|kind| kind == span.kind)
            && self.service.as_ref().is_none_or(|service| *service == span.resource.service_name)
            && self.path.as_ref().is_none_or(|part| path(span).is_some_and(|path| path.contains(&**part)))
    }
}

/// The path asked for; of CONNECT, the authority; of messages, the topic. Never the query, which may hold secrets.
#[must_use]
pub(super) fn path(span: &Span) -> Option<&str> {
    match &span.detail {
        Detail::Http(detail) => {
            let target = &*detail.exchange.message.target;
            match path_and_query(target) {
                (Some(path), _) => Some(path),
                (None, None) => Some(crate::signal::redact::authority(target)),
                (None, Some(_)) => None,
            }
        }
        Detail::Message(detail) => detail.topic(),
        Detail::Moved(moved) => moved.destination(),
        Detail::Connect(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::sample;
    use crate::signal::span::Kind;

    fn matching(query: &str) -> Result<Vec<u64>, FilterError> {
        let spans = [
            sample::span(1).service("shop").target("/cart?item=1").status(200).build(),
            sample::span(2).service("shop").target("/cart/7").status(404).build(),
            sample::span(3).service("shop").target("/Cart").status(503).error().build(),
            sample::span(4).service("web").kind(Kind::Client).target("http://h/cart").status(404).error().build(),
            sample::span(5).service("web").kind(Kind::Client).refused().build(),
            sample::message(6, SpanKind::Producer, "carts", &[]).service("shop").build(),
            sample::message(7, SpanKind::Consumer, "carts", &[]).service("stock").build(),
        ];
        let mut params = Params::default();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = value.to_owned();
            match key {
                "service" => params.service = value,
                "kind" => params.kind = value,
                "status" => params.status = value,
                _ => params.path = value,
            }
        }
        let filter = Filter::try_from(params)?;
        Ok(spans.iter().filter(|span| filter.matches(span)).map(|span| u64::from_be_bytes(span.span_id.0)).collect())
    }

    #[test]
    fn filters_join_by_and() {
        let cases: [(&str, Result<&[u64], FilterError>); 23] = [
            ("", Ok(&[1, 2, 3, 4, 5, 6, 7])),
            ("status=all&service=&path=", Ok(&[1, 2, 3, 4, 5, 6, 7])),
            ("service=shop", Ok(&[1, 2, 3, 6])),
            ("service=sho", Ok(&[])),
            ("kind=client", Ok(&[4, 5])),
            ("status=2xx", Ok(&[1])),
            ("status=4xx", Ok(&[2, 4])),
            ("status=404", Ok(&[2, 4])),
            ("status=404&service=web", Ok(&[4])),
            ("status=errors", Ok(&[3, 4, 5])),
            ("path=cart", Ok(&[1, 2, 4, 6, 7])),
            ("path=item", Ok(&[])),
            ("path=/cart/&status=4xx&kind=server", Ok(&[2])),
            ("status=40x", Err(FilterError::Status)),
            ("status=0xx", Err(FilterError::Status)),
            ("status=éx", Err(FilterError::Status)),
            ("status=99", Err(FilterError::Status)),
            ("status=70000", Err(FilterError::Status)),
            ("path=carts", Ok(&[6, 7])),
            ("kind=producer", Ok(&[6])),
            ("kind=consumer&path=carts", Ok(&[7])),
            ("kind=consumer&service=shop", Ok(&[])),
            ("kind=internal", Err(FilterError::Kind)),
        ];
        for (query, expected) in cases {
            assert_eq!(matching(query), expected.map(<[u64]>::to_vec), "{query}");
        }
    }

    #[test]
    fn passwords_of_an_authority_are_not_shown() {
        let span = sample::span(1).target("user:secret@host:443").build();
        assert_eq!(path(&span), Some("host:443"));
    }
}
