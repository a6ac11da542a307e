//! What a person would call a process, judged by its command line: the script, module or jar that an interpreter
//! runs rather than the interpreter, the application that a server loads rather than the server.
//!
//! Pure: text in, text out. The rules, the first that says something:
//! 1. what the command line names in so many words (gunicorn's `--name`, `-Dspring.application.name`, …);
//! 2. the script, module, application, jar or class, without extension and version;
//! 3. where that is generic (`app.py`, `server.js`, `main`), the package's own name (Node.js) or the nearest directory
//!    that is not generic itself;
//! 4. for any other program, the executable.

mod java;
mod options;
mod place;
mod python;
mod title;

#[cfg(test)]
mod tests;

pub(super) use self::place::base;

use self::options::{Syntax, Target};

/// The longest service name, in octets; what goes beyond is cut.
const NAME: usize = 255;

/// What is known of how a process was started.
#[derive(Clone, Copy)]
pub struct CommandLine<'a> {
    /// The executable's path, or its name when the path is not known.
    pub exe: &'a str,
    /// The arguments, the program's own name first; possibly a title that the process wrote over them.
    pub args: &'a [String],
    /// The working directory, as the process sees it.
    pub cwd: Option<&'a str>,
    pub hints: &'a Hints,
    /// Gives the `name` of the `package.json` in a directory, as the process sees it.
    pub manifest: &'a dyn Fn(&str) -> Option<String>,
}

/// What variables of the environment say about a program, by the runtimes that set or read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `FLASK_APP`.
    pub flask: Option<String>,
    /// `npm_package_name`.
    pub npm: Option<String>,
    /// `name` beside `pm_id`: what PM2 calls the process.
    pub pm2: Option<String>,
    /// `SPRING_APPLICATION_NAME`.
    pub spring: Option<String>,
}

/// What a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// What to call it; `None` when nothing tells.
    pub name: Option<String>,
    /// The language, as `telemetry.sdk.language` has it, when it is certain.
    pub language: Option<&'static str>,
    /// The file the interpreter runs, absolute when the working directory is known.
    pub script: Option<String>,
}

/// Where a name may come from.
enum Clue {
    /// This is the name.
    Name(String),
    /// A file: its stem or, if that is generic, its place.
    File(String),
    /// A tool that runs what lies in the working directory; its own name is the last resort.
    Tool(Option<String>),
    /// Code without a name.
    Nothing,
}

impl Clue {
    fn name(self, line: &CommandLine<'_>) -> Option<String> {
        let name = match self {
            Self::Name(name) => Some(name),
            Self::File(path) => place::file(&path),
            Self::Tool(tool) => line.cwd.and_then(place::telling).map(str::to_owned).or(tool),
            Self::Nothing => None,
        };
        name.and_then(|name| clean(&name))
    }
}

/// The kinds of interpreter, by what their command lines look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runtime {
    Python,
    Node,
    Deno,
    Bun,
    Ruby,
    Perl,
    Php,
    Java,
    Dotnet,
    Mono,
    Shell,
}

/// The interpreter an executable's base name stands for, with or without a version.
fn runtime(exe: &str) -> Option<Runtime> {
    let plain = exe.trim_end_matches(|letter: char| letter.is_ascii_digit() || matches!(letter, '.' | '-'));
    Some(match plain {
        "python" | "pypy" | "python-dbg" | "uwsgi-python" => Runtime::Python,
        "node" | "nodejs" => Runtime::Node,
        "deno" => Runtime::Deno,
        "bun" => Runtime::Bun,
        "ruby" | "jruby" | "truffleruby" => Runtime::Ruby,
        "perl" => Runtime::Perl,
        "php" | "php-fpm" | "php-cgi" | "frankenphp" => Runtime::Php,
        "java" => Runtime::Java,
        "dotnet" => Runtime::Dotnet,
        "mono" | "mono-sgen" => Runtime::Mono,
        "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh" | "fish" => Runtime::Shell,
        _ => return None,
    })
}

/// Finds out what a process runs.
#[must_use]
pub fn program(line: &CommandLine<'_>) -> Program {
    let exe = base(line.exe);
    let Some(runtime) = runtime(exe) else { return Program { name: executable(line), ..Program::default() } };
    let language = match runtime {
        Runtime::Python => Some("python"),
        Runtime::Node => Some("nodejs"),
        Runtime::Ruby => Some("ruby"),
        Runtime::Php => Some("php"),
        Runtime::Java => Some("java"),
        Runtime::Dotnet | Runtime::Mono => Some("dotnet"),
        Runtime::Deno | Runtime::Bun | Runtime::Perl | Runtime::Shell => None,
    };
    if let Some(name) = line.hints.pm2.as_deref().and_then(clean) {
        let script = unnamed(runtime, line).script;
        return Program { name: Some(name), language, script };
    }
    if let Some(title) = title::of(line.args, exe) {
        let words: Vec<String> = title.split_ascii_whitespace().map(str::to_owned).collect();
        // A title that repeats the command line (`node /srv/shop/index.js`) is read as one.
        if words.len() > 1 && words.first().is_some_and(|first| self::runtime(base(first)) == Some(runtime)) {
            return Program { language, ..unnamed(runtime, &CommandLine { args: &words, ..*line }) };
        }
        let clue = title::clue(title, line);
        let name = match (runtime, clue) {
            (Runtime::Node, Clue::Tool(tool)) => package(line.cwd, line, tool).name(line),
            (_, clue) => clue.name(line),
        };
        return Program { name, language, script: None };
    }
    Program { language, ..unnamed(runtime, line) }
}

/// The program of an interpreter whose command line is its own; the language is left to the caller.
fn unnamed(runtime: Runtime, line: &CommandLine<'_>) -> Program {
    match runtime {
        Runtime::Java => java::program(line),
        Runtime::Python => python::program(line),
        Runtime::Node => javascript(line, &options::NODE),
        Runtime::Deno => javascript(line, &options::DENO),
        Runtime::Bun => javascript(line, &options::BUN),
        Runtime::Ruby => file(line, &options::RUBY, ruby),
        Runtime::Perl => file(line, &options::PERL, perl),
        Runtime::Php => php(line),
        Runtime::Dotnet | Runtime::Mono => dotnet(line),
        Runtime::Shell => file(line, &options::SHELL, |_, _, _| None),
    }
}

/// The program of an interpreter that runs a file; `tool` says what to make of files that only load something else.
fn file(
    line: &CommandLine<'_>,
    syntax: &Syntax,
    tool: impl Fn(&str, &[String], &CommandLine<'_>) -> Option<Clue>,
) -> Program {
    let args = line.args.get(1..).unwrap_or_default();
    let Target::File(file, rest) = options::target(args, syntax) else { return Program::default() };
    let path = place::absolute(file, line.cwd);
    let clue = tool(place::stem(file), rest, line).unwrap_or_else(|| Clue::File(path.clone()));
    Program { name: clue.name(line), language: None, script: Some(path) }
}

/// Servers and task runners of Ruby run the application they lie in, which is called as its directory.
fn ruby(stem: &str, args: &[String], _: &CommandLine<'_>) -> Option<Clue> {
    const TOOLS: [&str; 12] = [
        "puma",
        "unicorn",
        "unicorn_rails",
        "thin",
        "falcon",
        "rails",
        "rackup",
        "rake",
        "bundle",
        "sidekiq",
        "resque",
        "passenger",
    ];
    if let Some(tag) = options::value(args, &["--tag"])
        && matches!(stem, "puma" | "sidekiq" | "thin")
    {
        return Some(Clue::Name(tag.to_owned()));
    }
    TOOLS.contains(&stem).then(|| Clue::Tool(Some(stem.to_owned())))
}

/// PSGI servers run the file they are given.
fn perl(stem: &str, args: &[String], line: &CommandLine<'_>) -> Option<Clue> {
    if !matches!(stem, "plackup" | "starman" | "starlet" | "twiggy" | "hypnotoad" | "morbo") {
        return None;
    }
    let application = args.iter().find(|arg| !arg.starts_with('-') && place::has_extension(arg));
    Some(match application {
        Some(file) => Clue::File(place::absolute(file, line.cwd)),
        None => Clue::Tool(Some(stem.to_owned())),
    })
}

fn php(line: &CommandLine<'_>) -> Program {
    let exe = base(line.exe);
    if exe.starts_with("php-fpm") || exe.starts_with("php-cgi") || exe == "frankenphp" {
        let plain = exe.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        return Program { name: clean(plain), ..Program::default() };
    }
    let program = file(line, &options::PHP, |_, _, _| None);
    let args = line.args.get(1..).unwrap_or_default();
    let serves = options::value(args, &["-S", "--server"]).is_some();
    if program.script.is_none() && serves {
        // The built-in server gives out the document root, which is the working directory unless told.
        let root = options::value(args, &["-t", "--docroot"]).map(|root| place::absolute(root, line.cwd));
        let name = root.as_deref().and_then(place::telling).map(str::to_owned);
        return Program { name: name.or_else(|| Clue::Tool(Some(exe.to_owned())).name(line)), ..program };
    }
    program
}

fn dotnet(line: &CommandLine<'_>) -> Program {
    let args = line.args.get(1..).unwrap_or_default();
    let Target::File(first, rest) = options::target(args, &options::DOTNET) else { return Program::default() };
    if place::has_extension(first) || first.contains('/') {
        return file(line, &options::DOTNET, |_, _, _| None);
    }
    // `dotnet run` builds and starts the project; the SDK itself is called as the project it works for.
    let project = options::value(rest, &["--project", "-p"]).map(|project| place::absolute(project, line.cwd));
    let clue = match project {
        Some(project) => {
            let name = base(&project);
            Clue::Name(name.strip_suffix(".csproj").unwrap_or(name).to_owned())
        }
        None => Clue::Tool(Some("dotnet".to_owned())),
    };
    Program { name: clue.name(line), ..Program::default() }
}

/// A script with a name of its own is called by it; a generic one, or a tool among the dependencies, as its package.
fn javascript(line: &CommandLine<'_>, syntax: &Syntax) -> Program {
    let args = line.args.get(1..).unwrap_or_default();
    let Target::File(file, _) = options::target(args, syntax) else {
        // A script of the package (`node --run start`), code, or nothing: only a package could tell.
        let runs = args.iter().any(|arg| arg == "--run" || arg.starts_with("--run="));
        let name = if runs { package(line.cwd, line, None).name(line) } else { None };
        return Program { name, ..Program::default() };
    };
    let path = place::absolute(file, line.cwd);
    // `bun run start` and `deno task start` name a script of the package, not a file.
    let runs_package = matches!(syntax.commands, ["run", ..]) && !file.contains('/') && !place::has_extension(file);
    let clue = if path.contains("/node_modules/") || runs_package {
        let tool = if runs_package { base(line.exe) } else { place::stem(file) };
        package(line.cwd, line, Some(tool.to_owned()))
    } else if place::is_generic(place::stem(file)) {
        match package(Some(place::parent(&path)), line, None) {
            Clue::Name(name) => Clue::Name(name),
            _ => Clue::File(path.clone()),
        }
    } else {
        Clue::File(path.clone())
    };
    Program { name: clue.name(line), language: None, script: Some(path) }
}

/// The name of the package that a directory belongs to; its scope left out.
fn package(directory: Option<&str>, line: &CommandLine<'_>, tool: Option<String>) -> Clue {
    /// How far up a package's manifest is looked for.
    const LEVELS: usize = 6;
    let mut next = directory.filter(|directory| directory.starts_with('/'));
    for _ in 0..LEVELS {
        let Some(directory) = next else { break };
        if let Some(name) = (line.manifest)(directory).as_deref().and_then(package_name) {
            return Clue::Name(name.to_owned());
        }
        next = (directory != "/").then(|| place::parent(directory));
    }
    // npm sets its variable for everything it starts, and children inherit it: second to the manifest itself.
    match line.hints.npm.as_deref().and_then(package_name) {
        Some(name) => Clue::Name(name.to_owned()),
        None => Clue::Tool(tool),
    }
}

/// A package's name without its scope, unless it says nothing.
fn package_name(name: &str) -> Option<&str> {
    let name = name.strip_prefix('@').and_then(|scoped| scoped.split_once('/')).map_or(name, |(_, name)| name);
    (!name.is_empty() && !place::is_generic(name)).then_some(name)
}

/// What to call a program that is no interpreter.
fn executable(line: &CommandLine<'_>) -> Option<String> {
    let exe = base(line.exe);
    let args = line.args.get(1..).unwrap_or_default();
    let clue = match exe {
        // One file with many programs: the name it was called by says which.
        "busybox" | "toybox" => {
            let called = line.args.first().map_or(exe, |called| base(called));
            Clue::Name(called.to_owned())
        }
        uwsgi if uwsgi.starts_with("uwsgi") => python::served("uwsgi", args, line),
        // The Erlang virtual machine: the node's name, without the host.
        "beam.smp" | "beam" => match options::value(args, &["-sname", "-name", "--sname", "--name"]) {
            Some(node) => Clue::Name(node.split('@').next().unwrap_or(node).to_owned()),
            None => Clue::Name(exe.to_owned()),
        },
        // Compiled programs that are called `server` or `main` are called after their directory as well.
        _ => Clue::File(line.exe.to_owned()),
    };
    clue.name(line)
}

/// Text fit for a service name: no control characters, no space around it, not empty, at most [`NAME`] octets.
pub(super) fn clean(name: &str) -> Option<String> {
    let mut clean: String = name.chars().filter(|letter| !letter.is_control()).collect();
    clean.truncate(clean.floor_char_boundary(NAME));
    let trimmed = clean.trim();
    if trimmed.is_empty() {
        return None;
    }
    Some(trimmed.to_owned())
}
