//! Keeps secrets out of what is exported.

use std::borrow::Cow;

const REDACTED: &str = "REDACTED";

/// Query keys whose value is a secret wherever they appear, in lower case. The first four are those that the
/// semantic conventions name for `url.query` and `url.full`.
const SECRET_KEYS: [&str; 30] = [
    "awsaccesskeyid",
    "signature",
    "sig",
    "x-goog-signature",
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "x-goog-credential",
    "access_token",
    "api_key",
    "api-key",
    "apikey",
    "auth",
    "authorization",
    "client_secret",
    "code",
    "credential",
    "credentials",
    "id_token",
    "jwt",
    "key",
    "passwd",
    "password",
    "pwd",
    "refresh_token",
    "secret",
    "session",
    "sessionid",
    "session_id",
    "token",
];

fn is_secret(key: &str) -> bool {
    // The longest entry has 20 octets; anything longer needs no comparison.
    key.len() <= 20 && SECRET_KEYS.iter().any(|secret| key.eq_ignore_ascii_case(secret))
}

/// The query (without its `?`) with the values of well-known secret keys replaced by `REDACTED`, as the semantic
/// conventions ask for `url.query`. Borrowed when there was nothing to replace.
#[must_use]
pub fn query(query: &str) -> Cow<'_, str> {
    let secret = |pair: &str| pair.split_once('=').is_some_and(|(key, value)| !value.is_empty() && is_secret(key));
    if !query.split('&').any(secret) {
        return Cow::Borrowed(query);
    }
    let mut out = String::with_capacity(query.len());
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((key, value)) if !value.is_empty() && is_secret(key) => {
                out.push_str(key);
                out.push('=');
                out.push_str(REDACTED);
            }
            _ => out.push_str(pair),
        }
    }
    Cow::Owned(out)
}

/// An authority without its user information, which may hold a password (RFC 3986, section 3.2.1).
#[must_use]
pub fn authority(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_queries_are_replaced_and_the_rest_is_kept() {
        let cases = [
            ("", ""),
            ("a=1&b=2", "a=1&b=2"),
            ("token=abc&page=2", "token=REDACTED&page=2"),
            ("page=2&API_KEY=x&x", "page=2&API_KEY=REDACTED&x"),
            ("sig=&token", "sig=&token"),
            ("X-Amz-Signature=00ff&X-Amz-Date=1", "X-Amz-Signature=REDACTED&X-Amz-Date=1"),
            ("tokens=abc", "tokens=abc"),
        ];
        for (given, expected) in cases {
            assert_eq!(query(given), expected, "{given}");
        }
    }

    #[test]
    fn user_information_is_dropped() {
        assert_eq!(authority("user:pass@host:80"), "host:80");
        assert_eq!(authority("host"), "host");
    }
}
