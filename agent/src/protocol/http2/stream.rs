//! One stream: a request and its response, each as far as it was seen.

use agent_common::ids::MonoNanos;

use crate::protocol::grpc::{Coding, Grpc, Messages};
use crate::protocol::http::CapturedHeader;
use crate::protocol::{Exchange, Thread};

/// How much of a request has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Receiving,
    Complete,
    /// The stream was ended before it was.
    Cut,
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
    /// It answers a call of gRPC.
    pub(super) coding: Option<Coding>,
    pub(super) grpc_status: Option<u32>,
    /// Its messages, as long as they can be counted.
    pub(super) messages: Option<Messages>,
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
    /// The request's messages, as long as they can be counted.
    pub(super) messages: Option<Messages>,
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
            messages: None,
            response: Response {
                start: None,
                status: None,
                headers: Vec::new(),
                coding: None,
                grpc_status: None,
                messages: None,
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

    /// What it tells as a call of gRPC, if it is one.
    pub(super) fn grpc(&self) -> Option<Grpc> {
        let response = &self.response;
        let asked = self.exchange.as_ref().and_then(|exchange| exchange.message.grpc);
        // A status without anything else that says so is that of a call whose other fields are not known.
        let coding = response.coding.or(response.grpc_status.map(|_| Coding::Plain));
        let grpc = asked.or(coding.map(Grpc::new))?;
        let messages = response.messages.as_ref();
        let silent = response.content == Some(0);
        Some(Grpc {
            status: response.grpc_status.or(messages.and_then(Messages::status)),
            requests: self.messages.as_ref().and_then(Messages::count),
            responses: messages.map_or(silent.then_some(0), Messages::count),
            ..grpc
        })
    }

    /// Octets of messages went by unseen, in the response or in the request.
    pub(super) fn lose_messages(&mut self, of_response: bool) {
        let messages = if of_response { &mut self.response.messages } else { &mut self.messages };
        *messages = None;
    }

    /// The exchange as far as it was seen.
    pub(super) fn finish(self, end: MonoNanos) -> Option<Exchange> {
        let grpc = self.grpc();
        let Self { exchange, request, response, .. } = self;
        let mut exchange = exchange?;
        exchange.response_start = response.start.map(|(at, _)| at.max(exchange.start));
        exchange.response_thread = response.start.map(|(_, thread)| thread);
        exchange.end = end.max(exchange.start);
        exchange.partial |= response.partial || request == Progress::Unknown;
        exchange.message.status = response.status;
        exchange.message.response_headers = response.headers;
        exchange.message.grpc = grpc;
        exchange.message.response_size = response.size;
        exchange.message.response_body = response.content.filter(|_| response.end.is_some());
        if request != Progress::Complete {
            exchange.message.request_body = None;
        }
        Some(exchange)
    }
}
