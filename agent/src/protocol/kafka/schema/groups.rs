//! Membership of consumer groups: the fields of requests and responses, as the message schemas of Apache Kafka 4.1.1 have them.

use super::Kind::{Bool, Bytes, Int8, Int16, Int32, Text, Uuid};
use super::Role::{Error, Generation, Group, Instance, Key, KeyType, Member, Throttle};
use super::{Field, array, field, list, object};

/// `FindCoordinatorRequest.json`.
pub(super) const FIND_COORDINATOR_REQUEST: &[Field] = &[
    field(Text).until(3).gives(Key),     // Key
    field(Int8).since(1).gives(KeyType), // KeyType
    list(&Text).since(4).gives(Key),     // CoordinatorKeys
];

/// `FindCoordinatorResponse.json`.
pub(super) const FIND_COORDINATOR_RESPONSE: &[Field] = &[
    field(Int32).since(1).gives(Throttle),     // ThrottleTimeMs
    field(Int16).until(3).gives(Error),        // ErrorCode
    field(Text).since(1).until(3).nullable(1), // ErrorMessage
    field(Int32).until(3),                     // NodeId
    field(Text).until(3),                      // Host
    field(Int32).until(3),                     // Port
    // Coordinators
    array(&[
        field(Text).since(4),               // Key
        field(Int32).since(4),              // NodeId
        field(Text).since(4),               // Host
        field(Int32).since(4),              // Port
        field(Int16).since(4).gives(Error), // ErrorCode
        field(Text).since(4).nullable(4),   // ErrorMessage
    ])
    .since(4),
];

/// `JoinGroupRequest.json`.
pub(super) const JOIN_GROUP_REQUEST: &[Field] = &[
    field(Text).gives(Group),                         // GroupId
    field(Int32),                                     // SessionTimeoutMs
    field(Int32).since(1),                            // RebalanceTimeoutMs
    field(Text).gives(Member),                        // MemberId
    field(Text).since(5).nullable(5).gives(Instance), // GroupInstanceId
    field(Text),                                      // ProtocolType
    // Protocols
    array(&[
        field(Text),  // Name
        field(Bytes), // Metadata
    ]),
    field(Text).since(8).nullable(8), // Reason
];

/// `JoinGroupResponse.json`.
pub(super) const JOIN_GROUP_RESPONSE: &[Field] = &[
    field(Int32).since(2).gives(Throttle), // ThrottleTimeMs
    field(Int16).gives(Error),             // ErrorCode
    field(Int32).gives(Generation),        // GenerationId
    field(Text).since(7).nullable(7),      // ProtocolType
    field(Text).nullable(7),               // ProtocolName
    field(Text),                           // Leader
    field(Bool).since(9),                  // SkipAssignment
    field(Text).gives(Member),             // MemberId
    // Members
    array(&[
        field(Text),                      // MemberId
        field(Text).since(5).nullable(5), // GroupInstanceId
        field(Bytes),                     // Metadata
    ]),
];

/// `HeartbeatRequest.json`.
pub(super) const HEARTBEAT_REQUEST: &[Field] = &[
    field(Text).gives(Group),                         // GroupId
    field(Int32).gives(Generation),                   // GenerationId
    field(Text).gives(Member),                        // MemberId
    field(Text).since(3).nullable(3).gives(Instance), // GroupInstanceId
];

/// `HeartbeatResponse.json`.
pub(super) const HEARTBEAT_RESPONSE: &[Field] = &[
    field(Int32).since(1).gives(Throttle), // ThrottleTimeMs
    field(Int16).gives(Error),             // ErrorCode
];

/// `LeaveGroupRequest.json`.
pub(super) const LEAVE_GROUP_REQUEST: &[Field] = &[
    field(Text).gives(Group),           // GroupId
    field(Text).until(2).gives(Member), // MemberId
    // Members
    array(&[
        field(Text).since(3),             // MemberId
        field(Text).since(3).nullable(3), // GroupInstanceId
        field(Text).since(5).nullable(5), // Reason
    ])
    .since(3),
];

/// `LeaveGroupResponse.json`.
pub(super) const LEAVE_GROUP_RESPONSE: &[Field] = &[
    field(Int32).since(1).gives(Throttle), // ThrottleTimeMs
    field(Int16).gives(Error),             // ErrorCode
    // Members
    array(&[
        field(Text).since(3),               // MemberId
        field(Text).since(3).nullable(3),   // GroupInstanceId
        field(Int16).since(3).gives(Error), // ErrorCode
    ])
    .since(3),
];

/// `SyncGroupRequest.json`.
pub(super) const SYNC_GROUP_REQUEST: &[Field] = &[
    field(Text).gives(Group),                         // GroupId
    field(Int32).gives(Generation),                   // GenerationId
    field(Text).gives(Member),                        // MemberId
    field(Text).since(3).nullable(3).gives(Instance), // GroupInstanceId
    field(Text).since(5).nullable(5),                 // ProtocolType
    field(Text).since(5).nullable(5),                 // ProtocolName
    // Assignments
    array(&[
        field(Text),  // MemberId
        field(Bytes), // Assignment
    ]),
];

/// `SyncGroupResponse.json`.
pub(super) const SYNC_GROUP_RESPONSE: &[Field] = &[
    field(Int32).since(1).gives(Throttle), // ThrottleTimeMs
    field(Int16).gives(Error),             // ErrorCode
    field(Text).since(5).nullable(5),      // ProtocolType
    field(Text).since(5).nullable(5),      // ProtocolName
    field(Bytes),                          // Assignment
];

/// `ConsumerGroupHeartbeatRequest.json`.
pub(super) const CONSUMER_GROUP_HEARTBEAT_REQUEST: &[Field] = &[
    field(Text).gives(Group),         // GroupId
    field(Text).gives(Member),        // MemberId
    field(Int32).gives(Generation),   // MemberEpoch
    field(Text).nullable(0),          // InstanceId
    field(Text).nullable(0),          // RackId
    field(Int32),                     // RebalanceTimeoutMs
    list(&Text).nullable(0),          // SubscribedTopicNames
    field(Text).since(1).nullable(1), // SubscribedTopicRegex
    field(Text).nullable(0),          // ServerAssignor
    // TopicPartitions
    array(&[
        field(Uuid),  // TopicId
        list(&Int32), // Partitions
    ])
    .nullable(0),
];

/// `ConsumerGroupHeartbeatResponse.json`.
pub(super) const CONSUMER_GROUP_HEARTBEAT_RESPONSE: &[Field] = &[
    field(Int32).gives(Throttle),          // ThrottleTimeMs
    field(Int16).gives(Error),             // ErrorCode
    field(Text).nullable(0),               // ErrorMessage
    field(Text).nullable(0).gives(Member), // MemberId
    field(Int32).gives(Generation),        // MemberEpoch
    field(Int32),                          // HeartbeatIntervalMs
    // Assignment
    object(&[
        // TopicPartitions
        array(&[
            field(Uuid),  // TopicId
            list(&Int32), // Partitions
        ]),
    ])
    .nullable(0),
];
