//! What a client is to do.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// One request.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Step {
    pub method: String,
    /// Path and query; unique in a plan, since spans are matched by it.
    pub target: String,
    /// Octets of content to send.
    pub body: u64,
    /// Send the content chunked.
    pub chunked: bool,
    /// `Expect: 100-continue`.
    pub expect: bool,
    pub headers: BTreeMap<String, String>,
    /// What the content repeats; `x` when empty. Only the Python client.
    pub fill: String,
}

impl Step {
    #[must_use]
    pub fn get(target: impl Into<String>) -> Self {
        Self { method: "GET".to_owned(), target: target.into(), ..Self::default() }
    }

    #[must_use]
    pub fn post(target: impl Into<String>, body: u64) -> Self {
        Self { method: "POST".to_owned(), target: target.into(), body, ..Self::default() }
    }

    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    #[must_use]
    pub fn fill(mut self, text: &str) -> Self {
        text.clone_into(&mut self.fill);
        self
    }

    #[must_use]
    pub fn expect(mut self) -> Self {
        self.expect = true;
        self
    }
}

/// `count` GETs of `/item/N`.
#[must_use]
pub fn items(tag: &str, count: usize) -> Vec<Step> {
    (0..count).map(|i| Step::get(format!("/item/{i}?id={tag}-{i}"))).collect()
}

/// `count` requests that differ in method, status, size and framing. Some servers (nginx) close the connection after
/// the 500 in each 16, which is the last of 8 that are sent together.
#[must_use]
pub fn mixed(tag: &str, count: usize) -> Vec<Step> {
    let mut steps = kept(tag, count);
    for (i, step) in steps.iter_mut().enumerate().skip(15).step_by(16) {
        *step = Step::get(format!("/status/500?id={tag}-{i}"));
    }
    steps
}

/// The same, after none of which a server closes the connection.
#[must_use]
pub fn kept(tag: &str, count: usize) -> Vec<Step> {
    let step = |i: usize| {
        let id = format!("id={tag}-{i}");
        match i % 8 {
            0 => Step::get(format!("/item/{i}?{id}")),
            1 => Step::post(format!("/echo?{id}"), (i as u64 * 37) % 2000 + 1),
            2 => Step::get(format!("/status/404?{id}")),
            3 => Step::get(format!("/big/{}?{id}", BIG[i / 8 % BIG.len()])),
            4 => Step::get(format!("/status/503?{id}")),
            5 => Step::get(format!("/item/{i}?{id}")).method("HEAD"),
            6 => Step::get(format!("/chunked/{}?{id}", i % 5 + 1)),
            _ => Step::post(format!("/echo?{id}"), 300 + i as u64 % 7).method("PUT"),
        }
    };
    (0..count).map(step).collect()
}

/// The sizes that [`mixed`] asks for: below and above what is captured of a call, and of several calls.
pub const BIG: [u64; 4] = [1, 1500, 20_000, 300_000];

/// Writes `steps` for a client to read.
pub fn write(path: &Path, steps: &[Step]) -> Result<()> {
    let mut text = Vec::new();
    for step in steps {
        serde_json::to_writer(&mut text, step)?;
        writeln!(text)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
