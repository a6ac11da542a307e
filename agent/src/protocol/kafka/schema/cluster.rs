//! What a client asks before all else: the fields of requests and responses, as the message schemas of Apache Kafka 4.1.1 have them.

use super::Kind::{Bool, Bytes, Int8, Int16, Int32, Int64, Rest, Text, Uuid};
use super::Role::{ClusterId, Error, Mechanism, Throttle, Topic, TopicId, TopicName};
use super::{Field, array, field, list};

/// `ListOffsetsRequest.json`.
pub(super) const LIST_OFFSETS_REQUEST: &[Field] = &[
    field(Int32),         // ReplicaId
    field(Int8).since(2), // IsolationLevel
    // Topics
    array(&[
        field(Text), // Name
        // Partitions
        array(&[
            field(Int32),          // PartitionIndex
            field(Int32).since(4), // CurrentLeaderEpoch
            field(Int64),          // Timestamp
            field(Int32).until(0), // MaxNumOffsets
        ]),
    ]),
    field(Int32).since(10), // TimeoutMs
];

/// `ListOffsetsResponse.json`.
pub(super) const LIST_OFFSETS_RESPONSE: &[Field] = &[
    field(Int32).since(2).gives(Throttle), // ThrottleTimeMs
    // Topics
    array(&[
        field(Text), // Name
        // Partitions
        array(&[
            field(Int32),              // PartitionIndex
            field(Int16).gives(Error), // ErrorCode
            list(&Int64).until(0),     // OldStyleOffsets
            field(Int64).since(1),     // Timestamp
            field(Int64).since(1),     // Offset
            field(Int32).since(4),     // LeaderEpoch
        ]),
    ]),
];

/// `MetadataRequest.json`.
pub(super) const METADATA_REQUEST: &[Field] = &[
    // Topics
    array(&[
        field(Uuid).since(10),    // TopicId
        field(Text).nullable(10), // Name
    ])
    .nullable(1),
    field(Bool).since(4),           // AllowAutoTopicCreation
    field(Bool).since(8).until(10), // IncludeClusterAuthorizedOperations
    field(Bool).since(8),           // IncludeTopicAuthorizedOperations
];

/// `MetadataResponse.json`.
pub(super) const METADATA_RESPONSE: &[Field] = &[
    field(Int32).since(3).gives(Throttle), // ThrottleTimeMs
    // Brokers
    array(&[
        field(Int32),                     // NodeId
        field(Text),                      // Host
        field(Int32),                     // Port
        field(Text).since(1).nullable(1), // Rack
    ]),
    field(Text).since(2).nullable(2).gives(ClusterId), // ClusterId
    field(Int32).since(1),                             // ControllerId
    // Topics
    array(&[
        field(Int16).gives(Error),                 // ErrorCode
        field(Text).nullable(12).gives(TopicName), // Name
        field(Uuid).since(10).gives(TopicId),      // TopicId
        field(Bool).since(1),                      // IsInternal
        // Partitions
        array(&[
            field(Int16),          // ErrorCode
            field(Int32),          // PartitionIndex
            field(Int32),          // LeaderId
            field(Int32).since(7), // LeaderEpoch
            list(&Int32),          // ReplicaNodes
            list(&Int32),          // IsrNodes
            list(&Int32).since(5), // OfflineReplicas
        ]),
        field(Int32).since(8), // TopicAuthorizedOperations
    ])
    .gives(Topic),
    field(Int32).since(8).until(10),     // ClusterAuthorizedOperations
    field(Int16).since(13).gives(Error), // ErrorCode
];

/// `ApiVersionsRequest.json`.
pub(super) const API_VERSIONS_REQUEST: &[Field] = &[
    field(Text).since(3), // ClientSoftwareName
    field(Text).since(3), // ClientSoftwareVersion
];

/// `ApiVersionsResponse.json`: whoever does not know the version asked for answers by version 0 (KIP-511), which begins alike.
pub(super) const API_VERSIONS_RESPONSE: &[Field] = &[field(Int16).gives(Error), field(Rest)];

/// `SaslHandshakeRequest.json`.
pub(super) const SASL_HANDSHAKE_REQUEST: &[Field] = &[
    field(Text).gives(Mechanism), // Mechanism
];

/// `SaslHandshakeResponse.json`.
pub(super) const SASL_HANDSHAKE_RESPONSE: &[Field] = &[
    field(Int16).gives(Error), // ErrorCode
    list(&Text),               // Mechanisms
];

/// `SaslAuthenticateRequest.json`.
pub(super) const SASL_AUTHENTICATE_REQUEST: &[Field] = &[
    field(Bytes), // AuthBytes
];

/// `SaslAuthenticateResponse.json`.
pub(super) const SASL_AUTHENTICATE_RESPONSE: &[Field] = &[
    field(Int16).gives(Error), // ErrorCode
    field(Text).nullable(0),   // ErrorMessage
    field(Bytes),              // AuthBytes
    field(Int64).since(1),     // SessionLifetimeMs
];
