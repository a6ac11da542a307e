//! The records of one batch (`DefaultRecord.java`).

use super::super::wire::Reader;

/// One record, as far as an observer looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// How far its offset is behind the batch's.
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    /// Headers, and how many of them there are.
    headers: Reader<'a>,
    count: i32,
}

impl<'a> Record<'a> {
    /// Takes one record off the front: its length, then attributes, timestamp, offset, key, value, headers. `None` when
    /// it is not all there, or is none.
    pub(super) fn take(octets: &mut Reader<'a>) -> Option<Self> {
        let length = usize::try_from(octets.varint()?).ok()?;
        let mut body = Reader(octets.octets(length)?);
        let _attributes = body.i8()?;
        let _timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let key = body.sized()?;
        let _value = body.sized()?;
        let count = body.varint()?;
        (count >= 0 && offset_delta >= 0).then_some(Self { offset_delta, key, headers: body, count })
    }

    /// Gives each header's name and value to `each`; `false` when they are not as they should be.
    pub(super) fn headers(&self, mut each: impl FnMut(&'a str, &'a [u8])) -> bool {
        let mut headers = self.headers;
        for _ in 0..self.count {
            let Some(name) = headers.sized().flatten() else { return false };
            let Some(value) = headers.sized() else { return false };
            if let (Ok(name), Some(value)) = (std::str::from_utf8(name), value) {
                each(name, value);
            }
        }
        headers.0.is_empty()
    }
}
