//! What one segment of a path stands for, by its looks alone.

use std::borrow::Cow;

/// What a segment becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    /// A word of the route, kept as it is or with the identifier in it replaced (`order-{id}`, `{id}.png`).
    Word(Cow<'a, str>),
    /// An identifier: a number, a UUID, a hash, a token, an address.
    Id,
    /// A calendar date, with or without a time.
    Date,
    /// Text that was meant for people or is no plain word: encoded, very long, or in other characters.
    Text,
}

/// The longest word, in octets. What a developer calls a part of a route is shorter.
const WORD: usize = 48;

/// Reads one segment, without its slashes. Path parameters (`;jsessionid=…`) do not count.
pub(super) fn segment(segment: &str) -> Segment<'_> {
    let segment = segment.split(';').next().unwrap_or(segment);
    // Braces among others: nobody can write a placeholder into a path. `%` starts an encoded octet.
    if !segment.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&octet)) {
        return Segment::Text;
    }
    if is_version(segment) {
        return Segment::Word(segment.into());
    }
    if is_date(segment) {
        return Segment::Date;
    }
    // A file's name is read before the whole is, so that its extension and what is fixed in it stay.
    match file_without_id(segment) {
        Some(name) if !is_address(segment) => return Segment::Word(name.into()),
        _ if is_id(segment) => return Segment::Id,
        _ if segment.len() > WORD => return Segment::Text,
        _ => {}
    }
    Segment::Word(last_part(segment).map_or(segment.into(), |head| [head, "{id}"].concat().into()))
}

/// `v1`, `v2beta1`, `v1.2`, `1.0`: a version of an interface, which is part of the route.
fn is_version(text: &str) -> bool {
    let short = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit());
    if let Some(rest) = text.strip_prefix(['v', 'V']) {
        return rest.len() <= 10
            && rest.starts_with(|first: char| first.is_ascii_digit())
            && rest.bytes().all(|octet| octet.is_ascii_digit() || octet.is_ascii_lowercase() || octet == b'.')
            && text.len() <= 4 + rest.bytes().filter(|octet| !octet.is_ascii_digit()).count();
    }
    text.split_once('.').is_some_and(|(major, minor)| short(major) && short(minor))
}

/// `2026-01-31`, also followed by a time (ISO 8601).
fn is_date(text: &str) -> bool {
    let Some((date, time)) = text.split_at_checked(10) else { return false };
    date.bytes().enumerate().all(|(at, octet)| if at == 4 || at == 7 { octet == b'-' } else { octet.is_ascii_digit() })
        && (time.is_empty()
            || time.starts_with(['T', 't'])
                && time.bytes().skip(1).all(|octet| octet.is_ascii_digit() || b":.+-Zz".contains(&octet)))
}

/// Octets of a text by class.
#[derive(Default)]
struct Looks {
    digits: usize,
    letters: usize,
    /// Letters past `f`.
    past_hex: usize,
    /// Places where a letter follows a digit or a digit a letter.
    switches: usize,
    /// Places where a capital follows a small letter.
    humps: usize,
}

impl Looks {
    fn of(text: &str) -> Self {
        let mut looks = Self::default();
        let mut before = 0;
        for octet in text.bytes() {
            if octet.is_ascii_digit() {
                looks.digits += 1;
                looks.switches += usize::from(u8::is_ascii_alphabetic(&before));
            } else if octet.is_ascii_alphabetic() {
                looks.letters += 1;
                looks.past_hex += usize::from(!octet.is_ascii_hexdigit());
                looks.switches += usize::from(u8::is_ascii_digit(&before));
                looks.humps += usize::from(octet.is_ascii_uppercase() && u8::is_ascii_lowercase(&before));
            }
            before = octet;
        }
        looks
    }
}

/// Whether the whole text is an identifier. The numbers below separate random tokens from words with numbers in them
/// (`getUser2FactorAuthInfo`, `ConfigurationV2Beta1Service`, `base64`): a random text of letters and digits has one
/// digit in six and switches every fourth octet.
fn is_id(text: &str) -> bool {
    let looks = Looks::of(text);
    let (len, plain) = (text.len(), looks.letters + looks.digits == text.len());
    if looks.digits > 0 {
        let hex = looks.past_hex == 0;
        return looks.letters == 0
            || hex && plain && len >= 8
            || hex && is_uuid(text)
            || text.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|octet| octet.is_ascii_hexdigit()))
            || len >= 12 && looks.switches >= 4 && looks.digits * 10 >= len
            || len >= 12 && looks.humps * 6 >= len
            || is_address(text);
    }
    // Base64 without a digit is rare but for short texts; camel case has fewer humps.
    len >= 24 && looks.humps * 5 >= len || is_address(text)
}

/// 8-4-4-4-12 octets (RFC 9562, section 4); the caller knows that there are only hexadecimal digits between.
fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().enumerate().all(|(at, octet)| (octet == b'-') == matches!(at, 8 | 13 | 18 | 23))
}

/// A mail address. A leading `@` is a name of a package or a person, so it is left to what the position shows.
fn is_address(text: &str) -> bool {
    text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'))
}

/// Whether a part of a name is an identifier: any that would be one alone if it has some length, and the shortened
/// hashes that build tools put into file names (`3f2a9c`, `BcD3f9x2`).
fn is_token(text: &str) -> bool {
    let looks = Looks::of(text);
    let (len, plain) = (text.len(), looks.letters + looks.digits == text.len());
    plain
        && (looks.letters == 0 && looks.digits >= 3
            || looks.past_hex == 0 && len >= 6 && looks.digits >= 2
            || len >= 8 && looks.switches >= 3
            || len >= 8 && is_id(text))
}

/// A file's name with the identifier replaced that is all of its stem or the stem's last part; `None` when there is none.
fn file_without_id(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.')?;
    let plain = extension.len() <= 5
        && extension.bytes().all(|octet| octet.is_ascii_alphanumeric())
        && extension.bytes().any(|octet| octet.is_ascii_alphabetic());
    if !plain || stem.is_empty() {
        return None;
    }
    let head = last_part(stem).or_else(|| (is_id(stem) || is_date(stem)).then_some(""))?;
    (head.len() <= WORD).then(|| [head, "{id}.", extension].concat())
}

/// What comes before an identifier that stands last after a separator, the separator included.
fn last_part(text: &str) -> Option<&str> {
    let (head, last) = text.split_at_checked(text.rfind(['.', '-', '_'])? + 1)?;
    (head.len() > 1 && is_token(last) && !is_id(head)).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay() {
        for word in [
            "",
            "users",
            "v1",
            "v2beta1",
            "v1.2",
            "V3",
            "1.0",
            "2.11",
            "index.html",
            "favicon.ico",
            "robots.txt",
            "oauth2",
            "base64",
            "sha256",
            "ipv6",
            "x86",
            "2fa",
            "3d",
            "deadbeef",
            "decade",
            "facade",
            "getUser2FactorAuthInfo",
            "covid-19",
            "getUserAccountSettings",
            "ConfigurationV2Beta1Service",
            "my-account-settings",
            "user_profile",
            "@scope",
            "jquery-3.6.0.min.js",
            "iPhoneAppUserIDToken",
            "UPPER",
            "well-known",
            ".well-known",
            "~home",
            "a,b",
            "s3",
            "page-2",
            "update-password",
            "server-status",
            "main.css",
            "GetCapabilities",
            "-",
            ".",
            "..",
            "*",
        ] {
            assert_eq!(segment(word), Segment::Word(word.into()), "{word}");
        }
    }

    #[test]
    fn identifiers_are_replaced() {
        for id in [
            "1",
            "42",
            "1234567890",
            "-5",
            "12,34",
            "10.0.0.1",
            "555-0100",
            "20260131",
            "550e8400-e29b-41d4-a716-446655440000",
            "3F2504E0-4F89-11D3-9A0C-0305E82C3301",
            "507f1f77bcf86cd799439011",
            "d41d8cd98f00b204e9800998ecf8427e",
            "1a2b3c4d",
            "0x1f",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "V1StGXR8_Z5jdHi6B-myT",
            "dQw4w9WgXcQ7Lk",
            "NffrFeUfNV2Hib",
            "cus_NffrFeUfNV2Hib",
            "ann@example.org",
            "a.b+c@mail.example.org",
            "cXVpY2tCcm93bkZveEp1bXBzT3Zlcg==",
        ] {
            assert_eq!(segment(id), Segment::Id, "{id}");
        }
        for date in ["2026-01-31", "2026-01-31T10:00:00Z", "1999-12-31t23:59:59.5+01:00"] {
            assert_eq!(segment(date), Segment::Date, "{date}");
        }
        for text in
            ["caf%C3%A9", "foo%20bar", "{id}", "<script>", "naïve", "a\"b", "x\u{0}", &"y".repeat(49), "a|b", "a\\b"]
        {
            assert_eq!(segment(text), Segment::Text, "{text}");
        }
    }

    #[test]
    fn identifiers_in_names_are_replaced() {
        for (given, expected) in [
            ("app.3f2a9c.js", "app.{id}.js"),
            ("main-BcD3f9x2.css", "main-{id}.css"),
            ("chunk_2d0c8a4f.js", "chunk_{id}.js"),
            ("12345.png", "{id}.png"),
            ("550e8400-e29b-41d4-a716-446655440000.jpg", "{id}.jpg"),
            ("2026-01-31.log", "{id}.log"),
            ("order-12345", "order-{id}"),
            ("usr_1a2b3c", "usr_{id}"),
            ("report-2026", "report-{id}"),
            ("users;jsessionid=1A2B", "users"),
        ] {
            assert_eq!(segment(given), Segment::Word(expected.into()), "{given}");
        }
    }
}
