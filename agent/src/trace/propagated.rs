//! Traces that the kernel side has decided about, since it had to send them on before user space could
//! (`--propagate`). What others were told wins over what is found out later: a trace keeps the id that it was told by.

use agent_common::ids::{ConnId, MonoNanos, Seq, Tgid, TraceId};
use rustc_hash::FxHashMap;

use super::ends::End;
use super::habits::Habits;
use super::place::{Link, Method};
use super::{Placed, Traces};
use crate::conn::ExchangeId;
use crate::signal::span::Kind;
use crate::source::{By, Told};

/// What is kept for it. Empty while nothing is propagated.
#[derive(Debug, Default)]
pub(super) struct Propagated {
    on: bool,
    /// Servers' requests by connection and position, as the kernel side names them.
    requests: FxHashMap<(ConnId, Seq), ExchangeId>,
    /// How many requests each thread has open.
    busy: FxHashMap<(Tgid, u32), u32>,
    /// Processes whose habits the kernel side does not know yet.
    changed: Vec<(Tgid, u8)>,
}

impl Propagated {
    /// A request has begun.
    pub(super) fn begun(&mut self, kind: Kind, id: ExchangeId, position: Seq) {
        if self.on && kind == Kind::Server {
            self.requests.insert((id.conn(), position), id);
        }
    }

    /// A request begins in a process with these habits so far.
    pub(super) fn enters(&mut self, kind: Kind, tgid: Tgid, tid: u32, habits: &mut Habits) {
        if !self.on {
            return;
        }
        if kind == Kind::Server {
            let open = self.busy.entry((tgid, tid)).or_default();
            if habits.serving > 0 {
                habits.overlaps(*open > 0);
            }
            *open += 1;
        } else if habits.serving == 0 {
            habits.called_unasked();
        }
        self.changed.extend(habits.tell().map(|bits| (tgid, bits)));
    }

    /// A server's request is over.
    pub(super) fn leaves(&mut self, tgid: Tgid, tid: u32, habits: &mut Habits) {
        if !self.on {
            return;
        }
        if let Some(open) = self.busy.get_mut(&(tgid, tid)) {
            *open -= 1;
            if *open == 0 {
                self.busy.remove(&(tgid, tid));
            }
        }
        self.changed.extend(habits.tell().map(|bits| (tgid, bits)));
    }
}

impl Traces {
    /// Contexts are propagated from now on.
    pub fn propagate(&mut self) {
        self.propagated.on = true;
    }

    /// A process' habits, as bits of the kernel side's map of processes.
    #[must_use]
    pub fn habits_of(&self, tgid: Tgid) -> u8 {
        if self.propagated.on { self.habits.get(&tgid).map_or(0, Habits::bits) } else { 0 }
    }

    /// Habits that have changed since the last call.
    pub fn changed_habits(&mut self) -> impl Iterator<Item = (Tgid, u8)> + '_ {
        // Requests that are forgotten leave without notice.
        if self.propagated.requests.len() > 2 * self.open.len() + 1024 {
            self.propagated.requests.retain(|_, id| self.open.contains_key(id));
        }
        self.propagated.changed.drain(..)
    }

    /// Places an exchange by what the kernel side knows of its trace. Whether that was enough; a server's new trace is
    /// not, as its client may be on this host.
    pub(super) fn follow(
        &mut self,
        id: ExchangeId,
        told: &Told,
        kind: Kind,
        met: Option<End>,
        at: MonoNanos,
        out: &mut Vec<Placed>,
    ) -> bool {
        let (cause, method) = match (kind, told.by) {
            (Kind::Server, By::Option) => {
                let client = met.filter(|met| self.open.get(&met.id).map(|open| open.span_id) == told.span_id);
                match client {
                    Some(client) => self.join(id, client.id, Link::certain(Method::Socket), out),
                    None => {
                        let Some(open) = self.open.get(&id) else { return true };
                        let place = self.judge.told(told, open.origin(), at);
                        self.settle(id, place, out);
                    }
                }
                return true;
            }
            (Kind::Server, _) => return false,
            (Kind::Client, By::Thread(conn, position)) => ((conn, position), Method::Thread),
            (Kind::Client, By::Only(conn, position)) => ((conn, position), Method::Only),
            (Kind::Client, By::Root | By::Option) => {
                self.uproot(id, out);
                return true;
            }
        };
        match self.propagated.requests.get(&cause) {
            Some(&cause) => self.join(id, cause, Link::certain(method), out),
            // Its trace is known, its parent is not any more.
            None => self.uproot(id, out),
        }
        true
    }

    /// A client whose server's trace is known begins that trace, unless it has another parent already.
    pub(super) fn adopt(&mut self, client: ExchangeId, trace_id: TraceId) {
        let Some(open) = self.open.get_mut(&client).filter(|open| open.fixed.is_none() && !open.over) else { return };
        match &open.place {
            None => open.fixed = Some(trace_id),
            Some(place) if place.parent.is_none() => {
                open.fixed = Some(trace_id);
                open.place = Some(self.judge.root_of(Some(trace_id), open.origin(), open.at));
            }
            Some(_) => {}
        }
    }
}
