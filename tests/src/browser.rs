//! Headless Chromium, driven by the DevTools protocol over a pair of pipes: messages in JSON, each ended by a 0 octet.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::{env, wait};

const DEADLINE: Duration = Duration::from_secs(60);

/// A browser with one page. Ended on drop.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Json>,
    events: VecDeque<Json>,
    session: String,
    next: u64,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser and opens `url`.
    pub fn open(url: &str) -> Result<Self> {
        let profile = TempDir::new()?;
        // Chromium reads from descriptor 3 and writes to descriptor 4.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>&2 2>/dev/null"#])
            .arg(env::which("chromium").context("chromium is not installed")?)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-extensions"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start chromium")?;
        let to = child.stdin.take().context("no pipe to chromium")?;
        let mut pipe = BufReader::new(child.stdout.take().context("no pipe from chromium")?);
        let (sender, from) = sync_channel(4096);
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while let Ok(1..) = pipe.read_until(0, &mut message) {
                message.pop();
                let sent = serde_json::from_slice(&message).ok().map(|message| sender.send(message));
                message.clear();
                if let Some(Err(_)) = sent {
                    break;
                }
            }
        });
        let session = String::new();
        let mut browser = Self { child, to, from, events: VecDeque::new(), session, next: 0, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let target = text(&target, "targetId")?;
        let attached = browser.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }))?;
        browser.session = text(&attached, "sessionId")?;
        browser.call("Network.enable", &json!({}))?;
        browser.call("Runtime.enable", &json!({}))?;
        browser.call("Page.navigate", &json!({ "url": url }))?;
        Ok(browser)
    }

    /// The value of a JavaScript expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Result<Json> {
        let answer = self.call("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true }))?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression} throws {thrown}");
        }
        Ok(answer.pointer("/result/value").cloned().unwrap_or(Json::Null))
    }

    /// Waits until a JavaScript expression is true; the error shows the page's text.
    pub fn until(&mut self, expression: &str) -> Result<()> {
        let what = format!("the page fulfils {expression}");
        // What throws is not fulfilled yet: the page may still be loading.
        let met =
            wait::until(
                DEADLINE,
                &what,
                || Ok(matches!(self.evaluate(expression), Ok(Json::Bool(true))).then_some(())),
            );
        met.or_else(|error| {
            let shown = self.evaluate("document.body.innerText")?;
            Err(error.context(format!("the page shows {shown:.3000}")))
        })
    }

    /// Addresses that the page has asked for until now.
    pub fn asked_for(&mut self) -> Vec<String> {
        self.events.extend(self.from.try_iter());
        let asked = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        asked.filter_map(|event| event.pointer("/params/request/url")?.as_str().map(str::to_owned)).collect()
    }

    /// What scripts threw and nobody caught.
    pub fn exceptions(&mut self) -> Vec<String> {
        self.events.extend(self.from.try_iter());
        let thrown = self.events.iter().filter(|event| event["method"] == "Runtime.exceptionThrown");
        thrown.map(|event| event["params"].to_string()).collect()
    }

    fn call(&mut self, method: &str, params: &Json) -> Result<Json> {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).context("chromium is gone")?;
        self.to.flush()?;
        let start = Instant::now();
        loop {
            let left = DEADLINE.checked_sub(start.elapsed()).context("chromium does not answer")?;
            let mut message = self.from.recv_timeout(left).with_context(|| format!("no answer to {method}"))?;
            if message["id"] != self.next {
                self.events.push_back(message);
                continue;
            }
            if let Some(error) = message.get("error") {
                bail!("{method}: {error}");
            }
            return Ok(message["result"].take());
        }
    }
}

fn text(of: &Json, key: &str) -> Result<String> {
    of.get(key).and_then(Json::as_str).map(str::to_owned).with_context(|| format!("no {key} in {of}"))
}

impl Drop for Browser {
    fn drop(&mut self) {
        let asked = self.call("Browser.close", &json!({}));
        let ended = || Ok(self.child.try_wait()?.map(drop));
        if asked.is_err() || wait::until(Duration::from_secs(5), "chromium ends", ended).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
