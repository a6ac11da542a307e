//! Methods: which there are, who sends them, and the arguments that matter here.

use super::wire::Reader;

/// Text of a `shortstr`; `None` when it is no UTF-8.
pub(super) type Text<'a> = Option<&'a str>;

/// Who may send a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Broker,
    Either,
}

/// Who sends the method of this class and number; `None` when there is no such method.
pub(super) const fn sender(class: u16, method: u16) -> Option<Sender> {
    use Sender::{Broker, Client, Either};
    Some(match (class, method) {
        (10, 11 | 21 | 31 | 40 | 70) => Client,
        (10, 10 | 20 | 30 | 41 | 60 | 61 | 71) => Broker,
        (10, 50 | 51) => Either,
        (20, 10) => Client,
        (20, 11) => Broker,
        (20, 20 | 21 | 40 | 41) => Either,
        (30, 10) => Client,
        (30, 11) => Broker,
        (40, 10 | 20 | 30 | 40) => Client,
        (40, 11 | 21 | 31 | 51) => Broker,
        (50, 10 | 20 | 30 | 40 | 50) => Client,
        (50, 11 | 21 | 31 | 41 | 51) => Broker,
        (60, 10 | 20 | 40 | 70 | 90 | 100 | 110) => Client,
        (60, 11 | 21 | 50 | 60 | 71 | 72 | 111) => Broker,
        (60, 30 | 31 | 80 | 120) => Either,
        (85 | 90, 10) | (90, 20 | 30) => Client,
        (85 | 90, 11) | (90, 21 | 31) => Broker,
        _ => return None,
    })
}

/// A method with its arguments, as far as they matter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method<'a> {
    Start {
        cluster: Text<'a>,
    },
    TuneOk {
        frame_max: u32,
    },
    Open {
        virtual_host: Text<'a>,
    },
    ConnectionClose {
        code: u16,
        text: &'a [u8],
    },
    ConnectionCloseOk,
    ChannelOpen,
    ChannelOpenOk,
    ChannelClose {
        code: u16,
        text: &'a [u8],
    },
    ChannelCloseOk,
    ConfirmSelect,
    Declare {
        queue: Text<'a>,
        no_wait: bool,
    },
    DeclareOk {
        queue: Text<'a>,
    },
    Consume {
        queue: Text<'a>,
        consumer: Text<'a>,
        no_ack: bool,
        no_wait: bool,
    },
    ConsumeOk {
        consumer: Text<'a>,
    },
    /// From the broker; the client's own is answered by [`Self::CancelOk`].
    Cancel {
        consumer: Text<'a>,
    },
    CancelOk {
        consumer: Text<'a>,
    },
    Publish {
        route: Route<'a>,
        mandatory: bool,
        immediate: bool,
    },
    Return {
        code: u16,
        text: &'a [u8],
        route: Route<'a>,
    },
    Deliver {
        consumer: Text<'a>,
        tag: u64,
        redelivered: bool,
        route: Route<'a>,
    },
    Get {
        queue: Text<'a>,
        no_ack: bool,
    },
    GetOk {
        tag: u64,
        redelivered: bool,
        route: Route<'a>,
    },
    GetEmpty,
    /// `basic.ack`, `basic.nack` and `basic.reject`; tag 0 with `multiple` is all.
    Settle {
        how: How,
        tag: u64,
        multiple: bool,
    },
    /// The broker says so when it is done, unless it is the older kind.
    Recover,
    RecoverOk,
    Other,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route<'a> {
    pub(super) exchange: Text<'a>,
    pub(super) routing_key: Text<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Ack,
    Nack { requeue: bool },
    Reject { requeue: bool },
}

impl<'a> Method<'a> {
    /// Reads the payload of a method's frame; `None` when its arguments are not all there.
    pub(super) fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let (class, method) = (reader.u16()?, reader.u16()?);
        let mut arguments = Arguments(reader);
        arguments.read(class, method)
    }
}

struct Arguments<'a>(Reader<'a>);

impl<'a> Arguments<'a> {
    fn read(&mut self, class: u16, method: u16) -> Option<Method<'a>> {
        Some(match (class, method) {
            (10, 10) => {
                // The protocol's version.
                self.0.u16()?;
                Method::Start { cluster: cluster(&mut self.0) }
            }
            (10, 31) => {
                // The most channels.
                self.0.u16()?;
                Method::TuneOk { frame_max: self.0.u32()? }
            }
            (10, 40) => Method::Open { virtual_host: self.text()? },
            (10, 50) => Method::ConnectionClose { code: self.0.u16()?, text: self.0.short()? },
            (10, 51) => Method::ConnectionCloseOk,
            (20, 10) => Method::ChannelOpen,
            (20, 11) => Method::ChannelOpenOk,
            (20, 40) => Method::ChannelClose { code: self.0.u16()?, text: self.0.short()? },
            (20, 41) => Method::ChannelCloseOk,
            (85, 10) => Method::ConfirmSelect,
            (50, 10) => {
                let queue = self.queue()?;
                Method::Declare { queue, no_wait: self.bit(4)? }
            }
            (50, 11) => Method::DeclareOk { queue: self.text()? },
            (60, 20) => {
                let (queue, consumer) = (self.queue()?, self.text()?);
                let bits = self.0.u8()?;
                Method::Consume { queue, consumer, no_ack: bits & 2 != 0, no_wait: bits & 8 != 0 }
            }
            (60, 21) => Method::ConsumeOk { consumer: self.text()? },
            (60, 30) => Method::Cancel { consumer: self.text()? },
            (60, 31) => Method::CancelOk { consumer: self.text()? },
            (60, 40) => {
                self.ticket()?;
                let route = self.route()?;
                let bits = self.0.u8()?;
                Method::Publish { route, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 }
            }
            (60, 50) => Method::Return { code: self.0.u16()?, text: self.0.short()?, route: self.route()? },
            (60, 60) => {
                let (consumer, tag) = (self.text()?, self.0.u64()?);
                Method::Deliver { consumer, tag, redelivered: self.bit(0)?, route: self.route()? }
            }
            (60, 70) => {
                let queue = self.queue()?;
                Method::Get { queue, no_ack: self.bit(0)? }
            }
            (60, 71) => {
                let tag = self.0.u64()?;
                Method::GetOk { tag, redelivered: self.bit(0)?, route: self.route()? }
            }
            (60, 72) => Method::GetEmpty,
            (60, 80) => Method::Settle { how: How::Ack, tag: self.0.u64()?, multiple: self.bit(0)? },
            (60, 90) => {
                let tag = self.0.u64()?;
                Method::Settle { how: How::Reject { requeue: self.bit(0)? }, tag, multiple: false }
            }
            (60, 120) => {
                let tag = self.0.u64()?;
                let bits = self.0.u8()?;
                Method::Settle { how: How::Nack { requeue: bits & 2 != 0 }, tag, multiple: bits & 1 != 0 }
            }
            (60, 100 | 110) => Method::Recover,
            (60, 111) => Method::RecoverOk,
            _ => Method::Other,
        })
    }

    fn text(&mut self) -> Option<Text<'a>> {
        self.0.short().map(|octets| std::str::from_utf8(octets).ok())
    }

    /// Of earlier versions; it means nothing any more.
    fn ticket(&mut self) -> Option<u16> {
        self.0.u16()
    }

    fn queue(&mut self) -> Option<Text<'a>> {
        self.ticket()?;
        self.text()
    }

    fn route(&mut self) -> Option<Route<'a>> {
        Some(Route { exchange: self.text()?, routing_key: self.text()? })
    }

    fn bit(&mut self, place: u8) -> Option<bool> {
        self.0.u8().map(|bits| bits >> place & 1 == 1)
    }
}

/// RabbitMQ's name of its cluster, in the properties that a broker begins with.
fn cluster<'a>(reader: &mut Reader<'a>) -> Text<'a> {
    let value = reader.table()?.find_map(|(name, value)| value.filter(|_| name == b"cluster_name"))?;
    // As long as names are elsewhere.
    std::str::from_utf8(value).ok().filter(|name| name.len() <= usize::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments that are not all there are none; what follows those that matter may be missing.
    #[test]
    fn arguments_are_whole() {
        for (octets, needed) in [
            (&b"\0\x3c\0\x28\0\0\x02ex\x03key\x03"[..], 14),
            (b"\0\x3c\0\x32\x01\x38\x02no\x02ex\x03key", 16),
            (b"\0\x3c\0\x3c\x01c\0\0\0\0\0\0\0\x07\x01\x02ex\x03key", 22),
            (b"\0\x3c\0\x47\0\0\0\0\0\0\0\x07\0\x02ex\x03key\0\0\0\x09", 20),
            (b"\0\x3c\0\x46\0\0\x01q\x01", 9),
            (b"\0\x3c\0\x14\0\0\x01q\x01c\x0a\0\0\0\0", 11),
            (b"\0\x3c\0\x50\0\0\0\0\0\0\0\x07\x01", 13),
            (b"\0\x3c\0\x78\0\0\0\0\0\0\0\x07\x03", 13),
            (b"\0\x3c\0\x5a\0\0\0\0\0\0\0\x07\x01", 13),
            (b"\0\x32\0\x0a\0\0\x01q\x10\0\0\0\0", 9),
            (b"\0\x14\0\x28\x01\x94\x02no\0\0\0\0", 9),
            (b"\0\x0a\0\x1f\x07\xff\0\x02\0\0\0\x3c", 10),
        ] {
            for length in 0..=octets.len() {
                let read = Method::read(&octets[..length]);
                assert_eq!(read.is_some(), length >= needed, "{octets:?} {length}");
            }
        }
        let publish = Method::read(b"\0\x3c\0\x28\0\0\x02ex\x03key\x03").unwrap();
        let route = Route { exchange: Some("ex"), routing_key: Some("key") };
        assert!(matches!(publish, Method::Publish { route: to, mandatory: true, immediate: true } if to == route));
        let consume = Method::read(b"\0\x3c\0\x14\0\0\x01q\x01c\x0a").unwrap();
        let expected = "Consume { queue: Some(\"q\"), consumer: Some(\"c\"), no_ack: true, no_wait: true }";
        assert_eq!(format!("{consume:?}"), expected);
        let nack = Method::read(b"\0\x3c\0\x78\0\0\0\0\0\0\0\x07\x03").unwrap();
        assert_eq!(format!("{nack:?}"), "Settle { how: Nack { requeue: true }, tag: 7, multiple: true }");
    }

    #[test]
    fn text_that_is_no_utf8_is_unknown() {
        let get = Method::read(b"\0\x3c\0\x46\0\0\x01\xff\x01").unwrap();
        assert!(matches!(get, Method::Get { queue: None, no_ack: true }));
    }

    /// Those of the specification, and RabbitMQ's: `exchange.bind`, `basic.nack`, `confirm.select`, `connection.blocked` and so on.
    #[test]
    fn senders_are_known() {
        let count = |who| {
            (0..=100)
                .flat_map(|class| (0..=130).map(move |method| sender(class, method)))
                .filter(|one| *one == Some(who))
                .count()
        };
        assert_eq!((count(Sender::Client), count(Sender::Broker), count(Sender::Either)), (27, 29, 10));
        for (class, method) in (0..=100).flat_map(|class| (0..=200).map(move |method| (class, method))) {
            assert_eq!(
                agent_common::amqp::is_method(class, method),
                sender(class, method).is_some(),
                "{class} {method}"
            );
        }
    }
}
