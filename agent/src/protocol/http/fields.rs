//! Header fields to what an exchange keeps of them.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use super::Config;
use super::message::{CapturedHeader, HttpMessage, Method, Version};
use crate::protocol::context::ContextFields;
use crate::protocol::grpc::{self, Coding, Grpc};

/// Takes the fields of one request.
pub(in crate::protocol) struct RequestFields<'a, 'c> {
    host: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    context: ContextFields<'a>,
    request_id_names: &'c [Box<str>],
    request_id: Option<u64>,
    coding: Option<Coding>,
    timeout: Option<u64>,
    capture: Capture<'c>,
}

impl<'a, 'c> RequestFields<'a, 'c> {
    pub(in crate::protocol) fn new(config: &'c Config) -> Self {
        Self {
            host: None,
            user_agent: None,
            context: ContextFields::default(),
            request_id_names: &config.request_id_headers,
            request_id: None,
            coding: None,
            timeout: None,
            capture: Capture::new(&config.request_headers),
        }
    }

    pub(in crate::protocol) fn add(&mut self, name: &str, value: &'a [u8]) {
        let is = |expected: &str| name.eq_ignore_ascii_case(expected);
        match name.len() {
            4 if is("host") => _ = self.host.get_or_insert(value),
            12 if is("content-type") => self.coding = self.coding.or(Coding::of(value)),
            12 if is("grpc-timeout") => self.timeout = grpc::timeout(value),
            10 if is("user-agent") => _ = self.user_agent.get_or_insert(value),
            _ if self.context.add(name, value) => {}
            _ if self.request_id.is_none() && self.request_id_names.iter().any(|wanted| is(wanted)) => {
                self.request_id = hash(value);
            }
            _ => {}
        }
        self.capture.add(name, value);
    }

    /// What is known of the exchange by its request's head; sizes are 0.
    /// It is a call of gRPC if the content says so, but over HTTP/1 there is only gRPC-Web.
    pub(in crate::protocol) fn finish(self, method: Method, target: Arc<str>, version: Version) -> HttpMessage {
        HttpMessage {
            method,
            method_original: None,
            target,
            version,
            https: false,
            host: self.host.map(text),
            user_agent: self.user_agent.map(text),
            status: None,
            request_body: None,
            response_body: None,
            request_size: 0,
            response_size: 0,
            context: self.context.finish(),
            request_id: self.request_id,
            grpc: self
                .coding
                .filter(|coding| version == Version::Http2 || *coding != Coding::Plain)
                .map(|coding| Grpc { timeout: self.timeout, ..Grpc::new(coding) }),
            request_headers: self.capture.values,
            response_headers: Vec::new(),
        }
    }
}

/// Keeps the fields that an allow list names.
pub(in crate::protocol) struct Capture<'c> {
    names: &'c [Box<str>],
    pub(in crate::protocol) values: Vec<CapturedHeader>,
}

impl<'c> Capture<'c> {
    pub(in crate::protocol) fn new(names: &'c [Box<str>]) -> Self {
        Self { names, values: Vec::new() }
    }

    pub(in crate::protocol) fn add(&mut self, name: &str, value: &[u8]) {
        let Some(wanted) = self.names.iter().find(|wanted| wanted.eq_ignore_ascii_case(name)) else { return };
        let value = text(value);
        match self.values.iter_mut().find(|(kept, _)| kept == wanted) {
            Some((_, values)) => values.push(value),
            None => self.values.push((wanted.clone(), vec![value])),
        }
    }
}

/// A hash of a request's id; `None` of one that is too short to be one's own.
fn hash(value: &[u8]) -> Option<u64> {
    const SHORTEST: usize = 8;
    let value = value.trim_ascii();
    (value.len() >= SHORTEST).then(|| {
        let mut hasher = DefaultHasher::new();
        hasher.write(value);
        hasher.finish()
    })
}

pub(in crate::protocol) fn text(octets: &[u8]) -> Box<str> {
    String::from_utf8_lossy(octets).into()
}
