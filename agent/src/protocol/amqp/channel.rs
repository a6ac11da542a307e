//! What a channel is set to, and what is under way on it.

use std::collections::{BTreeMap, VecDeque};
use std::hash::DefaultHasher;
use std::sync::Arc;

use agent_common::ids::MonoNanos;

use super::method::{How, Route, Sender};
use super::pending::Doubt;
use crate::protocol::piece::Start;

/// Answers that are due, and settlements that came before what they settle: so many at most.
const MOST: usize = 16;

/// Whether publishes are confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirms {
    Off,
    /// The next publish has this number, as far as it is known.
    On(Option<u64>),
    Unknown,
}

/// The content of a message in one direction: its header, then its body.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) of: Of,
    /// Body octets that are still to come; `None` before the content header.
    pub(super) left: Option<u64>,
    /// Of these, so many count for the hash.
    pub(super) hashed: u64,
    /// `None` when something that counts was not seen.
    pub(super) hasher: Option<DefaultHasher>,
}

/// What a content is of.
#[derive(Debug)]
pub(super) enum Of {
    /// The transfer of this number.
    Transfer(u64),
    Returned(Box<Returned>),
}

/// A message that the broker gives back.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) at: MonoNanos,
    pub(super) code: u16,
    pub(super) text: Box<str>,
    pub(super) exchange: Option<Box<str>>,
    pub(super) routing_key: Option<Box<str>>,
    pub(super) content: Option<u64>,
}

/// A confirm or an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    pub(super) how: How,
    pub(super) tag: u64,
    pub(super) multiple: bool,
    pub(super) start: Start,
    /// Its last octet.
    pub(super) end: MonoNanos,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Consumer {
    pub(super) tag: Option<Arc<str>>,
    pub(super) queue: Option<Arc<str>>,
    pub(super) no_ack: Option<bool>,
    pub(super) doubt: Doubt,
}

/// What is asked for and answered in the same order.
#[derive(Debug)]
pub(super) struct Asked<T> {
    waiting: VecDeque<T>,
    /// Which answer is to what is not known.
    hazy: bool,
}

impl<T> Asked<T> {
    const fn new(hazy: bool) -> Self {
        Self { waiting: VecDeque::new(), hazy }
    }

    pub(super) fn ask(&mut self, what: T) {
        if self.waiting.len() >= MOST {
            self.blur();
        }
        if !self.hazy {
            self.waiting.push_back(what);
        }
    }

    /// What the next answer is to.
    pub(super) fn answer(&mut self) -> Option<T> {
        let first = self.waiting.pop_front();
        self.hazy |= first.is_none();
        first
    }

    pub(super) fn blur(&mut self) {
        self.waiting.clear();
        self.hazy = true;
    }

    /// Answers may have been lost.
    fn unanswered(&mut self) {
        if !self.waiting.is_empty() {
            self.blur();
        }
    }
}

/// Who closes a channel or the connection, and why.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    pub(super) by_client: bool,
    pub(super) error: (u16, Box<str>),
}

#[derive(Debug)]
pub(super) struct Channel {
    /// When it was opened, if that was seen.
    pub(super) opened: MonoNanos,
    /// The broker's answer to that is due.
    pub(super) opening: bool,
    pub(super) closing: Option<Closing>,
    pub(super) confirms: Confirms,
    /// Publishes that wait for a confirm, by its number, and deliveries by their tag.
    pub(super) publishes: BTreeMap<u64, u64>,
    pub(super) deliveries: BTreeMap<u64, u64>,
    pub(super) newest_delivery: u64,
    /// All deliveries were given back or settled at once, or may have been: which of those that came after was among them is not known
    /// until one is settled by its number, since those behind that were not.
    pub(super) swept: bool,
    /// When the newest acknowledgement was that found no delivery and is not kept.
    pub(super) missed_acks: Option<MonoNanos>,
    /// A message that comes back may be one that is not among `publishes`.
    pub(super) strays: bool,
    pub(super) published: Option<Content>,
    pub(super) delivered: Option<Content>,
    /// Confirms, acknowledgements and returned messages that were read before what they are about.
    pub(super) early_confirms: VecDeque<Settling>,
    pub(super) early_acks: VecDeque<Settling>,
    pub(super) early_returns: VecDeque<Returned>,
    pub(super) consumers: BTreeMap<Arc<str>, Consumer>,
    pub(super) consumes: Asked<Consumer>,
    pub(super) gets: Asked<Consumer>,
    /// Declarations of queues, those without a name as `None`.
    pub(super) declares: Asked<Option<Arc<str>>>,
    /// The queue declared last, which an empty name stands for.
    pub(super) queue: Option<Arc<str>>,
    /// The exchange and routing key of the message before: mostly those of the next.
    pub(super) route: (Arc<str>, Arc<str>),
}

impl Channel {
    /// `opened`: nothing was set on it yet; otherwise nothing is known of it.
    pub(super) fn new(opened: Option<MonoNanos>) -> Self {
        let hazy = opened.is_none();
        Self {
            opened: opened.unwrap_or_default(),
            opening: !hazy,
            closing: None,
            confirms: if hazy { Confirms::Unknown } else { Confirms::Off },
            publishes: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            newest_delivery: 0,
            swept: hazy,
            missed_acks: None,
            strays: hazy,
            published: None,
            delivered: None,
            early_confirms: VecDeque::new(),
            early_acks: VecDeque::new(),
            early_returns: VecDeque::new(),
            consumers: BTreeMap::new(),
            consumes: Asked::new(hazy),
            gets: Asked::new(hazy),
            declares: Asked::new(hazy),
            queue: None,
            route: Default::default(),
        }
    }

    /// The number of the next publish, when confirms will name it.
    pub(super) fn next_publish(&mut self) -> Option<u64> {
        let Confirms::On(Some(next)) = &mut self.confirms else { return None };
        let number = *next;
        *next = next.wrapping_add(1);
        Some(number)
    }

    /// A queue was declared. Which name the broker gives it, its answer tells.
    pub(super) fn declare(&mut self, name: Option<Arc<str>>, no_wait: bool) {
        self.queue.clone_from(&name);
        if !no_wait {
            self.declares.ask(name);
        }
    }

    pub(super) fn declared(&mut self, name: Option<&str>) {
        match self.declares.answer() {
            Some(Some(asked)) if name != Some(&*asked) => self.declares.blur(),
            // Nothing was declared since.
            Some(None) if self.declares.waiting.is_empty() && self.queue.is_none() => self.queue = name.map(Into::into),
            _ => {}
        }
    }

    /// The queue of this name, or the one declared last.
    pub(super) fn queue(&self, name: Option<&str>) -> Option<Arc<str>> {
        match name {
            Some("") => self.queue.clone(),
            name => name.map(Into::into),
        }
    }

    /// Keeps a confirm that came before its publish. With too many the numbers cannot be right.
    pub(super) fn keep_confirm(&mut self, settling: Settling) {
        self.early_confirms.push_back(settling);
        if self.early_confirms.len() > MOST {
            self.confirms = Confirms::On(None);
            self.early_confirms.clear();
        }
    }

    /// Keeps an acknowledgement that came before its delivery.
    pub(super) fn keep_ack(&mut self, settling: Settling) {
        self.early_acks.push_back(settling);
        if self.early_acks.len() > MOST
            && let Some(oldest) = self.early_acks.pop_front()
        {
            self.miss_ack(oldest.start.at);
        }
    }

    /// An acknowledgement of this time is not kept: what it was of may have come before.
    pub(super) fn miss_ack(&mut self, at: MonoNanos) {
        self.missed_acks = self.missed_acks.max(Some(at));
    }

    /// What came early for this tag.
    pub(super) fn take_early(queue: &mut VecDeque<Settling>, tag: u64) -> Option<Settling> {
        let place = queue.iter().position(|early| early.tag == tag || (early.multiple && early.tag > tag))?;
        if queue.get(place).is_some_and(|early| early.tag == tag) {
            return queue.remove(place);
        }
        queue.get(place).copied()
    }

    /// Keeps a returned message that came before its publish.
    pub(super) fn keep_return(&mut self, returned: Returned) {
        self.early_returns.push_back(returned);
        if self.early_returns.len() > MOST {
            self.confirms = Confirms::On(None);
            self.early_returns.clear();
        }
    }

    pub(super) fn content(&mut self, sender: Sender) -> &mut Option<Content> {
        if sender == Sender::Client { &mut self.published } else { &mut self.delivered }
    }

    /// What the next message's route is, with the texts of the one before where they are the same.
    pub(super) fn share(&mut self, route: Route<'_>) -> (Option<Arc<str>>, Option<Arc<str>>) {
        (shared(&mut self.route.0, route.exchange), shared(&mut self.route.1, route.routing_key))
    }

    /// The client's octets are missing from here on.
    pub(super) fn client_lost(&mut self) {
        self.confirms = match self.confirms {
            Confirms::On(_) => Confirms::On(None),
            Confirms::Off | Confirms::Unknown => Confirms::Unknown,
        };
        self.queue = None;
        self.strays = true;
        self.swept = true;
        self.early_confirms.clear();
        self.early_returns.clear();
        self.consumes.blur();
        self.gets.blur();
        self.declares.blur();
    }

    /// The broker's octets are missing from here on.
    pub(super) fn broker_lost(&mut self) {
        self.consumes.unanswered();
        self.gets.unanswered();
        self.declares.unanswered();
    }
}

fn shared(last: &mut Arc<str>, text: Option<&str>) -> Option<Arc<str>> {
    let text = text?;
    if **last != *text {
        *last = text.into();
    }
    Some(Arc::clone(last))
}
