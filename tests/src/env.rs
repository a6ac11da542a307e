//! Where things are, and whether they are there.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or_else(|| manifest.to_owned(), Path::to_owned)
}

/// A file of `tests/fixtures`.
#[must_use]
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// A program of `target/fixtures/bin`, built by `cargo xtask setup --tests`.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    workspace().join("target/fixtures/bin").join(name)
}

/// A program of the Python environment that `cargo xtask setup --tests` makes.
#[must_use]
pub fn venv(name: &str) -> PathBuf {
    workspace().join("target/fixtures/venv/bin").join(name)
}

/// A program of this package: cargo puts it beside the one that runs, tests one folder below.
#[must_use]
pub fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let folders = own.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap_or_else(|| name.into())
}

/// Where the Java program for gRPC stands, with its libraries.
#[must_use]
pub fn java_grpc() -> PathBuf {
    workspace().join("target/fixtures/java-grpc")
}

/// The libraries of this version of Kafka.
#[must_use]
pub fn kafka(version: &str) -> PathBuf {
    workspace().join("target/fixtures").join(format!("kafka-{version}/libs"))
}

/// Where the Java program with Kafka's client stands.
#[must_use]
pub fn java_kafka() -> PathBuf {
    workspace().join("target/fixtures/java-kafka")
}

/// Where the Java program with RabbitMQ's client stands, with its libraries.
#[must_use]
pub fn java_rabbit() -> PathBuf {
    workspace().join("target/fixtures/java-rabbit")
}

/// Debian's `rabbitmq-server` changes to a user of its own, and then starts this one.
#[must_use]
pub fn rabbitmq() -> PathBuf {
    PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server")
}

/// The agent under test: `REMORA_BIN`, else the release build.
#[must_use]
pub fn remora() -> PathBuf {
    std::env::var_os("REMORA_BIN").map_or_else(|| workspace().join("target/release/remora"), PathBuf::from)
}

/// The program `name` in `PATH`. `PATH` of a daemon may lack the `sbin` folders, where Debian puts nginx.
#[must_use]
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A Python of at least 3.10 (`os.splice`): that of the virtual environment, else `python3`.
///
/// The file itself is given, not a version manager's shim: the shim would be another process first.
#[must_use]
pub fn python() -> PathBuf {
    let of_venv = venv("python3");
    if of_venv.is_file() { of_venv } else { PathBuf::from("/usr/bin/python3") }
}

/// The first of `what` that is missing, as a sentence.
#[must_use]
pub fn missing(what: &[&str]) -> Option<String> {
    what.iter().find_map(|&what| match what {
        "root" => (!nix::unistd::geteuid().is_root()).then(|| "needs root".to_owned()),
        "venv" => absent(&venv("python3"), "the Python environment"),
        "go" => absent(&built("server"), "the Go fixtures"),
        "mesh" => absent(&venv("python3"), "the Python environment")
            .or_else(|| absent(&built("price"), "the Go fixtures"))
            .or_else(|| absent(&workspace().join("target/fixtures/java/Stock.class"), "the Java fixture"))
            .or_else(|| missing(&["nginx", "node"]))
            .or_else(|| missing_program("java")),
        "java" => absent(&workspace().join("target/fixtures/java/Births.class"), "the Java fixture")
            .or_else(|| missing_program("java")),
        "sdk" => absent(&venv("opentelemetry-instrument"), "OpenTelemetry's Python packages")
            .or_else(|| absent(&fixture("node/node_modules/@opentelemetry/sdk-node"), "OpenTelemetry's Node packages"))
            .or_else(|| missing(&["node"])),
        "grpc" => absent(&fixture("node/node_modules/@grpc/grpc-js"), "gRPC for Node")
            .or_else(|| absent(&venv("python3"), "the Python environment"))
            .or_else(|| absent(&built("grpc"), "gRPC for Go"))
            .or_else(|| absent(&java_grpc().join("Calls.class"), "gRPC for Java"))
            .or_else(|| missing(&["node", "java"])),
        "topic" => absent(&kafka(crate::kafka::VERSIONS[0]), "Kafka's broker")
            .or_else(|| absent(&fixture("node/node_modules/kafkajs"), "Kafka's client for Node"))
            .or_else(|| absent(&venv("python3"), "the Python environment"))
            .or_else(|| missing(&["node"]).or_else(|| missing_program("java"))),
        "kafka" => absent(&java_kafka().join("Clients.class"), "Kafka's client for Java")
            .or_else(|| crate::kafka::VERSIONS.iter().find_map(|version| absent(&kafka(version), "Kafka's broker")))
            .or_else(|| absent(&built("kafka"), "Kafka's client for Go"))
            .or_else(|| missing(&["topic", "java", "kcat"])),
        "rabbit" => absent(&rabbitmq(), "RabbitMQ")
            .or_else(|| absent(&java_rabbit().join("Rabbit.class"), "RabbitMQ's client for Java"))
            .or_else(|| absent(&built("rabbit"), "RabbitMQ's client for Go"))
            .or_else(|| absent(&fixture("node/node_modules/amqplib"), "RabbitMQ's client for Node"))
            .or_else(|| absent(&venv("python3"), "the Python environment"))
            .or_else(|| missing(&["epmd", "java", "node"])),
        "python" => absent(&python(), "Python"),
        program => missing_program(program),
    })
}

fn missing_program(name: &str) -> Option<String> {
    which(name).is_none().then(|| format!("{name} is not installed"))
}

fn absent(file: &Path, what: &str) -> Option<String> {
    (!file.exists()).then(|| format!("{what} is missing ({}): cargo xtask setup --tests", file.display()))
}

/// Prints why a test does not run, in the form that `cargo xtask test` counts.
pub fn say_skipped(why: &str) {
    // A write to the handle itself is not captured by libtest, unlike `println!`. There is nobody to tell of a failure.
    let _ = writeln!(std::io::stdout().lock(), "skipped: {why}");
}
