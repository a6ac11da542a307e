//! What both sides of Remora share: the records that cross the rings, the ids they carry, the limits both sides obey
//! and the counters the kernel side keeps. Plain data without pointers; `no_std`, no dependencies.
#![no_std]
#![deny(unsafe_code)]

pub mod amqp;
pub mod asyncio;
pub mod context;
pub mod counter;
pub mod hint;
pub mod hpack;
pub mod http2;
pub mod ids;
pub mod kafka;
pub mod layout;
pub mod limits;
pub mod record;
pub mod tls;
