//! What a Python interpreter was told to run: scripts, modules, and the servers that load an application by name.

use super::options::{self, Target};
use super::place;
use super::{Clue, CommandLine, Program};

/// Programs that load an application named as `module:object`.
const SERVERS: [&str; 8] =
    ["gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve", "waitress", "uwsgi"];

/// The program of a Python command line.
pub(super) fn program(line: &CommandLine<'_>) -> Program {
    let args = line.args.get(1..).unwrap_or_default();
    let (clue, script) = match options::target(args, &options::PYTHON) {
        Target::File(file, rest) => {
            let path = place::absolute(file, line.cwd);
            let clue = tool(place::stem(file), rest, line).unwrap_or_else(|| Clue::File(path.clone()));
            (clue, Some(path))
        }
        Target::Module(module, rest) => (
            tool(module, rest, line).unwrap_or_else(|| Clue::Name(module_name(module).unwrap_or(module).to_owned())),
            None,
        ),
        Target::Code => (Clue::Nothing, None),
    };
    Program { name: clue.name(line), language: Some("python"), script }
}

/// What one of the known tools was told to run; `None` for any other program.
fn tool(name: &str, args: &[String], line: &CommandLine<'_>) -> Option<Clue> {
    match name {
        server if SERVERS.contains(&server) => Some(served(server, args, line)),
        "flask" => {
            let app = options::value(args, &["--app", "-A"]).or(line.hints.flask.as_deref());
            Some(app.map_or(Clue::Tool(Some("flask".to_owned())), |app| application(app, None, line)))
        }
        "celery" => {
            let app = options::value(args, &["--app", "-A"]);
            Some(app.map_or(Clue::Tool(Some("celery".to_owned())), |app| application(app, None, line)))
        }
        "fastapi" | "streamlit" => {
            let file = args.iter().find(|arg| place::has_extension(arg) && !arg.starts_with('-'));
            Some(file.map_or(Clue::Tool(Some(name.to_owned())), |file| Clue::File(place::absolute(file, line.cwd))))
        }
        _ => None,
    }
}

/// What a WSGI or ASGI server serves.
pub(super) fn served(server: &str, args: &[String], line: &CommandLine<'_>) -> Clue {
    if server == "gunicorn"
        && let Some(name) = options::value(args, &["--name", "-n"])
    {
        return Clue::Name(name.to_owned());
    }
    let directory = options::value(args, &["--chdir", "--app-dir", "--working-dir"]);
    if server == "uwsgi" {
        let module = options::value(args, &["--module", "-w", "--wsgi"]);
        let file = options::value(args, &["--wsgi-file", "--ini", "--yaml"]);
        if let Some(module) = module {
            return application(module, directory, line);
        }
        if let Some(file) = file {
            let path = place::absolute(file, line.cwd);
            let bare = [".ini", ".yaml", ".yml"].into_iter().find_map(|extension| path.strip_suffix(extension));
            return Clue::File(bare.unwrap_or(&path).to_owned());
        }
    }
    match specification(args) {
        Some(specification) => application(specification, directory, line),
        None => Clue::Tool(Some(server.to_owned())),
    }
}

/// The application among a server's arguments: the first `module:object`; else a module that stands alone, that is,
/// not right after an option, whose value it might be; else one that stands last.
fn specification(args: &[String]) -> Option<&str> {
    let with_object = args.iter().find(|arg| {
        arg.split_once(':').is_some_and(|(module, object)| {
            module != "unix"
                && is_module(module)
                && object.starts_with(|first: char| first.is_alphabetic() || first == '_')
        })
    });
    let alone = || {
        let mut previous: Option<&String> = None;
        args.iter().find(|arg| {
            let after_option = previous.is_some_and(|previous| previous.starts_with('-') && !previous.contains('='));
            previous = Some(arg);
            !after_option && is_module(arg)
        })
    };
    let last = || args.last().filter(|arg| is_module(arg));
    with_object.or_else(alone).or_else(last).map(String::as_str)
}

/// Whether `text` has the form of a dotted Python name.
fn is_module(text: &str) -> bool {
    text.split('.').all(|part| {
        part.starts_with(|first: char| first.is_alphabetic() || first == '_')
            && part.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
    })
}

/// What to call an application given as `module`, `module:object` or a file. A generic module is called after the
/// directory it is loaded from.
pub(super) fn application(specification: &str, directory: Option<&str>, line: &CommandLine<'_>) -> Clue {
    let module = specification.split(':').next().unwrap_or(specification);
    if module.contains('/') || place::has_extension(module) {
        return Clue::File(place::absolute(module, line.cwd));
    }
    if let Some(name) = module_name(module) {
        return Clue::Name(name.to_owned());
    }
    let directory = directory.map(|directory| place::absolute(directory, line.cwd));
    match directory.as_deref().and_then(place::telling) {
        Some(name) => Clue::Name(name.to_owned()),
        None => Clue::Tool(Some(module.to_owned())),
    }
}

/// A module's name without generic parts at its end; `None` when all its parts are generic.
fn module_name(module: &str) -> Option<&str> {
    let mut name = module;
    loop {
        let (before, last) = name.rsplit_once('.').map_or((None, name), |(before, last)| (Some(before), last));
        if !place::is_generic(last) {
            return (!last.is_empty()).then_some(name);
        }
        // `http.server` is what Python's own server is called.
        if before == Some("http") {
            return Some(name);
        }
        name = before?;
    }
}
