//! One stream: a request and its response, each as far as it was seen.

use agent_common::ids::MonoNanos;

use crate::protocol::http::{CapturedHeader, Grpc};
use crate::protocol::{Exchange, Thread};

/// How much of a request has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Receiving,
    Complete,
    /// Its end cannot be told.
    Unknown,
}

/// What was seen of a response.
#[derive(Debug)]
pub(super) struct Response {
    /// The first octet of the final response's head.
    pub(super) start: Option<(MonoNanos, Thread)>,
    pub(super) status: Option<u16>,
    pub(super) headers: Vec<CapturedHeader>,
    pub(super) grpc: Option<Grpc>,
    /// All octets, and those of the content when all were counted.
    pub(super) size: u64,
    pub(super) content: Option<u64>,
    pub(super) end: Option<MonoNanos>,
    pub(super) partial: bool,
}

#[derive(Debug)]
pub(super) struct Stream {
    /// The request; `None` while only the response was seen.
    pub(super) exchange: Option<Exchange>,
    pub(super) request: Progress,
    pub(super) response: Response,
    /// Octets of memory that the request's texts take.
    pub(super) weight: usize,
    /// It may have ended unseen, or one side of it will not end.
    pub(super) doubtful: bool,
    pub(super) last: MonoNanos,
}

impl Stream {
    pub(super) const fn new(at: MonoNanos) -> Self {
        Self {
            exchange: None,
            request: Progress::Receiving,
            response: Response {
                start: None,
                status: None,
                headers: Vec::new(),
                grpc: None,
                size: 0,
                content: Some(0),
                end: None,
                partial: false,
            },
            weight: 0,
            doubtful: false,
            last: at,
        }
    }

    /// The exchange as far as it was seen.
    pub(super) fn finish(self, end: MonoNanos) -> Option<Exchange> {
        let Self { exchange, request, response, .. } = self;
        let mut exchange = exchange?;
        exchange.response_start = response.start.map(|(at, _)| at.max(exchange.start));
        exchange.response_thread = response.start.map(|(_, thread)| thread);
        exchange.end = end.max(exchange.start);
        exchange.partial |= response.partial || request == Progress::Unknown;
        exchange.http.status = response.status;
        exchange.http.response_headers = response.headers;
        exchange.http.grpc = response.grpc.or(exchange.http.grpc);
        exchange.http.response_size = response.size;
        exchange.http.response_body = response.content.filter(|_| response.end.is_some());
        if request != Progress::Complete {
            exchange.http.request_body = None;
        }
        Some(exchange)
    }
}
