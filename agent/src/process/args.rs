//! A command line fit to be exported: bounded, and without what looks like a secret.

use std::borrow::Cow;

use crate::signal::redact;

/// The most arguments exported.
const COUNT: usize = 64;
/// The most octets of all arguments together.
const OCTETS: usize = 4 * 1024;

const REDACTED: &str = "REDACTED";

/// How the names of options, variables and header fields end whose values are secrets, without regard to case and
/// to anything but letters and digits: `--db-password`, `API_TOKEN`, `Authorization:`.
const SECRETS: [&str; 18] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "credential",
    "credentials",
    "authorization",
    "cookie",
    "dsn",
    // What Java's modules of SASL are told, the password among it.
    "jaasconfig",
];

/// Whole names of secrets that are too short to be looked for at the end of longer ones.
const SECRET_WORDS: [&str; 3] = ["pass", "auth", "sig"];

/// `process.command_args`: at most 64 arguments and 4 KiB, cut there, the values of secrets replaced by `REDACTED`.
#[must_use]
pub fn exported(args: &[String]) -> Vec<Box<str>> {
    let mut out = Vec::new();
    let mut left = OCTETS;
    let mut previous = "";
    for arg in args.iter().take(COUNT) {
        let names = is_option(previous) || is_setting(previous);
        let secret = names && !arg.starts_with("--") && is_secret(previous);
        let redacted = if secret {
            Cow::Borrowed(REDACTED)
        } else if matches!(previous, "-u" | "--user" | "--proxy-user") {
            user(arg)
        } else {
            argument(arg)
        };
        let fits = redacted.get(..redacted.floor_char_boundary(left)).unwrap_or_default();
        out.push(fits.into());
        if fits.len() < redacted.len() {
            break;
        }
        left -= fits.len();
        previous = arg;
    }
    out
}

fn is_option(arg: &str) -> bool {
    arg.starts_with('-') && !arg.contains(['=', ':', ' '])
}

/// `sasl.password`, as programs leave it that take `-X sasl.password=…` apart where it stands (kcat).
fn is_setting(arg: &str) -> bool {
    arg.contains('.') && !arg.contains(['=', ':', ' ', '/'])
}

fn is_secret(name: &str) -> bool {
    // Code and documents are no names; what looks like one is short.
    if name.len() > 256 {
        return false;
    }
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    SECRETS.iter().any(|secret| name.ends_with(secret)) || SECRET_WORDS.contains(&name.as_str())
}

/// `curl -u user:password`.
fn user(arg: &str) -> Cow<'_, str> {
    match arg.split_once(':') {
        Some((user, password)) if !password.is_empty() => Cow::Owned(format!("{user}:{REDACTED}")),
        _ => argument(arg),
    }
}

/// One argument. `name=value` and `name: value` with a secret's name lose the whole value; of lists of such pairs
/// (connection strings, queries) each pair is looked at, and URLs lose their user information.
fn argument(arg: &str) -> Cow<'_, str> {
    if !arg.contains(['=', ':', '@']) {
        return Cow::Borrowed(arg);
    }
    let arg = urls(arg);
    if let Some(redacted) = pair(&arg) {
        return Cow::Owned(redacted);
    }
    let mut out = String::with_capacity(arg.len());
    // Where semicolons part the pairs, a space belongs to a value.
    let separators: &[char] =
        if arg.contains(';') { &[';', '&', '?', '\n'] } else { &['&', ',', '?', ' ', '\n', '\t'] };
    for piece in arg.split_inclusive(separators) {
        let end = piece.trim_end_matches(separators);
        match pair(end) {
            Some(redacted) => {
                out.push_str(&redacted);
                out.push_str(piece.get(end.len()..).unwrap_or_default());
            }
            None => out.push_str(piece),
        }
    }
    if out == *arg { arg } else { Cow::Owned(out) }
}

/// `name=value` or `name:value` with the value replaced, if the name is a secret's.
fn pair(text: &str) -> Option<String> {
    let at = text.find(['=', ':'])?;
    let (name, value) = text.split_at_checked(at + 1)?;
    (!value.trim().is_empty() && value.trim() != REDACTED && is_secret(name)).then(|| format!("{name}{REDACTED}"))
}

/// `arg` with the user information of each URL in it replaced (RFC 3986, section 3.2.1).
fn urls(arg: &str) -> Cow<'_, str> {
    if !arg.contains("://") || !arg.contains('@') {
        return Cow::Borrowed(arg);
    }
    let mut pieces = arg.split("://");
    let mut out = String::from(pieces.next().unwrap_or_default());
    for piece in pieces {
        out.push_str("://");
        let end = piece.find(['/', '?', '#', ' ', '"', '\'']).unwrap_or(piece.len());
        let (authority, rest) = piece.split_at(end);
        let host = redact::authority(authority);
        if host.len() < authority.len() {
            out.push_str(REDACTED);
            out.push('@');
        }
        out.push_str(host);
        out.push_str(rest);
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str], expected: &[&str]) {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let exported: Vec<String> = exported(&args).into_iter().map(String::from).collect();
        assert_eq!(exported, expected);
    }

    #[test]
    fn secrets_are_replaced() {
        check(&["app", "--port", "80", "-v"], &["app", "--port", "80", "-v"]);
        check(&["app", "--password", "x", "y"], &["app", "--password", "REDACTED", "y"]);
        check(&["app", "--password=x=y"], &["app", "--password=REDACTED"]);
        check(&["app", "--no-token", "--port=1"], &["app", "--no-token", "--port=1"]);
        check(&["env", "API_TOKEN=x", "PATH=/bin"], &["env", "API_TOKEN=REDACTED", "PATH=/bin"]);
        check(&["java", "-Dspring.datasource.password=x"], &["java", "-Dspring.datasource.password=REDACTED"]);
        check(&["curl", "-H", "Authorization: Bearer abc def"], &["curl", "-H", "Authorization:REDACTED"]);
        check(&["curl", "-u", "me:pw"], &["curl", "-u", "me:REDACTED"]);
        check(&["python3", "-u", "app.py"], &["python3", "-u", "app.py"]);
        check(
            &["x", "postgres://u:p@db:5432/shop?sslmode=off"],
            &["x", "postgres://REDACTED@db:5432/shop?sslmode=off"],
        );
        check(&["x", "--url=https://h/p?a=1&token=abc&b=2"], &["x", "--url=https://h/p?a=1&token=REDACTED&b=2"]);
        check(&["x", "Server=db;User Id=sa;Password=p w;X=1"], &["x", "Server=db;User Id=sa;Password=REDACTED;X=1"]);
        check(&["x", "host=db password=x dbname=y"], &["x", "host=db password=REDACTED dbname=y"]);
        check(&["x", "{\"password\":\"abc\"}"], &["x", "{\"password\":REDACTED"]);
        check(&["kcat", "-X", "sasl.password", "x", "-u"], &["kcat", "-X", "sasl.password", "REDACTED", "-u"]);
        check(&["ls", "./my.token", "x"], &["ls", "./my.token", "x"]);
        check(
            &["java", "-Dsasl.jaas.config=a.Module required username=\"u\" password=\"p\";"],
            &["java", "-Dsasl.jaas.config=REDACTED"],
        );
        check(&["x", "a:b@c", "k=v"], &["x", "a:b@c", "k=v"]);
    }

    #[test]
    fn the_whole_is_bounded() {
        let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        assert_eq!(exported(&many).len(), COUNT);
        let long = vec!["é".repeat(3000), "x".to_owned()];
        let exported = exported(&long);
        assert_eq!(exported.len(), 1);
        assert_eq!(exported.iter().map(|arg| arg.len()).sum::<usize>(), OCTETS);
    }
}
