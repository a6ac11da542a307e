//! The routes of one service, learnt from its paths.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::Limits;
use super::segment::{Segment, segment};

/// Segments of a route; what is deeper becomes `*`.
const DEPTH: usize = 8;

/// What stands in a route for segments that are not words of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Id,
    Date,
    /// Any text, by its looks or since the position showed too many words.
    Param,
    /// All the rest of the path.
    Rest,
}

impl Placeholder {
    const COUNT: usize = 4;

    const fn text(self) -> &'static str {
        match self {
            Self::Id => "{id}",
            Self::Date => "{date}",
            Self::Param => "{param}",
            Self::Rest => "*",
        }
    }
}

/// The index of a node, not of the root: nothing leads there.
type NodeId = NonZeroU32;

#[derive(Default)]
struct Node {
    words: Vec<(Box<str>, NodeId)>,
    placeholders: [Option<NodeId>; Placeholder::COUNT],
    /// Too many words were seen here: all are one parameter.
    parameter: bool,
    route: Option<Arc<str>>,
}

/// What a path was found to be.
pub(super) enum Found {
    Route(Arc<str>),
    /// Nothing like it was seen, and nothing may be learnt from it.
    Unknown,
    /// The limits leave no room for its route.
    Full,
}

/// The routes of one service. Nodes and routes are never taken back, so their limits are limits for ever: a route once
/// given out has become a metric's label, and to forget it would not make that label go.
pub(super) struct Tree {
    pub(super) service: u64,
    /// Unique among all trees and all their shapes.
    pub(super) generation: u64,
    /// When it was last asked.
    pub(super) used: u64,
    nodes: Vec<Node>,
    routes: usize,
}

impl Tree {
    pub(super) fn new(service: u64, generation: u64) -> Self {
        Self { service, generation, used: 0, nodes: vec![Node::default()], routes: 0 }
    }

    /// The route of `path`, which starts with a slash. With `learn` it is made if need be; the second value then tells
    /// whether a position became a parameter, so that paths known before may have another route now.
    pub(super) fn find(&mut self, path: &str, learn: bool, limits: &Limits) -> (Found, bool) {
        let mut reshaped = false;
        let mut route = String::new();
        let mut at = 0;
        let segments = path.strip_prefix('/').unwrap_or(path).split('/');
        for (depth, text) in segments.enumerate() {
            let segment = if depth < DEPTH { Some(segment(text)) } else { None };
            route.push('/');
            let placeholder = match segment {
                Some(Segment::Word(word)) => {
                    let most = if depth == 0 { limits.first_words } else { limits.words };
                    match self.word(at, &word, learn, most, limits) {
                        Word::At(next) => {
                            route.push_str(&word);
                            at = next;
                            continue;
                        }
                        Word::Unknown => return (Found::Unknown, reshaped),
                        Word::Param { reshaped: now } => {
                            reshaped |= now;
                            Placeholder::Param
                        }
                    }
                }
                Some(Segment::Id) => Placeholder::Id,
                Some(Segment::Date) => Placeholder::Date,
                Some(Segment::Text) => Placeholder::Param,
                None => Placeholder::Rest,
            };
            route.push_str(placeholder.text());
            at = match self.placeholder(at, placeholder, learn, limits) {
                Some(next) => next,
                None if learn => return (Found::Full, reshaped),
                None => return (Found::Unknown, reshaped),
            };
            if placeholder == Placeholder::Rest {
                break;
            }
        }
        let Some(node) = self.nodes.get_mut(at) else { return (Found::Unknown, reshaped) };
        let found = match &node.route {
            Some(route) => Found::Route(Arc::clone(route)),
            None if !learn => Found::Unknown,
            None if self.routes >= limits.routes => Found::Full,
            None => {
                self.routes += 1;
                Found::Route(Arc::clone(node.route.insert(route.into())))
            }
        };
        (found, reshaped)
    }

    fn word(&mut self, at: usize, word: &str, learn: bool, most: usize, limits: &Limits) -> Word {
        // The last quarter is left to routes without new words: what the service turns out to have more of.
        let exhausted = self.routes >= limits.routes - limits.routes / 4
            || self.nodes.len() >= most_nodes(limits) - most_nodes(limits) / 4;
        let next = self.next();
        let (Some(node), Some(next)) = (self.nodes.get_mut(at), next) else { return Word::Unknown };
        if node.parameter {
            return Word::Param { reshaped: false };
        }
        if let Some((_, next)) = node.words.iter().find(|(known, _)| **known == *word) {
            return Word::At(next.get() as usize);
        }
        if exhausted {
            return Word::Param { reshaped: false };
        }
        if !learn {
            return Word::Unknown;
        }
        if node.words.len() >= most {
            node.parameter = true;
            node.words = Vec::new();
            return Word::Param { reshaped: true };
        }
        node.words.push((word.into(), next));
        self.nodes.push(Node::default());
        Word::At(next.get() as usize)
    }

    fn placeholder(&mut self, at: usize, placeholder: Placeholder, learn: bool, limits: &Limits) -> Option<usize> {
        let next = self.next();
        let room = learn && self.nodes.len() < most_nodes(limits);
        let place = self.nodes.get_mut(at)?.placeholders.get_mut(placeholder as usize)?;
        if let Some(known) = place {
            return Some(known.get() as usize);
        }
        if !room {
            return None;
        }
        *place = next;
        self.nodes.push(Node::default());
        next.map(|next| next.get() as usize)
    }

    /// The id of the node to be added next.
    fn next(&self) -> Option<NodeId> {
        u32::try_from(self.nodes.len()).ok().and_then(NodeId::new)
    }

    #[cfg(test)]
    pub(super) const fn size(&self) -> (usize, usize) {
        (self.nodes.len(), self.routes)
    }
}

/// Room for some nodes that each route has alone. Paths that found no room add nodes too, so the number needs its limit.
pub(super) const fn most_nodes(limits: &Limits) -> usize {
    limits.routes * 4
}

/// Where a word leads.
enum Word {
    At(usize),
    Unknown,
    Param { reshaped: bool },
}
