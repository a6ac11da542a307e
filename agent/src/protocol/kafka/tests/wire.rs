//! Messages made by hand.

pub(super) fn sized(octets: &[u8]) -> Vec<u8> {
    [&(octets.len() as u32).to_be_bytes(), octets].concat()
}

pub(super) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as i16).to_be_bytes(), text.as_bytes()].concat()
}

/// A request with a header of version 1.
pub(super) fn request(key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), &correlation_id.to_be_bytes(), &text("me")].concat();
    sized(&[&head, body].concat())
}

pub(super) fn response(correlation_id: i32, body: &[u8]) -> Vec<u8> {
    sized(&[&correlation_id.to_be_bytes(), body].concat())
}

/// `Heartbeat` of version 0.
pub(super) fn heartbeat(correlation_id: i32, group: &str) -> Vec<u8> {
    request(12, 0, correlation_id, &[text(group), 7_i32.to_be_bytes().to_vec(), text("member")].concat())
}

pub(super) fn heartbeat_response(correlation_id: i32, error: i16) -> Vec<u8> {
    response(correlation_id, &error.to_be_bytes())
}

/// A batch of so many records, each with a value of `value` octets; no checksum.
pub(in crate::protocol::kafka) fn batch(records: u8, value: usize) -> Vec<u8> {
    let varint = |number: usize| {
        let (mut rest, mut octets) = (number * 2, Vec::new());
        while rest >= 0x80 {
            octets.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        octets.push(rest as u8);
        octets
    };
    let mut content = Vec::new();
    for number in 0..records {
        let context = format!("00-{:032x}-{:016x}-01", number + 1, number + 1);
        let mut record = vec![0, 0, number * 2, 2, b'k'];
        record.extend(varint(value));
        record.extend(vec![b'v'; value]);
        record.extend([2, 22]);
        record.extend(b"traceparent");
        record.extend(varint(context.len()));
        record.extend(context.as_bytes());
        content.extend(varint(record.len()));
        content.extend(record);
    }
    let mut batch = vec![0; 8];
    batch.extend((content.len() as i32 + 49).to_be_bytes());
    batch.extend([0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
    batch.extend((i32::from(records) - 1).to_be_bytes());
    batch.extend([0; 16]);
    batch.extend([0xff; 14]);
    batch.extend(i32::from(records).to_be_bytes());
    batch.extend(content);
    batch
}

/// `Produce` of version 3 to a partition of each of these topics.
pub(super) fn produce(correlation_id: i32, acks: i16, topics: &[&str], records: &[u8]) -> Vec<u8> {
    let mut body =
        [&[0xff, 0xff][..], &acks.to_be_bytes(), &[0, 0, 0, 9], &(topics.len() as i32).to_be_bytes()].concat();
    for topic in topics {
        body.extend(text(topic));
        body.extend([0, 0, 0, 1, 0, 0, 0, 5]);
        body.extend(sized(records));
    }
    request(0, 3, correlation_id, &body)
}

pub(super) fn produce_response(correlation_id: i32, topics: &[&str], error: i16) -> Vec<u8> {
    let mut body = (topics.len() as i32).to_be_bytes().to_vec();
    for topic in topics {
        body.extend(text(topic));
        body.extend([0, 0, 0, 1, 0, 0, 0, 5]);
        body.extend(error.to_be_bytes());
        body.extend(if error == 0 { 40_i64 } else { -1 }.to_be_bytes());
        body.extend([0xff; 8]);
    }
    body.extend([0; 4]);
    response(correlation_id, &body)
}
