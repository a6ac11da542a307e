//! Apache Kafka: a broker of one node, clients of five kinds, and services on both sides of it.

mod broker;
mod client;
mod orders;
mod plan;
mod spans;
mod truth;
mod wire;

pub use broker::{Broker, PASSWORD, USER, VERSIONS};
pub use client::{Consumer, Kind, Producer, wait_for_group};
pub use orders::{Orders, Taker};
pub use plan::{Consume, Produce, Sasl};
pub use spans::{Batch, exactly, of_topic, taken};
pub use truth::{Offsets, Record, offsets};
