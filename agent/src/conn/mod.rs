//! The one owner of each connection: puts its octets in order, feeds the protocol's follower, tells the kernel side
//! what it may leave out. Records and times in, finished exchanges out.

mod hellos;
mod pairs;
mod stream;
mod table;
mod tables;

pub use self::table::{Connections, ExchangeId, Finished, OpenSide, Stats, Step};
pub use self::tables::{Counts, Located};
