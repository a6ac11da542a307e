//! What the hellos of a TLS handshake say in the clear: the server's name, protocols, version (RFC 8446, sections 4.1 and
//! 4.2; RFC 5246, section 7.4.1).
//!
//! Read by hand: what an observer has may be cut anywhere, also within the list of extensions, and an extension of a form
//! that is not known must hide no other one. Whatever is cut off is unknown, never guessed from what is there.

#[cfg(test)]
mod tests;

/// Types of handshake messages.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// Octets of a record's head: type, version and length.
const HEAD: usize = 5;
const HANDSHAKE: u8 = 22;

/// Types of extensions (IANA, "TLS ExtensionType Values").
mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const ALPN: u16 = 16;
    pub(super) const SUPPORTED_VERSIONS: u16 = 43;
}

/// The protocols of IANA's registry for ALPN that are followed here.
const FOLLOWED: [&str; 3] = ["h2", "http/1.1", "http/1.0"];

/// A version that was agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Ssl30,
    Tls10,
    Tls11,
    Tls12,
    Tls13,
}

impl Version {
    const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            0x0300 => Self::Ssl30,
            0x0301 => Self::Tls10,
            0x0302 => Self::Tls11,
            0x0303 => Self::Tls12,
            0x0304 => Self::Tls13,
            _ => return None,
        })
    }
}

/// What a hello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    Client { server_name: Option<Box<str>>, offered: Vec<&'static str> },
    Server { version: Option<Version>, choice: Choice },
}

/// Which application protocol the server has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// It was not seen: the rest was cut off, or it is encrypted, as TLS 1.3 does.
    #[default]
    Unseen,
    Nothing,
    Protocol(Box<str>),
}

impl Hello {
    /// Reads the beginning of a direction's first record of TLS; `headless` when the record's head is not there. `None` when
    /// it begins no hello.
    #[must_use]
    pub fn read(octets: &[u8], headless: bool) -> Option<Self> {
        let octets = if headless { octets } else { record(octets)? };
        let mut octets = Octets(octets);
        let kind = octets.u8()?;
        let len = octets.u24()?;
        let mut message = Octets(octets.0.get(..len).unwrap_or(octets.0));
        let is_whole = message.0.len() == len;
        match kind {
            CLIENT_HELLO => Some(client(&mut message, is_whole)),
            SERVER_HELLO => Some(server(&mut message, is_whole)),
            _ => None,
        }
    }
}

/// What the first record of a handshake holds, as far as it is there. A message may go on in the next one, which is not
/// looked for.
fn record(octets: &[u8]) -> Option<&[u8]> {
    let (head, rest) = octets.split_first_chunk::<HEAD>()?;
    let &[HANDSHAKE, 3, _, high, low] = head else { return None };
    Some(rest.get(..u16::from_be_bytes([high, low]).into()).unwrap_or(rest))
}

fn client(message: &mut Octets<'_>, is_whole: bool) -> Hello {
    let (mut server_name, mut offered) = (None, Vec::new());
    // Version, random; session; cipher suites; compression.
    let mut before = || {
        message.take(2 + 32)?;
        message.vector8()?;
        message.vector16()?;
        message.vector8()
    };
    if before().is_some() {
        extensions(message, is_whole, |kind, data| match kind {
            extension::SERVER_NAME => server_name = host_name(data),
            extension::ALPN => offered = protocols(data).unwrap_or_default(),
            _ => {}
        });
    }
    Hello::Client { server_name, offered }
}

fn server(message: &mut Octets<'_>, is_whole: bool) -> Hello {
    let mut before = || {
        let version = message.u16()?;
        // Random; session; cipher suite and compression.
        message.take(32)?;
        message.vector8()?;
        message.take(3)?;
        Some(version)
    };
    let Some(legacy) = before() else { return Hello::Server { version: None, choice: Choice::Unseen } };
    let (mut selected, mut choice) = (None, None);
    let are_all = extensions(message, is_whole, |kind, data| match kind {
        extension::SUPPORTED_VERSIONS => selected = Some(Octets(data).u16()),
        extension::ALPN => choice = Some(chosen(data)),
        _ => {}
    });
    // A server of TLS 1.3 says 1.2 where older ones say their version.
    let version = selected.unwrap_or_else(|| are_all.then_some(legacy)).and_then(Version::from_code);
    let choice = match (choice, version) {
        (Some(choice), _) => choice,
        (None, Some(Version::Tls13) | None) => Choice::Unseen,
        (None, Some(_)) if are_all => Choice::Nothing,
        (None, Some(_)) => Choice::Unseen,
    };
    Hello::Server { version, choice }
}

/// Hands the first extension of each type that is there in full to `found`; whether these were all of the message.
fn extensions<'a>(message: &mut Octets<'a>, is_whole: bool, mut found: impl FnMut(u16, &'a [u8])) -> bool {
    let Some(len) = message.u16() else { return is_whole && message.0.is_empty() };
    let mut list = Octets(message.0.get(..len.into()).unwrap_or(message.0));
    let are_all = list.0.len() == usize::from(len);
    let mut seen = Vec::new();
    while !list.0.is_empty() {
        let Some((kind, data)) = list.u16().zip(list.vector16()) else { return false };
        // None comes twice (RFC 8446, section 4.2). Only those that are read are kept in mind.
        let is_read = matches!(kind, extension::SERVER_NAME | extension::ALPN | extension::SUPPORTED_VERSIONS);
        if is_read && !seen.contains(&kind) {
            seen.push(kind);
            found(kind, data);
        }
    }
    are_all
}

/// The host of a list of server names (RFC 6066, section 3), when it looks like one.
fn host_name(data: &[u8]) -> Option<Box<str>> {
    const HOST_NAME: u8 = 0;
    let mut list = Octets(Octets(data).vector16()?);
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vector16()?;
        if kind == HOST_NAME {
            let is_name = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_');
            let name = std::str::from_utf8(name).ok()?;
            let is_host = (1..=255).contains(&name.len()) && name.as_bytes().iter().all(is_name);
            return is_host.then(|| name.into());
        }
    }
    None
}

/// Those protocols of a list (RFC 7301, section 3.1) that are followed, when all of it can be read.
fn protocols(data: &[u8]) -> Option<Vec<&'static str>> {
    let mut list = Octets(Octets(data).vector16()?);
    let mut offered = Vec::new();
    while !list.0.is_empty() {
        let name = list.vector8()?;
        if let Some(known) = FOLLOWED.iter().find(|known| known.as_bytes() == name)
            && !offered.contains(known)
        {
            offered.push(*known);
        }
    }
    Some(offered)
}

/// The one protocol of a server's list.
fn chosen(data: &[u8]) -> Choice {
    let one = || {
        let mut list = Octets(Octets(data).vector16()?);
        let name = std::str::from_utf8(list.vector8()?).ok()?;
        let is_name = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic());
        (list.0.is_empty() && is_name).then(|| Choice::Protocol(name.into()))
    };
    one().unwrap_or_default()
}

/// What is known of a connection's handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Which server the client asked for.
    pub server_name: Option<Box<str>>,
    pub version: Option<Version>,
    offered: Vec<&'static str>,
    choice: Choice,
}

impl Session {
    /// Takes in what a hello says.
    pub fn learn(&mut self, hello: Hello) {
        match hello {
            Hello::Client { server_name, offered } => (self.server_name, self.offered) = (server_name, offered),
            Hello::Server { version, choice } => (self.version, self.choice) = (version, choice),
        }
    }

    /// The application protocol by its name in IANA's registry: the server's choice. Where that was not seen, `spoken` is it if
    /// the client has offered it.
    #[must_use]
    pub fn next_protocol<'a>(&'a self, spoken: &'a str) -> Option<&'a str> {
        match &self.choice {
            Choice::Protocol(name) => Some(name),
            Choice::Nothing => None,
            Choice::Unseen => self.offered.contains(&spoken).then_some(spoken),
        }
    }
}

/// Octets that are read from the front; `None` when too few are there.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u24(&mut self) -> Option<usize> {
        self.array().map(|[high, middle, low]| usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low))
    }

    /// A vector whose length stands before it, in one octet.
    fn vector8(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    /// The same with two octets.
    fn vector16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }
}
