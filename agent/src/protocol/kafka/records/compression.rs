//! Compressed content (`CompressionType.java`), decompressed up to a limit.
//!
//! Whatever the content claims, no more than the limit comes out. What the decoders take besides: LZ4 two blocks of at most
//! 4 MiB, of which only what is written to becomes real memory; Zstandard a window of at most [`ZSTD_WINDOW`].

use std::io::Read;

/// How a batch is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// The largest window of Zstandard that is decompressed: what the highest of its usual levels take.
const ZSTD_WINDOW: u64 = 8 << 20;
/// What begins snappy-java's framing, with two numbers of the version behind it.
const XERIAL: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEAD: usize = 16;
/// What begins a frame of LZ4.
const LZ4: &[u8] = &[0x04, 0x22, 0x4d, 0x18];

/// Content, or the beginning of it.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) octets: Vec<u8>,
    pub(super) whole: bool,
}

impl Compression {
    /// By the lowest three bits of a batch's attributes.
    pub(super) const fn of(attributes: i16) -> Option<Self> {
        match attributes & 7 {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name as clients' settings have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// At most `limit` octets of what was compressed to `octets`, which may be only the beginning of it.
    pub(super) fn decompress(self, octets: &[u8], limit: usize) -> Content {
        match self {
            Self::None => {
                Content { octets: octets.get(..limit).unwrap_or(octets).to_vec(), whole: octets.len() <= limit }
            }
            Self::Gzip => read(flate2::read::MultiGzDecoder::new(octets), limit),
            Self::Snappy => snappy(octets, limit),
            Self::Lz4 if octets.starts_with(LZ4) => read(lz4_flex::frame::FrameDecoder::new(octets), limit),
            Self::Lz4 => Content { octets: Vec::new(), whole: false },
            Self::Zstd => match ruzstd::decoding::StreamingDecoder::new_with_max_window_size(octets, ZSTD_WINDOW) {
                Ok(decoder) => read(decoder, limit),
                Err(_) => Content { octets: Vec::new(), whole: false },
            },
        }
    }
}

/// What comes before an error is right: errors are ends that come too early, as a rule.
fn read(decoder: impl Read, limit: usize) -> Content {
    let mut octets = Vec::new();
    let ended = decoder.take(limit as u64 + 1).read_to_end(&mut octets).is_ok();
    let whole = ended && octets.len() <= limit;
    octets.truncate(limit);
    Content { octets, whole }
}

/// One block, or snappy-java's framing: blocks behind their lengths.
fn snappy(octets: &[u8], limit: usize) -> Content {
    let mut content = Content { octets: Vec::new(), whole: false };
    if !octets.starts_with(XERIAL) {
        content.whole = block(octets, limit, &mut content.octets).is_some();
        return content;
    }
    let mut rest = octets.get(XERIAL_HEAD..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((compressed, after)) = after.split_at_checked(length) else { return content };
        if block(compressed, limit, &mut content.octets).is_none() {
            return content;
        }
        rest = after;
    }
    content.whole = rest.is_empty() && octets.len() >= XERIAL_HEAD;
    content
}

/// Adds one block, unless that makes more than `limit` octets; a block says at its beginning how long it becomes.
fn block(octets: &[u8], limit: usize, content: &mut Vec<u8>) -> Option<()> {
    let length = snap::raw::decompress_len(octets).ok()?;
    let from = content.len();
    if from.checked_add(length)? > limit {
        return None;
    }
    content.resize(from + length, 0);
    let done = snap::raw::Decoder::new().decompress(octets, content.get_mut(from..)?).ok();
    if done.is_none() {
        content.truncate(from);
    }
    done.map(drop)
}
