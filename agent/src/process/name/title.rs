//! Titles: what processes write over their command line (`setproctitle`) to tell people what they are.

use super::place;
use super::{Clue, CommandLine, python};

/// The title of a process whose interpreter has the base name `exe`: its command line is one string that is no longer
/// the interpreter's name or path.
pub(super) fn of<'a>(args: &'a [String], exe: &str) -> Option<&'a str> {
    let mut filled = args.iter().filter(|arg| !arg.trim().is_empty());
    let (Some(title), None) = (filled.next(), filled.next()) else { return None };
    // A login shell is called `-bash`.
    let title = title.trim().trim_start_matches('-');
    let same = place::base(title) == exe || (title.starts_with('/') && !title.contains(' '));
    (!same && !title.is_empty() && super::runtime(place::base(title)).is_none()).then_some(title)
}

/// What a title says.
pub(super) fn clue(title: &str, line: &CommandLine<'_>) -> Clue {
    // `gunicorn: worker [shop:app]`, `puma 6.4.2 (tcp://0.0.0.0:3000) [orders]`
    if let Some(inner) = bracketed(title) {
        if title.starts_with("gunicorn") {
            return python::application(inner, None, line);
        }
        if title.starts_with("puma") {
            return Clue::Name(inner.to_owned());
        }
    }
    if let Some(pool) = title.strip_prefix("php-fpm: pool ") {
        // The pool of the distributions' own configuration.
        return Clue::Name(if pool.trim() == "www" { "php-fpm" } else { pool }.to_owned());
    }
    let words: Vec<&str> = title.split_ascii_whitespace().collect();
    match words.as_slice() {
        // `sidekiq 7.2.0 orders [0 of 5 busy]`
        ["sidekiq", version, name, ..] if place::is_version(version) && !name.starts_with('[') => {
            return Clue::Name((*name).to_owned());
        }
        // `Passenger RubyApp: /srv/orders/public (production)`
        ["Passenger", kind, path, ..] if kind.ends_with("App:") => {
            return Clue::Tool(place::telling(path).map(str::to_owned));
        }
        _ => {}
    }
    // `[celeryd: celery@host:MainProcess] -active- (-A shop worker)`
    let celery = words.iter().position(|word| word.trim_start_matches('(') == "-A");
    if title.contains("celery")
        && let Some(app) = celery.and_then(|at| words.get(at + 1))
    {
        return python::application(app.trim_end_matches(')'), None, line);
    }
    let first = words.first().copied().unwrap_or(title);
    // `name: state` is a server of its own; `next-server (v14.2.3)` or `unicorn master` run what lies in their directory.
    match title.split_once(": ") {
        Some((name, _)) if !name.contains(' ') && !name.is_empty() => Clue::Name(name.to_owned()),
        _ if words.len() > 1 => Clue::Tool(Some(first.to_owned())),
        _ => Clue::Name(first.trim_end_matches(':').to_owned()),
    }
}

/// The text in the brackets that end a title, if it is one word.
fn bracketed(title: &str) -> Option<&str> {
    let inner = title.strip_suffix(']')?.rsplit_once('[')?.1;
    (!inner.is_empty() && !inner.contains(' ')).then_some(inner)
}
