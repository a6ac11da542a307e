//! Transactions: the fields of requests and responses, as the message schemas of Apache Kafka 4.1.1 have them.

use super::Kind::{Bool, Int16, Int32, Int64, Text};
use super::Role::{
    Error, Generation, Group, Index, Instance, Member, Offset, Partition, ProducerEpoch, ProducerId, Throttle, Topic,
    TopicName, TransactionalId,
};
use super::{Field, array, field, list};

/// `InitProducerIdRequest.json`.
pub(super) const INIT_PRODUCER_ID_REQUEST: &[Field] = &[
    field(Text).nullable(0).gives(TransactionalId), // TransactionalId
    field(Int32),                                   // TransactionTimeoutMs
    field(Int64).since(3).gives(ProducerId),        // ProducerId
    field(Int16).since(3).gives(ProducerEpoch),     // ProducerEpoch
    field(Bool).since(6),                           // Enable2Pc
    field(Bool).since(6),                           // KeepPreparedTxn
];

/// `InitProducerIdResponse.json`.
pub(super) const INIT_PRODUCER_ID_RESPONSE: &[Field] = &[
    field(Int32).gives(Throttle),      // ThrottleTimeMs
    field(Int16).gives(Error),         // ErrorCode
    field(Int64).gives(ProducerId),    // ProducerId
    field(Int16).gives(ProducerEpoch), // ProducerEpoch
    field(Int64).since(6),             // OngoingTxnProducerId
    field(Int16).since(6),             // OngoingTxnProducerEpoch
];

/// `AddPartitionsToTxnRequest.json`.
pub(super) const ADD_PARTITIONS_TO_TXN_REQUEST: &[Field] = &[
    // Transactions
    array(&[
        field(Text).since(4),  // TransactionalId
        field(Int64).since(4), // ProducerId
        field(Int16).since(4), // ProducerEpoch
        field(Bool).since(4),  // VerifyOnly
        // Topics
        array(&[
            field(Text),  // Name
            list(&Int32), // Partitions
        ])
        .since(4),
    ])
    .since(4),
    field(Text).until(3).gives(TransactionalId), // V3AndBelowTransactionalId
    field(Int64).until(3).gives(ProducerId),     // V3AndBelowProducerId
    field(Int16).until(3).gives(ProducerEpoch),  // V3AndBelowProducerEpoch
    // V3AndBelowTopics
    array(&[
        field(Text),  // Name
        list(&Int32), // Partitions
    ])
    .until(3),
];

/// `AddPartitionsToTxnResponse.json`.
pub(super) const ADD_PARTITIONS_TO_TXN_RESPONSE: &[Field] = &[
    field(Int32).gives(Throttle),       // ThrottleTimeMs
    field(Int16).since(4).gives(Error), // ErrorCode
    // ResultsByTransaction
    array(&[
        field(Text).since(4), // TransactionalId
        // TopicResults
        array(&[
            field(Text), // Name
            // ResultsByPartition
            array(&[
                field(Int32),              // PartitionIndex
                field(Int16).gives(Error), // PartitionErrorCode
            ]),
        ])
        .since(4),
    ])
    .since(4),
    // ResultsByTopicV3AndBelow
    array(&[
        field(Text), // Name
        // ResultsByPartition
        array(&[
            field(Int32),              // PartitionIndex
            field(Int16).gives(Error), // PartitionErrorCode
        ]),
    ])
    .until(3),
];

/// `AddOffsetsToTxnRequest.json`.
pub(super) const ADD_OFFSETS_TO_TXN_REQUEST: &[Field] = &[
    field(Text).gives(TransactionalId), // TransactionalId
    field(Int64).gives(ProducerId),     // ProducerId
    field(Int16).gives(ProducerEpoch),  // ProducerEpoch
    field(Text).gives(Group),           // GroupId
];

/// `AddOffsetsToTxnResponse.json`.
pub(super) const ADD_OFFSETS_TO_TXN_RESPONSE: &[Field] = &[
    field(Int32).gives(Throttle), // ThrottleTimeMs
    field(Int16).gives(Error),    // ErrorCode
];

/// `EndTxnRequest.json`.
pub(super) const END_TXN_REQUEST: &[Field] = &[
    field(Text).gives(TransactionalId), // TransactionalId
    field(Int64).gives(ProducerId),     // ProducerId
    field(Int16).gives(ProducerEpoch),  // ProducerEpoch
    field(Bool),                        // Committed
];

/// `EndTxnResponse.json`.
pub(super) const END_TXN_RESPONSE: &[Field] = &[
    field(Int32).gives(Throttle), // ThrottleTimeMs
    field(Int16).gives(Error),    // ErrorCode
    field(Int64).since(5),        // ProducerId
    field(Int16).since(5),        // ProducerEpoch
];

/// `TxnOffsetCommitRequest.json`.
pub(super) const TXN_OFFSET_COMMIT_REQUEST: &[Field] = &[
    field(Text).gives(TransactionalId),               // TransactionalId
    field(Text).gives(Group),                         // GroupId
    field(Int64).gives(ProducerId),                   // ProducerId
    field(Int16).gives(ProducerEpoch),                // ProducerEpoch
    field(Int32).since(3).gives(Generation),          // GenerationId
    field(Text).since(3).gives(Member),               // MemberId
    field(Text).since(3).nullable(3).gives(Instance), // GroupInstanceId
    // Topics
    array(&[
        field(Text).gives(TopicName), // Name
        // Partitions
        array(&[
            field(Int32).gives(Index),  // PartitionIndex
            field(Int64).gives(Offset), // CommittedOffset
            field(Int32).since(2),      // CommittedLeaderEpoch
            field(Text).nullable(0),    // CommittedMetadata
        ])
        .gives(Partition),
    ])
    .gives(Topic),
];

/// `TxnOffsetCommitResponse.json`.
pub(super) const TXN_OFFSET_COMMIT_RESPONSE: &[Field] = &[
    field(Int32).gives(Throttle), // ThrottleTimeMs
    // Topics
    array(&[
        field(Text).gives(TopicName), // Name
        // Partitions
        array(&[
            field(Int32).gives(Index), // PartitionIndex
            field(Int16).gives(Error), // ErrorCode
        ])
        .gives(Partition),
    ])
    .gives(Topic),
];
