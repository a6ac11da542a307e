//! Finds, in an interpreter's command line, what it was told to run.

/// What an interpreter runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// A file, and the arguments after it.
    File(&'a str, &'a [String]),
    /// A module by name, and the arguments after it.
    Module(&'a str, &'a [String]),
    /// Code in the arguments or on standard input, or nothing.
    Code,
}

/// How the options of an interpreter are written, as far as needed to tell them from what it runs.
pub(super) struct Syntax {
    /// Long options with a value that may be the next argument.
    pub(super) valued: &'static [&'static str],
    /// Long options that bring code.
    pub(super) code: &'static [&'static str],
    /// Letters of short options whose value is the rest of the argument, else the next one.
    pub(super) short_valued: &'static str,
    /// Letters after which the rest of the argument, if any, is the value.
    pub(super) short_attached: &'static str,
    /// Letters that bring code.
    pub(super) short_code: &'static str,
    /// Letters that bring a module's name.
    pub(super) short_module: &'static str,
    /// Letters that bring the file.
    pub(super) short_file: &'static str,
    /// Words before the file that say what to do with it.
    pub(super) commands: &'static [&'static str],
}

const PLAIN: Syntax = Syntax {
    valued: &[],
    code: &[],
    short_valued: "",
    short_attached: "",
    short_code: "",
    short_module: "",
    short_file: "",
    commands: &[],
};

/// Python (`python3 --help-all`).
pub(super) const PYTHON: Syntax =
    Syntax { valued: &["--check-hash-based-pycs"], short_valued: "WXQ", short_code: "c", short_module: "m", ..PLAIN };

/// Node.js (`node --help`).
pub(super) const NODE: Syntax = Syntax {
    valued: &[
        "--conditions",
        "--cpu-prof-dir",
        "--diagnostic-dir",
        "--disable-warning",
        "--dns-result-order",
        "--env-file",
        "--env-file-if-exists",
        "--experimental-config-file",
        "--experimental-loader",
        "--heap-prof-dir",
        "--icu-data-dir",
        "--import",
        "--input-type",
        "--inspect-port",
        "--loader",
        "--localstorage-file",
        "--max-http-header-size",
        "--openssl-config",
        "--redirect-warnings",
        "--report-dir",
        "--report-directory",
        "--report-filename",
        "--report-signal",
        "--require",
        "--secure-heap",
        "--stack-trace-limit",
        "--title",
        "--tls-cipher-list",
        "--tls-keylog",
        "--trace-event-categories",
        "--trace-event-file-pattern",
        "--unhandled-rejections",
        "--watch-path",
    ],
    code: &["--eval", "--print", "--run"],
    short_valued: "rC",
    short_code: "ep",
    commands: &["inspect", "debug"],
    ..PLAIN
};

pub(super) const DENO: Syntax = Syntax {
    valued: &[
        "--cert",
        "--config",
        "--env-file",
        "--ext",
        "--host",
        "--import-map",
        "--location",
        "--lock",
        "--port",
        "--seed",
    ],
    code: &["--eval"],
    short_valued: "cL",
    commands: &["run", "serve", "watch"],
    ..PLAIN
};

pub(super) const BUN: Syntax = Syntax {
    valued: &[
        "--config",
        "--cwd",
        "--define",
        "--env-file",
        "--import",
        "--loader",
        "--port",
        "--preload",
        "--require",
        "--tsconfig-override",
    ],
    code: &["--eval", "--print"],
    short_valued: "crd",
    short_code: "ep",
    commands: &["run", "--bun"],
    ..PLAIN
};

pub(super) const RUBY: Syntax = Syntax {
    valued: &["--encoding", "--external-encoding", "--internal-encoding"],
    short_valued: "IrCE",
    short_attached: "0FKTWx",
    short_code: "e",
    ..PLAIN
};

pub(super) const PERL: Syntax = Syntax { short_valued: "I", short_attached: "0CDFMdilmx", short_code: "eE", ..PLAIN };

pub(super) const PHP: Syntax = Syntax {
    valued: &["--define", "--docroot", "--php-ini", "--server", "--zend-extension"],
    code: &["--run"],
    short_valued: "cdtSz",
    short_code: "rBRE",
    short_file: "fF",
    ..PLAIN
};

pub(super) const SHELL: Syntax =
    Syntax { valued: &["--init-file", "--rcfile"], short_valued: "oO", short_code: "cs", ..PLAIN };

pub(super) const DOTNET: Syntax = Syntax {
    valued: &[
        "--additional-deps",
        "--additionalprobingpath",
        "--depsfile",
        "--fx-version",
        "--roll-forward",
        "--runtimeconfig",
    ],
    commands: &["exec"],
    ..PLAIN
};

/// What `args` (without the interpreter itself) tell the interpreter to run.
pub(super) fn target<'a>(args: &'a [String], syntax: &Syntax) -> Target<'a> {
    let mut rest = args;
    while let Some((arg, after)) = rest.split_first() {
        rest = after;
        let arg = arg.as_str();
        if arg == "--" {
            return rest.split_first().map_or(Target::Code, |(file, after)| Target::File(file, after));
        }
        if syntax.commands.contains(&arg) || arg.is_empty() {
            continue;
        }
        if arg.starts_with("--") {
            let (name, value) = arg.split_once('=').map_or((arg, None), |(name, value)| (name, Some(value)));
            if syntax.code.contains(&name) {
                return Target::Code;
            }
            if value.is_none() && syntax.valued.contains(&name) {
                rest = rest.get(1..).unwrap_or_default();
            }
            continue;
        }
        match arg.strip_prefix('-') {
            // Code from standard input.
            Some("") => return Target::Code,
            Some(letters) => match short(letters, syntax) {
                Short::Flags => {}
                Short::ValueNext => rest = rest.get(1..).unwrap_or_default(),
                Short::Code => return Target::Code,
                Short::Module(value) => return named(value, rest, Target::Module),
                Short::File(value) => return named(value, rest, Target::File),
            },
            // A number is the value of an option that is not known here, rather than a file.
            None if arg.starts_with('+') || arg.bytes().all(|octet| octet.is_ascii_digit()) => {}
            None => return Target::File(arg, rest),
        }
    }
    Target::Code
}

/// `value`, else the next argument.
fn named<'a>(value: &'a str, rest: &'a [String], make: fn(&'a str, &'a [String]) -> Target<'a>) -> Target<'a> {
    if !value.is_empty() {
        return make(value, rest);
    }
    rest.split_first().map_or(Target::Code, |(value, rest)| make(value, rest))
}

enum Short<'a> {
    Flags,
    ValueNext,
    Code,
    Module(&'a str),
    File(&'a str),
}

/// One argument of short options, which may share a dash: `-um`, `-Wignore`.
fn short<'a>(letters: &'a str, syntax: &Syntax) -> Short<'a> {
    let mut rest = letters.chars();
    while let Some(letter) = rest.next() {
        if syntax.short_code.contains(letter) {
            return Short::Code;
        }
        if syntax.short_module.contains(letter) {
            return Short::Module(rest.as_str());
        }
        if syntax.short_file.contains(letter) {
            return Short::File(rest.as_str());
        }
        if syntax.short_valued.contains(letter) {
            return if rest.as_str().is_empty() { Short::ValueNext } else { Short::Flags };
        }
        if syntax.short_attached.contains(letter) {
            break;
        }
    }
    Short::Flags
}

/// The value of the first of the options `names`, written `--name value` or `--name=value`.
pub(super) fn value<'a>(args: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut rest = args;
    while let Some((arg, after)) = rest.split_first() {
        rest = after;
        if names.contains(&arg.as_str()) {
            return rest.first().map(String::as_str);
        }
        if let Some((name, value)) = arg.split_once('=')
            && names.contains(&name)
        {
            return Some(value);
        }
    }
    None
}
