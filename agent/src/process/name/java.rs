//! What a Java virtual machine was told to run.

use super::place;
use super::{Clue, CommandLine, Program, options};

/// Options of `java` whose value is the next argument (`java --help`, `java --help-extra`).
const VALUED: [&str; 19] = [
    "--add-exports",
    "--add-modules",
    "--add-opens",
    "--add-reads",
    "--class-path",
    "--describe-module",
    "--enable-native-access",
    "--limit-modules",
    "--module-path",
    "--patch-module",
    "--source",
    "--upgrade-module-path",
    "-classpath",
    "-cp",
    "-d",
    "-p",
    "-splash",
    "-jvmti",
    "-XXaltjvm",
];

/// Classes that start well-known servers, and what people call those.
const SERVERS: [(&str, &str); 8] = [
    ("org.apache.catalina.startup.Bootstrap", "tomcat"),
    ("kafka.Kafka", "kafka"),
    ("org.apache.zookeeper.server.quorum.QuorumPeerMain", "zookeeper"),
    ("org.apache.cassandra.service.CassandraDaemon", "cassandra"),
    ("org.elasticsearch.bootstrap.Elasticsearch", "elasticsearch"),
    ("org.elasticsearch.server.cli.ServerCli", "elasticsearch"),
    ("org.opensearch.bootstrap.OpenSearch", "opensearch"),
    ("org.apache.activemq.artemis.boot.Artemis", "artemis"),
];

/// Classes that start whatever lies beside them (Spring Boot).
const LAUNCHERS: &str = "org.springframework.boot.loader.";

/// Endings that say how a jar was packed.
const CLASSIFIERS: [&str; 7] = ["-all", "-exec", "-fat", "-jar-with-dependencies", "-runner", "-shaded", "-uber"];

/// The program of a `java` command line. `-Dotel.service.name` and `-Dspring.application.name` name it in so many
/// words; else the jar, the module or the main class does.
pub(super) fn program(line: &CommandLine<'_>) -> Program {
    let args = line.args.get(1..).unwrap_or_default();
    let Target { clue, script } = target(args, line.cwd);
    let set = ["otel.service.name", "spring.application.name"].into_iter().find_map(|key| property(args, key));
    let named = set.or(line.hints.spring.as_deref()).filter(|name| !name.trim().is_empty() && !name.contains("${"));
    let clue = named.map_or(clue, |name| Clue::Name(name.to_owned()));
    Program { name: clue.name(line), language: Some("java"), script }
}

struct Target {
    clue: Clue,
    script: Option<String>,
}

fn target(args: &[String], cwd: Option<&str>) -> Target {
    let plain = |clue| Target { clue, script: None };
    let mut rest = args;
    while let Some((arg, after)) = rest.split_first() {
        rest = after;
        match arg.as_str() {
            "-jar" => {
                let Some(jar) = rest.first() else { break };
                let path = place::absolute(jar, cwd);
                return Target { clue: Clue::Name(jar_name(&path)), script: Some(path) };
            }
            "-m" | "--module" => {
                let Some(module) = rest.first() else { break };
                return plain(Clue::Name(module.split('/').next().unwrap_or(module).to_owned()));
            }
            valued if VALUED.contains(&valued) => rest = rest.get(1..).unwrap_or_default(),
            option if option.starts_with('-') => {
                if let Some(module) = option.strip_prefix("--module=") {
                    return plain(Clue::Name(module.split('/').next().unwrap_or(module).to_owned()));
                }
            }
            // A file with more arguments (`java` launcher, "@argfiles"): not worth opening.
            file if file.starts_with('@') || file.is_empty() => {}
            // A single source file, compiled on the way (JEP 330).
            source if source.strip_suffix(".java").is_some() => {
                let path = place::absolute(source, cwd);
                return Target { clue: Clue::File(path.clone()), script: Some(path) };
            }
            class if class.starts_with(LAUNCHERS) => return plain(Clue::Tool(None)),
            class => {
                let server = SERVERS.iter().find(|(known, _)| *known == class).map(|(_, name)| *name);
                return plain(Clue::Name(server.unwrap_or(class).to_owned()));
            }
        }
    }
    plain(Clue::Nothing)
}

/// The value of `-Dkey=value`, the last one as the virtual machine has it. Only what stands before the program counts,
/// but what stands after it is the same in practice.
fn property<'a>(args: &'a [String], key: &str) -> Option<&'a str> {
    let of_machine = args.iter().rev().find_map(|arg| arg.strip_prefix("-D")?.strip_prefix(key)?.strip_prefix('='));
    // Spring takes its properties as arguments of the program, too.
    of_machine.or_else(|| match key {
        "spring.application.name" => options::value(args, &["--spring.application.name"]),
        _ => None,
    })
}

/// The name of a jar at an absolute path, without its version and what says how it was packed.
fn jar_name(path: &str) -> String {
    let stem = unversioned(place::stem(path));
    if place::is_generic(stem) || stem.is_empty() {
        place::telling(place::parent(path)).unwrap_or(stem).to_owned()
    } else {
        stem.to_owned()
    }
}

/// `stock-service` of `stock-service-1.2.3-SNAPSHOT-exec`: what stands before a hyphen, a digit and, up to the end,
/// what versions are made of.
fn unversioned(stem: &str) -> &str {
    let packed = CLASSIFIERS.iter().find_map(|classifier| stem.strip_suffix(classifier)).unwrap_or(stem);
    let version = packed.match_indices('-').find(|(at, _)| {
        let tail = packed.get(at + 1..).unwrap_or_default();
        let number = tail.split(['.', '-', '_', '+']).next().unwrap_or_default();
        let numeric = !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit());
        // `log4j-1-bridge` has a number in its name; a version has a dot or ends there.
        numeric && (tail.len() == number.len() || tail.contains('.') || tail.ends_with("-SNAPSHOT"))
    });
    let bare = version.map_or(packed, |(at, _)| packed.get(..at).unwrap_or(packed));
    let bare = bare.strip_suffix("-SNAPSHOT").unwrap_or(bare);
    if bare.is_empty() { stem } else { bare }
}
