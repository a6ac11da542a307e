//! Four requests of Kafka's protocol that the harness itself makes, in their versions without tagged fields
//! (<https://kafka.apache.org/protocol>).

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const LIST_OFFSETS: i16 = 2;
const OFFSET_FETCH: i16 = 9;
const API_VERSIONS: i16 = 18;
const CREATE_TOPICS: i16 = 19;
const DEADLINE: Duration = Duration::from_secs(10);

/// Sends one request with a header of version 1; gives the response behind its correlation id.
fn call(port: u16, key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    // The correlation id is 1; there is no client id.
    let header = [&key.to_be_bytes()[..], &version.to_be_bytes(), &1_i32.to_be_bytes(), &(-1_i16).to_be_bytes()];
    let request = [&header.concat(), body].concat();
    stream.write_all(&[&i32::try_from(request.len())?.to_be_bytes()[..], &request].concat())?;
    let mut size = [0; 4];
    stream.read_exact(&mut size).context("the broker does not answer")?;
    let mut response = vec![0; usize::try_from(i32::from_be_bytes(size))?];
    stream.read_exact(&mut response).context("the broker's answer has no end")?;
    ensure!(response.get(..4) == Some(&1_i32.to_be_bytes()), "the broker answers another request");
    Ok(response.split_off(4))
}

/// Fails unless a broker on `port` answers.
pub(super) fn api_versions(port: u16) -> Result<()> {
    let response = call(port, API_VERSIONS, 0, &[])?;
    ensure!(response.get(..2) == Some(&[0, 0]), "the broker refuses ApiVersions");
    Ok(())
}

/// Makes a topic without replicas.
pub(super) fn create_topic(port: u16, name: &str, partitions: i32) -> Result<()> {
    let name = text(name)?;
    let mut body = [&1_i32.to_be_bytes()[..], &name, &partitions.to_be_bytes(), &1_i16.to_be_bytes()].concat();
    // No assignments and no settings; the deadline in milliseconds; not only to try it.
    body.extend([[0; 4], [0; 4], 10_000_i32.to_be_bytes()].concat());
    body.push(0);
    let response = call(port, CREATE_TOPICS, 4, &body)?;
    // Time of throttling, number of topics, name, error code.
    let error = error(&response, 8 + name.len())?;
    ensure!(error == 0, "error {error} of CreateTopics");
    Ok(())
}

/// Whether the broker has the partition, which it does not at once.
pub(super) fn has_partition(port: u16, topic: &str, partition: i32) -> Result<bool> {
    Ok(end(port, topic, partition)?.0 == 0)
}

/// The error code, and the offset that a partition's next record will have.
fn end(port: u16, topic: &str, partition: i32) -> Result<(i16, i64)> {
    let name = text(topic)?;
    // From no replica; one topic, one partition of it, its end.
    let mut body = [&(-1_i32).to_be_bytes()[..], &1_i32.to_be_bytes(), &name, &1_i32.to_be_bytes()].concat();
    body.extend([&partition.to_be_bytes()[..], &(-1_i64).to_be_bytes()].concat());
    let response = call(port, LIST_OFFSETS, 1, &body)?;
    // Number of topics, name, number of partitions, partition, error code, time.
    let at = 4 + name.len() + 8;
    Ok((error(&response, at)?, offset(&response, at + 10)?))
}

/// How many records of a partition are behind what a group has committed.
pub(super) fn lag(port: u16, group: &str, topic: &str, partition: i32) -> Result<i64> {
    let (error_of_end, end) = end(port, topic, partition)?;
    let name = text(topic)?;
    let body = [&text(group)?, &1_i32.to_be_bytes()[..], &name, &1_i32.to_be_bytes(), &partition.to_be_bytes()];
    let response = call(port, OFFSET_FETCH, 1, &body.concat())?;
    // Number of topics, name, number of partitions, partition, offset, the group's own text, error code.
    let at = 4 + name.len() + 8;
    let committed = offset(&response, at)?;
    let length = usize::try_from(error(&response, at + 8)?).unwrap_or(0);
    let error = error(&response, at + 10 + length)?;
    ensure!(
        (error_of_end, error) == (0, 0) && committed >= 0,
        "errors {error_of_end} and {error}, committed {committed}"
    );
    Ok(end - committed)
}

/// A text behind its length.
fn text(text: &str) -> Result<Vec<u8>> {
    Ok([&i16::try_from(text.len())?.to_be_bytes()[..], text.as_bytes()].concat())
}

fn error(response: &[u8], at: usize) -> Result<i16> {
    let code = response.get(at..).and_then(|rest| rest.first_chunk()).context("a cut answer")?;
    Ok(i16::from_be_bytes(*code))
}

fn offset(response: &[u8], at: usize) -> Result<i64> {
    let offset = response.get(at..).and_then(|rest| rest.first_chunk()).context("a cut answer")?;
    Ok(i64::from_be_bytes(*offset))
}
