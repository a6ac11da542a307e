//! Committed offsets: the fields of requests and responses, as the message schemas of Apache Kafka 4.1.1 have them.

use super::Kind::{Bool, Int16, Int32, Int64, Text, Uuid};
use super::Role::{Error, Generation, Group, Index, Instance, Member, Offset, Partition, Throttle, Topic, TopicName};
use super::{Field, array, field, list};

/// `OffsetCommitRequest.json`.
pub(super) const OFFSET_COMMIT_REQUEST: &[Field] = &[
    field(Text).gives(Group),                         // GroupId
    field(Int32).since(1).gives(Generation),          // GenerationIdOrMemberEpoch
    field(Text).since(1).gives(Member),               // MemberId
    field(Text).since(7).nullable(7).gives(Instance), // GroupInstanceId
    field(Int64).since(2).until(4),                   // RetentionTimeMs
    // Topics
    array(&[
        field(Text).until(9).gives(TopicName), // Name
        field(Uuid).since(10),                 // TopicId
        // Partitions
        array(&[
            field(Int32).gives(Index),      // PartitionIndex
            field(Int64).gives(Offset),     // CommittedOffset
            field(Int32).since(6),          // CommittedLeaderEpoch
            field(Int64).since(1).until(1), // CommitTimestamp, of 3.9.1
            field(Text).nullable(0),        // CommittedMetadata
        ])
        .gives(Partition),
    ])
    .gives(Topic),
];

/// `OffsetCommitResponse.json`.
pub(super) const OFFSET_COMMIT_RESPONSE: &[Field] = &[
    field(Int32).since(3).gives(Throttle), // ThrottleTimeMs
    // Topics
    array(&[
        field(Text).until(9).gives(TopicName), // Name
        field(Uuid).since(10),                 // TopicId
        // Partitions
        array(&[
            field(Int32).gives(Index), // PartitionIndex
            field(Int16).gives(Error), // ErrorCode
        ])
        .gives(Partition),
    ])
    .gives(Topic),
];

/// `OffsetFetchRequest.json`.
pub(super) const OFFSET_FETCH_REQUEST: &[Field] = &[
    field(Text).until(7).gives(Group), // GroupId
    // Topics
    array(&[
        field(Text).until(7),  // Name
        list(&Int32).until(7), // PartitionIndexes
    ])
    .until(7)
    .nullable(2),
    // Groups
    array(&[
        field(Text).since(8).gives(Group),              // GroupId
        field(Text).since(9).nullable(9).gives(Member), // MemberId
        field(Int32).since(9).gives(Generation),        // MemberEpoch
        // Topics
        array(&[
            field(Text).since(8).until(9), // Name
            field(Uuid).since(10),         // TopicId
            list(&Int32).since(8),         // PartitionIndexes
        ])
        .since(8)
        .nullable(8),
    ])
    .since(8),
    field(Bool).since(7), // RequireStable
];

/// `OffsetFetchResponse.json`.
pub(super) const OFFSET_FETCH_RESPONSE: &[Field] = &[
    field(Int32).since(3).gives(Throttle), // ThrottleTimeMs
    // Topics
    array(&[
        field(Text).until(7), // Name
        // Partitions
        array(&[
            field(Int32).until(7),              // PartitionIndex
            field(Int64).until(7),              // CommittedOffset
            field(Int32).since(5).until(7),     // CommittedLeaderEpoch
            field(Text).until(7).nullable(0),   // Metadata
            field(Int16).until(7).gives(Error), // ErrorCode
        ])
        .until(7),
    ])
    .until(7),
    field(Int16).since(2).until(7).gives(Error), // ErrorCode
    // Groups
    array(&[
        field(Text).since(8), // GroupId
        // Topics
        array(&[
            field(Text).since(8).until(9), // Name
            field(Uuid).since(10),         // TopicId
            // Partitions
            array(&[
                field(Int32).since(8),              // PartitionIndex
                field(Int64).since(8),              // CommittedOffset
                field(Int32).since(8),              // CommittedLeaderEpoch
                field(Text).since(8).nullable(8),   // Metadata
                field(Int16).since(8).gives(Error), // ErrorCode
            ])
            .since(8),
        ])
        .since(8),
        field(Int16).since(8).gives(Error), // ErrorCode
    ])
    .since(8),
];
