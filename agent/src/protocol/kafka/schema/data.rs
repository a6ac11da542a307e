//! Produce and Fetch: the fields of requests and responses, as the message schemas of Apache Kafka 4.1.1 have them.

use super::Kind::{Int8, Int16, Int32, Int64, Records, Text, Uuid};
use super::Role::{
    AbortedFrom, AbortedProducer, Acks, Error, HighWatermark, Index, LastStableOffset, LogStartOffset, Offset,
    Partition, Throttle, Topic, TopicId, TopicName, TransactionalId,
};
use super::{Field, array, field, list};

/// `ProduceRequest.json`.
pub(super) const PRODUCE_REQUEST: &[Field] = &[
    field(Text).since(3).nullable(3).gives(TransactionalId), // TransactionalId
    field(Int16).gives(Acks),                                // Acks
    field(Int32),                                            // TimeoutMs
    // TopicData
    array(&[
        field(Text).until(12).gives(TopicName), // Name
        field(Uuid).since(13).gives(TopicId),   // TopicId
        // PartitionData
        array(&[
            field(Int32).gives(Index),  // Index
            field(Records).nullable(0), // Records
        ])
        .gives(Partition),
    ])
    .gives(Topic),
];

/// `ProduceResponse.json`.
pub(super) const PRODUCE_RESPONSE: &[Field] = &[
    // Responses
    array(&[
        field(Text).until(12).gives(TopicName), // Name
        field(Uuid).since(13).gives(TopicId),   // TopicId
        // PartitionResponses
        array(&[
            field(Int32).gives(Index),                   // Index
            field(Int16).gives(Error),                   // ErrorCode
            field(Int64).gives(Offset),                  // BaseOffset
            field(Int64).since(2),                       // LogAppendTimeMs
            field(Int64).since(5).gives(LogStartOffset), // LogStartOffset
            // RecordErrors
            array(&[
                field(Int32).since(8),            // BatchIndex
                field(Text).since(8).nullable(8), // BatchIndexErrorMessage
            ])
            .since(8),
            field(Text).since(8).nullable(8), // ErrorMessage
        ])
        .gives(Partition),
    ])
    .gives(Topic),
    field(Int32).since(1).gives(Throttle), // ThrottleTimeMs
];

/// `FetchRequest.json`.
pub(super) const FETCH_REQUEST: &[Field] = &[
    field(Int32).until(14), // ReplicaId
    field(Int32),           // MaxWaitMs
    field(Int32),           // MinBytes
    field(Int32).since(3),  // MaxBytes
    field(Int8).since(4),   // IsolationLevel
    field(Int32).since(7),  // SessionId
    field(Int32).since(7),  // SessionEpoch
    // Topics
    array(&[
        field(Text).until(12).gives(TopicName), // Topic
        field(Uuid).since(13).gives(TopicId),   // TopicId
        // Partitions
        array(&[
            field(Int32).gives(Index),  // Partition
            field(Int32).since(9),      // CurrentLeaderEpoch
            field(Int64).gives(Offset), // FetchOffset
            field(Int32).since(12),     // LastFetchedEpoch
            field(Int64).since(5),      // LogStartOffset
            field(Int32),               // PartitionMaxBytes
        ])
        .gives(Partition),
    ])
    .gives(Topic),
    // ForgottenTopicsData
    array(&[
        field(Text).since(7).until(12), // Topic
        field(Uuid).since(13),          // TopicId
        list(&Int32).since(7),          // Partitions
    ])
    .since(7),
    field(Text).since(11), // RackId
];

/// `FetchResponse.json`.
pub(super) const FETCH_RESPONSE: &[Field] = &[
    field(Int32).since(1).gives(Throttle), // ThrottleTimeMs
    field(Int16).since(7).gives(Error),    // ErrorCode
    field(Int32).since(7),                 // SessionId
    // Responses
    array(&[
        field(Text).until(12).gives(TopicName), // Topic
        field(Uuid).since(13).gives(TopicId),   // TopicId
        // Partitions
        array(&[
            field(Int32).gives(Index),                     // PartitionIndex
            field(Int16).gives(Error),                     // ErrorCode
            field(Int64).gives(HighWatermark),             // HighWatermark
            field(Int64).since(4).gives(LastStableOffset), // LastStableOffset
            field(Int64).since(5).gives(LogStartOffset),   // LogStartOffset
            // AbortedTransactions
            array(&[
                field(Int64).since(4).gives(AbortedProducer), // ProducerId
                field(Int64).since(4).gives(AbortedFrom),     // FirstOffset
            ])
            .since(4)
            .nullable(4),
            field(Int32).since(11),     // PreferredReadReplica
            field(Records).nullable(0), // Records
        ])
        .gives(Partition),
    ])
    .gives(Topic),
];
