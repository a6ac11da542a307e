//! Names from paths: which part of a path says what a program is.

/// File names, without extension and in lower case, that say how a program starts, not what it is.
const GENERIC_STEMS: [&str; 34] = [
    "__init__",
    "__main__",
    "app",
    "application",
    "artisan",
    "asgi",
    "boot",
    "bootstrap",
    "cli",
    "console",
    "default",
    "docker-entrypoint",
    "entry",
    "entrypoint",
    "index",
    "init",
    "launch",
    "launcher",
    "main",
    "manage",
    "program",
    "quarkus-run",
    "run",
    "runner",
    "runserver",
    "serve",
    "server",
    "service",
    "start",
    "start-server",
    "startup",
    "web_server",
    "wsgi",
    "www",
];

/// Directories, in lower case, that say how files are laid out, not what they belong to. Generic stems are as well.
const GENERIC_DIRECTORIES: [&str; 53] = [
    "bin",
    "build",
    "cjs",
    "classes",
    "cmd",
    "code",
    "current",
    "data",
    "debug",
    "deploy",
    "deployment",
    "deployments",
    "dist",
    "dist-packages",
    "esm",
    "etc",
    "exe",
    "home",
    "htdocs",
    "html",
    "lib",
    "lib64",
    "libs",
    "local",
    "mnt",
    "node_modules",
    "opt",
    "out",
    "output",
    "pkg",
    "public",
    "public_html",
    "publish",
    "quarkus-app",
    "release",
    "releases",
    "root",
    "sbin",
    "script",
    "scripts",
    "share",
    "site-packages",
    "source",
    "sources",
    "src",
    "srv",
    "standalone",
    "target",
    "tmp",
    "usr",
    "var",
    "venv",
    "work",
];

/// More of them: where container images and build machines put whatever they run.
const GENERIC_PLACES: [&str; 6] = ["function", "project", "task", "webroot", "workdir", "workspace"];

/// Extensions that name a language or a package format, so that a name is better without them.
const EXTENSIONS: [&str; 30] = [
    "bash", "cjs", "cts", "dll", "ex", "exe", "exs", "jar", "java", "js", "jsx", "ksh", "lua", "mjs", "mts", "phar",
    "php", "pl", "pm", "psgi", "py", "pyc", "pyw", "pyz", "rb", "ru", "sh", "ts", "tsx", "war",
];

/// Whether a file's stem or a module's name says nothing about what the program is.
pub(super) fn is_generic(stem: &str) -> bool {
    GENERIC_STEMS.iter().any(|generic| stem.eq_ignore_ascii_case(generic))
}

fn is_generic_directory(name: &str) -> bool {
    let listed = |list: &[&str]| list.iter().any(|generic| name.eq_ignore_ascii_case(generic));
    // Hidden directories hold what tools made (`.venv`, `.next`, `.output`); numbers and versions are releases.
    name.starts_with('.')
        || is_version(name)
        || is_generic(name)
        || listed(&GENERIC_DIRECTORIES)
        || listed(&GENERIC_PLACES)
}

/// Whether a name is a number, a date or a version: `20240131`, `v2`, `1.4.2`.
pub(super) fn is_version(name: &str) -> bool {
    let digits = name.strip_prefix('v').unwrap_or(name);
    digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|octet| octet.is_ascii_digit() || matches!(octet, b'.' | b'_' | b'-'))
}

/// The last component of a path.
pub(in crate::process) fn base(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').map_or(path, |(_, base)| base)
}

/// The path without its last component: empty for a path of one component.
pub(super) fn parent(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((parent, _)) => parent,
        None => "",
    }
}

/// The last component of a path without an extension that only names its language.
pub(super) fn stem(path: &str) -> &str {
    let base = base(path);
    match base.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && is_extension(extension) => stem,
        _ => base,
    }
}

fn is_extension(extension: &str) -> bool {
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Whether the path ends in an extension of a language or package format.
pub(super) fn has_extension(path: &str) -> bool {
    base(path).rsplit_once('.').is_some_and(|(_, extension)| is_extension(extension))
}

/// The path seen from `/`, its `.` and `..` resolved by the text alone. A relative path without a known working
/// directory stays relative.
pub(super) fn absolute(path: &str, cwd: Option<&str>) -> String {
    let from = if path.starts_with('/') { "" } else { cwd.unwrap_or_default() };
    let rooted = path.starts_with('/') || from.starts_with('/');
    let mut components: Vec<&str> = Vec::new();
    for component in from.split('/').chain(path.split('/')) {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            other => components.push(other),
        }
    }
    let joined = components.join("/");
    if rooted { format!("/{joined}") } else { joined }
}

/// The nearest component of a directory's path, from its end, that says what is in it.
pub(super) fn telling(directory: &str) -> Option<&str> {
    let components: Vec<&str> = directory.split('/').filter(|component| !component.is_empty()).collect();
    // Names of people and of temporary directories name no service.
    let personal = match components.as_slice() {
        ["tmp", build, ..] if build.starts_with("go-build") => return None,
        ["home" | "Users" | "tmp", _, ..] => 2,
        ["var", "tmp", _, ..] | ["dev", "shm", _, ..] => 3,
        _ => 0,
    };
    let own = components.get(personal..)?;
    own.iter().rev().copied().find(|component| !is_generic_directory(component))
}

/// What to call the file at an absolute path: its stem, or where that is generic the directory it belongs to.
pub(super) fn file(path: &str) -> Option<String> {
    let stem = stem(path);
    if stem.is_empty() {
        return None;
    }
    let name = if is_generic(stem) { telling(parent(path)).unwrap_or(stem) } else { stem };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute_by_their_text() {
        let cases = [
            ("app.py", Some("/srv/orders"), "/srv/orders/app.py"),
            ("./app.py", Some("/srv/orders/"), "/srv/orders/app.py"),
            ("../web/index.js", Some("/srv/orders"), "/srv/web/index.js"),
            ("/a//b/./c", Some("/x"), "/a/b/c"),
            ("../../../etc", Some("/x"), "/etc"),
            ("app.py", None, "app.py"),
            ("/", None, "/"),
        ];
        for (path, cwd, expected) in cases {
            assert_eq!(absolute(path, cwd), expected, "{path} in {cwd:?}");
        }
    }

    #[test]
    fn the_telling_directory() {
        let cases = [
            ("/srv/orders", Some("orders")),
            ("/srv/orders/dist/src", Some("orders")),
            ("/srv/orders/releases/20240131120000", Some("orders")),
            ("/usr/src/app", None),
            ("/home/alice", None),
            ("/home/alice/shop/src", Some("shop")),
            ("/tmp/tmp.Ab12", None),
            ("/tmp/go-build123/b001/exe", None),
            ("/opt/shop/.venv/bin", Some("shop")),
            ("/", None),
            ("", None),
        ];
        for (directory, expected) in cases {
            assert_eq!(telling(directory), expected, "{directory}");
        }
    }
}
