//! The implementations of gRPC that the tests call and are called by: each a server and a client of the same service,
//! `test.v1.Echo`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::env;
use crate::fixture::{self, Language};
use crate::process::Process;

/// What a start or a client's run may take on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// Python's, on gRPC's core in C++.
    Grpcio,
    /// Node's.
    GrpcJs,
    GrpcGo,
    /// On Netty.
    GrpcJava,
    /// Rust's.
    Tonic,
}

impl Stack {
    pub const ALL: [Self; 5] = [Self::Grpcio, Self::GrpcJs, Self::GrpcGo, Self::GrpcJava, Self::Tonic];

    /// Its program. `tonic` is that of this package.
    fn command(self, tonic: &Path) -> Command {
        match self {
            Self::Grpcio => fixture::program(Language::Python, "grpc_calls"),
            Self::GrpcJs => fixture::program(Language::Node, "grpc"),
            Self::GrpcGo => fixture::program(Language::Go, "grpc"),
            Self::GrpcJava => {
                let classes = env::java_grpc();
                let mut command = Command::new(env::which("java").unwrap_or_default());
                command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-classpath"]);
                command.arg(format!("{0}:{0}/*", classes.display())).arg("Calls");
                command
            }
            Self::Tonic => Command::new(tonic),
        }
    }

    /// Starts its server; gives its port.
    pub fn serve(self, tonic: &Path) -> Result<(Process, u16)> {
        let server = Process::spawn(self.command(tonic).arg("server"))?;
        let port = server.announcement(DEADLINE)?["port"].as_u64().context("no port")?;
        Ok((server, u16::try_from(port)?))
    }

    /// Starts grpc-go's client that waits at a gate after its first calls.
    pub fn wait_at_gate(port: u16, count: usize) -> Result<Process> {
        let arguments = ["gate".to_owned(), port.to_string(), count.to_string()];
        let client = Process::spawn(fixture::program(Language::Go, "grpc").args(arguments))?;
        anyhow::ensure!(client.line(DEADLINE)? == "gate", "not at the gate");
        Ok(client)
    }

    /// Runs its client to its end: `count` calls of each kind and of each end; gives its process' id.
    pub fn call(self, tonic: &Path, port: u16, count: usize) -> Result<u32> {
        let client = Process::spawn(self.command(tonic).args(["client", &port.to_string(), &count.to_string()]))?;
        let pid = client.pid();
        client.succeed(DEADLINE).with_context(|| format!("{self:?}"))?;
        Ok(pid)
    }
}
