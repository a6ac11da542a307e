//! Which fields a request or a response has, in order, by version. The tables follow the message schemas of Apache Kafka
//! (`clients/src/main/resources/common/message`, release 4.1.1, and 3.9.1 where that one knew older versions). Tagged
//! fields (KIP-482) tell nothing that is wanted here and are passed by their length.

mod cluster;
mod data;
mod groups;
mod offsets;
mod transactions;

use super::api::ApiKey;

/// How a field is encoded (Kafka protocol guide, "Protocol Primitive Types").
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uuid,
    /// `STRING`, `NULLABLE_STRING` and their compact forms.
    Text,
    /// `BYTES`, `NULLABLE_BYTES` and their compact forms.
    Bytes,
    /// `RECORDS` and its compact form.
    Records,
    /// Structures, each with these fields.
    Array(&'static [Field]),
    /// Values of one kind.
    List(&'static Kind),
    /// One structure, perhaps null.
    Object(&'static [Field]),
    /// What comes here is not read.
    Rest,
}

/// What a field's value, or a structure, is to an observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing that is wanted.
    None,
    /// Each structure is about one topic.
    Topic,
    /// Each structure is about one partition.
    Partition,
    TopicName,
    TopicId,
    Index,
    Offset,
    HighWatermark,
    LastStableOffset,
    LogStartOffset,
    Error,
    Throttle,
    Acks,
    TransactionalId,
    ProducerId,
    ProducerEpoch,
    Group,
    Member,
    Instance,
    Generation,
    /// Of a group or a transaction, as [`Role::KeyType`] says.
    Key,
    KeyType,
    Mechanism,
    ClusterId,
    /// Of a transaction that was aborted: whose it was, and its first offset in the partition.
    AbortedProducer,
    AbortedFrom,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) kind: Kind,
    pub(super) role: Role,
    since: i16,
    until: i16,
    nullable: i16,
}

impl Field {
    /// Whether it is in messages of this version.
    pub(super) const fn is_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }

    pub(super) const fn is_nullable(&self, version: i16) -> bool {
        self.nullable <= version
    }

    const fn since(mut self, version: i16) -> Self {
        self.since = version;
        self
    }

    const fn until(mut self, version: i16) -> Self {
        self.until = version;
        self
    }

    const fn nullable(mut self, version: i16) -> Self {
        self.nullable = version;
        self
    }

    const fn gives(mut self, role: Role) -> Self {
        self.role = role;
        self
    }
}

const fn field(kind: Kind) -> Field {
    Field { kind, role: Role::None, since: 0, until: i16::MAX, nullable: i16::MAX }
}

const fn array(fields: &'static [Field]) -> Field {
    field(Kind::Array(fields))
}

const fn list(kind: &'static Kind) -> Field {
    field(Kind::List(kind))
}

const fn object(fields: &'static [Field]) -> Field {
    field(Kind::Object(fields))
}

/// The bodies of one kind of call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schema {
    pub(super) request: &'static [Field],
    pub(super) response: &'static [Field],
}

impl Schema {
    /// The bodies of a call; `None` when they are not known for this version.
    pub(super) fn of(api: ApiKey, version: i16) -> Option<Self> {
        let (first, last, request, response) = match api.0 {
            0 => (0, 13, data::PRODUCE_REQUEST, data::PRODUCE_RESPONSE),
            1 => (0, 18, data::FETCH_REQUEST, data::FETCH_RESPONSE),
            2 => (0, 10, cluster::LIST_OFFSETS_REQUEST, cluster::LIST_OFFSETS_RESPONSE),
            3 => (0, 13, cluster::METADATA_REQUEST, cluster::METADATA_RESPONSE),
            // Version 10 is not stable in 4.1.1; nor are the ones after those given for 9 and 22.
            8 => (0, 9, offsets::OFFSET_COMMIT_REQUEST, offsets::OFFSET_COMMIT_RESPONSE),
            9 => (0, 9, offsets::OFFSET_FETCH_REQUEST, offsets::OFFSET_FETCH_RESPONSE),
            10 => (0, 6, groups::FIND_COORDINATOR_REQUEST, groups::FIND_COORDINATOR_RESPONSE),
            11 => (0, 9, groups::JOIN_GROUP_REQUEST, groups::JOIN_GROUP_RESPONSE),
            12 => (0, 4, groups::HEARTBEAT_REQUEST, groups::HEARTBEAT_RESPONSE),
            13 => (0, 5, groups::LEAVE_GROUP_REQUEST, groups::LEAVE_GROUP_RESPONSE),
            14 => (0, 5, groups::SYNC_GROUP_REQUEST, groups::SYNC_GROUP_RESPONSE),
            17 => (0, 1, cluster::SASL_HANDSHAKE_REQUEST, cluster::SASL_HANDSHAKE_RESPONSE),
            // Of the response only what all versions begin with is read.
            18 => (0, 4, cluster::API_VERSIONS_REQUEST, cluster::API_VERSIONS_RESPONSE),
            22 => (0, 5, transactions::INIT_PRODUCER_ID_REQUEST, transactions::INIT_PRODUCER_ID_RESPONSE),
            24 => (0, 5, transactions::ADD_PARTITIONS_TO_TXN_REQUEST, transactions::ADD_PARTITIONS_TO_TXN_RESPONSE),
            25 => (0, 4, transactions::ADD_OFFSETS_TO_TXN_REQUEST, transactions::ADD_OFFSETS_TO_TXN_RESPONSE),
            26 => (0, 5, transactions::END_TXN_REQUEST, transactions::END_TXN_RESPONSE),
            28 => (0, 5, transactions::TXN_OFFSET_COMMIT_REQUEST, transactions::TXN_OFFSET_COMMIT_RESPONSE),
            36 => (0, 2, cluster::SASL_AUTHENTICATE_REQUEST, cluster::SASL_AUTHENTICATE_RESPONSE),
            68 => (0, 1, groups::CONSUMER_GROUP_HEARTBEAT_REQUEST, groups::CONSUMER_GROUP_HEARTBEAT_RESPONSE),
            _ => return None,
        };
        (first..=last).contains(&version).then_some(Self { request, response })
    }
}
