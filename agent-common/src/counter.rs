//! What the kernel side counts, above all each place where it can lose something.

/// Declares the counters once: the enum, its number, its names.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $drop:literal;)*) => {
        /// An index into the kernel side's per-CPU array of counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The counter's name, in the form of a metric label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether each count stands for something that was lost.
            #[must_use]
            pub const fn is_drop(self) -> bool {
                match self { $(Self::$name => $drop,)* }
            }
        }
    };
}

counters! {
    /// Segment records that should have gone into the ring.
    Segments = "segments", false;
    /// Segment records for which the ring had no room.
    SegmentRingFull = "segment_ring_full", true;
    /// Lifecycle records that should have gone into the ring.
    Lifecycle = "lifecycle", false;
    /// Lifecycle records for which the ring had no room.
    LifecycleRingFull = "lifecycle_ring_full", true;
    /// Sockets that could not be put into the map.
    SocketMapFull = "socket_map_full", true;
    /// Payload in user memory that could not be read; its length is still reported.
    PayloadFault = "payload_fault", true;
    /// Calls with more I/O vectors or messages than are looked at; the length is still reported.
    VectorsCut = "vectors_cut", true;
    /// Sending calls whose entry time was lost to another thread's; the return time stands in for it.
    EntryTimeLost = "entry_time_lost", true;
    /// Calls not captured, since the per-CPU scratch space was not there.
    NoScratch = "no_scratch", true;
    /// Sockets taken for HTTP by their first octets.
    SocketsTaken = "sockets_taken", false;
    /// Sockets refused by their first octets or by a filter.
    SocketsRefused = "sockets_refused", false;
    /// Calls into TLS libraries that moved plaintext of a connection that is not known.
    TlsUnattributed = "tls_unattributed", true;
    /// Calls into TLS libraries that were not seen to begin, mostly since they began before the hooks were there: what they
    /// moved is not seen.
    TlsCallLost = "tls_call_lost", true;
    /// TLS sessions that seemed to use two sockets, and are left alone.
    TlsAmbiguous = "tls_ambiguous", true;
    /// Connections of which the kernel encrypts one direction and no library's function shows the other: what the calls
    /// move in the clear is left alone.
    KernelTlsHalf = "kernel_tls_half", true;
    /// Requests sent with a new trace.
    ContextRoot = "context_root", false;
    /// Requests sent in the trace of the request that their thread serves.
    ContextThread = "context_thread", false;
    /// Requests sent in the trace of the only request that their process serves.
    ContextOnly = "context_only", false;
    /// Requests sent while their cause was not certain.
    ContextUncertain = "context_uncertain", false;
    /// Requests sent that another agent or the application itself had put into a trace that is not known here.
    ContextForeign = "context_foreign", false;
    /// Requests whose application sends a context of its own, left alone.
    ContextOwn = "context_own", false;
    /// Requests whose head could not be read whole when they were sent.
    ContextHeadUnseen = "context_head_unseen", false;
    /// Requests on connections older than the agent, left alone.
    ContextOldConnection = "context_old_connection", false;
    /// Packets sent with a context, retransmissions included.
    OptionSent = "option_sent", false;
    /// Packets that had no room for a context.
    OptionNoRoom = "option_no_room", false;
    /// Contexts that packets brought.
    OptionReceived = "option_received", false;
    /// Contexts received that no agent of this version writes.
    OptionMalformed = "option_malformed", false;
    /// Requests into which a context was put.
    HeaderSent = "header_sent", false;
    /// Requests left alone, since it is not certain that a request begins there: the one before had no known end.
    HeaderUnproven = "header_unproven", false;
    /// Requests left alone, since the kernel might have sent a part of them alone, or the call was not the one looked at.
    HeaderNotReady = "header_not_ready", false;
    /// Requests left alone, since the kernel made no room or their frame has none.
    HeaderNoRoom = "header_no_room", false;
    /// Requests whose sending failed, since what had been put into them could not be taken back.
    HeaderStuck = "header_stuck", true;
    /// Connections of HTTP/2 left alone from then on, since it is not certain any more where a frame begins, or what a block
    /// of header fields held.
    HeaderFramesLost = "header_frames_lost", false;
    /// Connections that the kernel did not let the agent write to.
    HeaderRefused = "header_refused", false;
    /// Connections or requests that could not be put into the maps of propagation.
    ContextMapFull = "context_map_full", false;
}
