//! RabbitMQ: a broker of one node, clients of four kinds, and services on both sides of it.

mod broker;
mod client;
mod orders;
mod plan;
mod spans;
mod topology;
mod truth;

pub use broker::Broker;
pub use client::{Consumer, Kind, Producer};
pub use orders::{Orders, Taker};
pub use plan::{Ack, Consume, Produce};
pub use spans::{Told, delivered, delivery, join, joined, method, publish, published};
pub use topology::Topology;
pub use truth::{Message, destination};
