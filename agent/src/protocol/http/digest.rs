//! Requests as numbers: what kind they are of, which target they ask for, how much memory they take.

use std::hash::{DefaultHasher, Hasher as _};

use super::message::HttpMessage;

/// A hash of what is asked for: the method, and the path without its query; parts with a digit in them, mostly ids, are
/// taken for one.
pub(in crate::protocol) fn operation(message: &HttpMessage) -> u32 {
    // FNV-1a.
    let step = |hash: u32, octet: u8| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193);
    let target = message.target.as_bytes();
    let target = target.get(..OPERATION_OCTETS).unwrap_or(target);
    let path = target.split(|octet| matches!(octet, b'?' | b'#')).next().unwrap_or_default();
    path.split(|&octet| octet == b'/').fold(step(0x811c_9dc5, message.method as u8), |hash, part| {
        let id = part.iter().any(u8::is_ascii_digit);
        let part: &[u8] = if id { b"0" } else { part };
        part.iter().fold(step(hash, b'/'), |hash, &octet| step(hash, octet))
    })
}

/// A hash of the target and the method.
pub(in crate::protocol) fn target(message: &HttpMessage) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(message.method as u8);
    hasher.write(message.target.as_bytes());
    hasher.finish()
}

/// As many octets of a target say what kind of request it is.
const OPERATION_OCTETS: usize = 64;

/// About how many octets of memory a request's texts take.
pub(in crate::protocol) fn weight(message: &HttpMessage) -> usize {
    let optional = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    let captured: usize = message
        .request_headers
        .iter()
        .map(|(name, values)| name.len() + values.iter().map(|value| value.len()).sum::<usize>())
        .sum();
    message.target.len()
        + optional(&message.method_original)
        + optional(&message.host)
        + optional(&message.user_agent)
        + message.context.as_ref().map_or(0, |context| optional(&context.trace_state))
        + captured
}
