//! The kinds of calls: their names, versions and headers (Kafka protocol guide, "Api Keys"; the message schemas of Apache
//! Kafka 3.9.1 and 4.1.1).

/// Which call a request makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApiKey(pub i16);

impl ApiKey {
    pub const PRODUCE: Self = Self(0);
    pub const FETCH: Self = Self(1);
    pub const METADATA: Self = Self(3);
    pub const CONTROLLED_SHUTDOWN: Self = Self(7);
    pub const OFFSET_COMMIT: Self = Self(8);
    pub const OFFSET_FETCH: Self = Self(9);
    pub const FIND_COORDINATOR: Self = Self(10);
    pub const JOIN_GROUP: Self = Self(11);
    pub const HEARTBEAT: Self = Self(12);
    pub const SYNC_GROUP: Self = Self(14);
    pub const SASL_HANDSHAKE: Self = Self(17);
    pub const API_VERSIONS: Self = Self(18);
    pub const INIT_PRODUCER_ID: Self = Self(22);
    pub const TXN_OFFSET_COMMIT: Self = Self(28);
    pub const CONSUMER_GROUP_HEARTBEAT: Self = Self(68);

    /// The name in the protocol guide; `None` of a call that is newer than the table below, or not Apache Kafka's.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.name)
    }

    /// The newest version in the table; a peer may speak newer ones.
    #[must_use]
    pub fn newest(self) -> Option<i16> {
        self.row().map(|row| row.newest)
    }

    /// Whether the header and the body of a request of this version have tagged fields (KIP-482).
    #[must_use]
    pub fn is_flexible(self, version: i16) -> bool {
        self.row().is_some_and(|row| version >= row.flexible)
    }

    /// Whether only members of a consumer group make such calls.
    #[must_use]
    pub const fn is_of_consumer(self) -> bool {
        matches!(
            self,
            Self::OFFSET_COMMIT
                | Self::OFFSET_FETCH
                | Self::JOIN_GROUP
                | Self::HEARTBEAT
                | Self::SYNC_GROUP
                | Self::CONSUMER_GROUP_HEARTBEAT
        )
    }

    /// The version of a request's header (`RequestHeader.json`): 0 has no client id, 2 has tagged fields behind it.
    #[must_use]
    pub fn request_header(self, version: i16) -> i16 {
        match self {
            Self::CONTROLLED_SHUTDOWN if version == 0 => 0,
            _ if self.is_flexible(version) => 2,
            _ => 1,
        }
    }

    /// The version of a response's header (`ResponseHeader.json`): 1 has tagged fields. That of `ApiVersions` is always 0,
    /// since the client does not know yet what the broker speaks (KIP-511).
    #[must_use]
    pub fn response_header(self, version: i16) -> i16 {
        i16::from(self != Self::API_VERSIONS && self.is_flexible(version))
    }

    fn row(self) -> Option<&'static Row> {
        ROWS.get(usize::try_from(self.0).ok()?)
    }
}

#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    newest: i16,
    /// The first version with tagged fields.
    flexible: i16,
}

const NEVER: i16 = i16::MAX;

const fn row(name: &'static str, newest: i16, flexible: i16) -> Row {
    Row { name, newest, flexible }
}

/// By key, from 0.
const ROWS: [Row; 93] = [
    row("Produce", 13, 9),
    row("Fetch", 18, 12),
    row("ListOffsets", 10, 6),
    row("Metadata", 13, 9),
    row("LeaderAndIsr", 7, 4),
    row("StopReplica", 4, 2),
    row("UpdateMetadata", 8, 6),
    row("ControlledShutdown", 3, 3),
    row("OffsetCommit", 10, 8),
    row("OffsetFetch", 10, 6),
    row("FindCoordinator", 6, 3),
    row("JoinGroup", 9, 6),
    row("Heartbeat", 4, 4),
    row("LeaveGroup", 5, 4),
    row("SyncGroup", 5, 4),
    row("DescribeGroups", 6, 5),
    row("ListGroups", 5, 3),
    row("SaslHandshake", 1, NEVER),
    row("ApiVersions", 4, 3),
    row("CreateTopics", 7, 5),
    row("DeleteTopics", 6, 4),
    row("DeleteRecords", 2, 2),
    row("InitProducerId", 6, 2),
    row("OffsetForLeaderEpoch", 4, 4),
    row("AddPartitionsToTxn", 5, 3),
    row("AddOffsetsToTxn", 4, 3),
    row("EndTxn", 5, 3),
    row("WriteTxnMarkers", 1, 1),
    row("TxnOffsetCommit", 5, 3),
    row("DescribeAcls", 3, 2),
    row("CreateAcls", 3, 2),
    row("DeleteAcls", 3, 2),
    row("DescribeConfigs", 4, 4),
    row("AlterConfigs", 2, 2),
    row("AlterReplicaLogDirs", 2, 2),
    row("DescribeLogDirs", 4, 2),
    row("SaslAuthenticate", 2, 2),
    row("CreatePartitions", 3, 2),
    row("CreateDelegationToken", 3, 2),
    row("RenewDelegationToken", 2, 2),
    row("ExpireDelegationToken", 2, 2),
    row("DescribeDelegationToken", 3, 2),
    row("DeleteGroups", 2, 2),
    row("ElectLeaders", 2, 2),
    row("IncrementalAlterConfigs", 1, 1),
    row("AlterPartitionReassignments", 1, 0),
    row("ListPartitionReassignments", 0, 0),
    row("OffsetDelete", 0, NEVER),
    row("DescribeClientQuotas", 1, 1),
    row("AlterClientQuotas", 1, 1),
    row("DescribeUserScramCredentials", 0, 0),
    row("AlterUserScramCredentials", 0, 0),
    row("Vote", 2, 0),
    row("BeginQuorumEpoch", 1, 1),
    row("EndQuorumEpoch", 1, 1),
    row("DescribeQuorum", 2, 0),
    row("AlterPartition", 3, 0),
    row("UpdateFeatures", 2, 0),
    row("Envelope", 0, 0),
    row("FetchSnapshot", 1, 0),
    row("DescribeCluster", 2, 0),
    row("DescribeProducers", 0, 0),
    row("BrokerRegistration", 4, 0),
    row("BrokerHeartbeat", 1, 0),
    row("UnregisterBroker", 0, 0),
    row("DescribeTransactions", 0, 0),
    row("ListTransactions", 2, 0),
    row("AllocateProducerIds", 0, 0),
    row("ConsumerGroupHeartbeat", 1, 0),
    row("ConsumerGroupDescribe", 1, 0),
    row("ControllerRegistration", 0, 0),
    row("GetTelemetrySubscriptions", 0, 0),
    row("PushTelemetry", 0, 0),
    row("AssignReplicasToDirs", 0, 0),
    row("ListConfigResources", 1, 0),
    row("DescribeTopicPartitions", 0, 0),
    row("ShareGroupHeartbeat", 1, 0),
    row("ShareGroupDescribe", 1, 0),
    row("ShareFetch", 1, 0),
    row("ShareAcknowledge", 1, 0),
    row("AddRaftVoter", 0, 0),
    row("RemoveRaftVoter", 0, 0),
    row("UpdateRaftVoter", 0, 0),
    row("InitializeShareGroupState", 0, 0),
    row("ReadShareGroupState", 0, 0),
    row("WriteShareGroupState", 0, 0),
    row("DeleteShareGroupState", 0, 0),
    row("ReadShareGroupStateSummary", 0, 0),
    row("StreamsGroupHeartbeat", 0, 0),
    row("StreamsGroupDescribe", 0, 0),
    row("DescribeShareGroupOffsets", 0, 0),
    row("AlterShareGroupOffsets", 0, 0),
    row("DeleteShareGroupOffsets", 0, 0),
];

#[cfg(test)]
mod tests {
    use super::ApiKey;

    #[test]
    fn headers_have_the_versions_of_the_schemas() {
        // Key, version, name, request header, response header.
        for (key, version, name, request, response) in [
            (0, 8, "Produce", 1, 0),
            (0, 9, "Produce", 2, 1),
            (1, 11, "Fetch", 1, 0),
            (1, 12, "Fetch", 2, 1),
            (3, 9, "Metadata", 2, 1),
            (7, 0, "ControlledShutdown", 0, 0),
            (7, 1, "ControlledShutdown", 1, 0),
            (7, 3, "ControlledShutdown", 2, 1),
            (17, 1, "SaslHandshake", 1, 0),
            (18, 2, "ApiVersions", 1, 0),
            (18, 3, "ApiVersions", 2, 0),
            (18, 99, "ApiVersions", 2, 0),
            (36, 2, "SaslAuthenticate", 2, 1),
            (68, 0, "ConsumerGroupHeartbeat", 2, 1),
            (92, 0, "DeleteShareGroupOffsets", 2, 1),
        ] {
            let api = ApiKey(key);
            assert_eq!(api.name(), Some(name));
            assert_eq!(
                (api.request_header(version), api.response_header(version)),
                (request, response),
                "{name} {version}"
            );
        }
        assert_eq!(ApiKey(93).name(), None);
        assert_eq!(ApiKey(-1).name(), None);
    }
}
