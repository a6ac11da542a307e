//! One connection: what goes in and comes out.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use agent_common::ids::{Direction, MonoNanos};

use super::Config;
use super::begins::BODY;
use super::channel::{Channel, Closing};
use super::lane::{Lane, State};
use super::message::{Exchange, Side};
use super::method::Sender;
use super::pending::{Doubt, Pending};
use crate::protocol::http::Stats;
use crate::protocol::{End, Failure, IgnoreReason, Notice, Segment, UNKNOWN, Verdict, Want};

/// Fewer octets than this are not worth telling the kernel side to leave out.
const WORTH_SKIPPING: u64 = 4096;

/// The state of one TCP connection as one process sees it.
///
/// Octets come in order per direction; the two directions may be a little apart in time. Exchanges go to `out` as they
/// end. What cannot be told is left out or counted, never guessed.
#[derive(Debug)]
pub struct Follower {
    pub(super) config: Arc<Config>,
    /// Seen from its first octet on.
    pub(super) fresh: bool,
    pub(super) egress: Lane,
    pub(super) ingress: Lane,
    /// The way the client sends, once known.
    pub(super) request_direction: Option<Direction>,
    pub(super) channels: BTreeMap<u16, Channel>,
    pub(super) pending: Pending,
    pub(super) number: u64,
    /// Known ones of all channels.
    pub(super) consumers: usize,
    /// The longest frame that was agreed on; 0: any.
    pub(super) frame_max: Option<u32>,
    pub(super) virtual_host: Option<Arc<str>>,
    pub(super) cluster: Option<Arc<str>>,
    pub(super) closing: Option<Closing>,
    pub(super) stats: Stats,
    pub(super) notices: Vec<Notice>,
    /// Segments in which nothing was found, while it is not certain that this is AMQP.
    pub(super) doubts: u32,
    /// Deliveries wait of which it is not known whether an acknowledgement is due.
    pub(super) unsure: bool,
    requests_ended: bool,
    responses_ended: bool,
    pub(super) over: Option<IgnoreReason>,
}

impl Follower {
    /// `fresh`: the connection is seen from its first octet on; otherwise perhaps from the middle of a frame.
    #[must_use]
    pub fn new(fresh: bool, config: Arc<Config>) -> Self {
        Self {
            config,
            fresh,
            egress: Lane::new(fresh),
            ingress: Lane::new(fresh),
            request_direction: None,
            channels: BTreeMap::new(),
            pending: Pending::default(),
            number: 0,
            consumers: 0,
            frame_max: None,
            virtual_host: None,
            cluster: None,
            closing: None,
            stats: Stats::default(),
            notices: Vec::new(),
            doubts: 0,
            unsure: false,
            requests_ended: false,
            responses_ended: false,
            over: None,
        }
    }

    /// Takes the octets of one direction that follow directly on the previous ones of that direction. `segment.missing`
    /// may be [`UNKNOWN`]. After [`Verdict::Ignore`] nothing more comes out.
    pub fn segment(&mut self, direction: Direction, segment: Segment<'_>, out: &mut impl FnMut(Exchange)) -> Verdict {
        if self.over.is_none() {
            self.feed(direction, &segment, out);
        }
        self.over.map_or(Verdict::Follow, Verdict::Ignore)
    }

    /// Octets of one direction were lost before what comes next: this many, or an unknown number. `at` is when that
    /// became known.
    pub fn gap(&mut self, direction: Direction, octets: Option<u64>, at: MonoNanos, out: &mut impl FnMut(Exchange)) {
        if self.over.is_none() {
            self.pass(direction, octets.unwrap_or(UNKNOWN), at, out);
        }
    }

    /// One direction ends after all its octets (FIN); a reset or a time-out ends both.
    pub fn end(&mut self, direction: Direction, at: MonoNanos, end: End, out: &mut impl FnMut(Exchange)) {
        if end != End::Closed {
            return self.close(at, end, out);
        }
        match self.request_direction {
            Some(requests) if requests == direction => self.requests_ended = true,
            Some(_) => {
                self.responses_ended = true;
                self.fail(Failure::ServerClosed, at, out);
            }
            None => {}
        }
    }

    /// The connection is gone; a direction that ended before it was told by [`Self::end`]. Everything outstanding ends.
    pub fn close(&mut self, at: MonoNanos, end: End, out: &mut impl FnMut(Exchange)) {
        let served = self.request_direction == Some(Direction::Ingress);
        let failure = Failure::of_end(end, served, self.requests_ended, self.responses_ended);
        self.fail(failure, at, out);
    }

    /// What may be left uncaptured in `direction` from its current position on.
    #[must_use]
    pub fn want(&self, direction: Direction) -> Want {
        let skip = if self.over.is_none() { self.skippable(direction) } else { 0 };
        let skip = Some(skip).filter(|skip| *skip > WORTH_SKIPPING).and_then(NonZeroU64::new);
        Want { skip, lean: false, whole: self.request_direction.is_some() }
    }

    /// So many of the octets that follow need not be seen: the rest of a frame of a body behind what counts of that.
    fn skippable(&self, direction: Direction) -> u64 {
        let lane = match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        };
        let State::Frame(frame) = &lane.state else { return 0 };
        if frame.kind != BODY || !lane.proven {
            return 0;
        }
        let channel = self.channels.get(&frame.channel);
        let content = channel.and_then(|channel| match self.sender(direction)? {
            Sender::Client => channel.published.as_ref(),
            _ => channel.delivered.as_ref(),
        });
        match content {
            Some(content) if content.hashed > 0 && content.hasher.is_some() => 0,
            _ => frame.left,
        }
    }

    /// Whether messages wait that [`Self::settle_unknown`] may give out.
    #[must_use]
    pub const fn is_unsettled(&self) -> bool {
        self.unsure && self.over.is_none()
    }

    /// Messages under way, or not settled yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// The way the client sends, once known: egress means that the process is the client.
    #[must_use]
    pub fn request_direction(&self) -> Option<Direction> {
        self.request_direction
    }

    /// Whether it has proved to be AMQP.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.request_direction.is_some()
    }

    /// What was counted since the last call.
    pub fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.stats)
    }

    /// Takes what is to be told of the client's own messages, in order. One that has been told is given out later, or was by the same
    /// call.
    pub fn notices(&mut self) -> std::vec::Drain<'_, Notice> {
        self.notices.drain(..)
    }

    pub(super) fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }

    /// Whose octets go this way.
    pub(super) fn sender(&self, direction: Direction) -> Option<Sender> {
        let requests = self.request_direction?;
        Some(if requests == direction { Sender::Client } else { Sender::Broker })
    }

    /// What the observed process is.
    pub(super) fn side(&self) -> Side {
        if self.request_direction == Some(Direction::Ingress) { Side::Broker } else { Side::Client }
    }

    /// Whose octets are not understood at present.
    pub(super) fn blind(&self) -> Doubt {
        let blind = |lane: &Lane| lane.is_lost() || !lane.proven;
        let (egress, ingress) = (blind(&self.egress), blind(&self.ingress));
        if self.request_direction == Some(Direction::Ingress) {
            Doubt { client: ingress, broker: egress }
        } else {
            Doubt { client: egress, broker: ingress }
        }
    }

    /// The state of a channel; `None` when there are too many.
    pub(super) fn channel(&mut self, id: u16) -> Option<&mut Channel> {
        let room = self.channels.len() < self.config.channels;
        if !room && !self.channels.contains_key(&id) {
            return None;
        }
        Some(self.channels.entry(id).or_insert_with(|| Channel::new(None)))
    }

    pub(super) fn drop_channel(&mut self, id: u16) {
        if let Some(channel) = self.channels.remove(&id) {
            self.consumers -= channel.consumers.len();
        }
    }
}
