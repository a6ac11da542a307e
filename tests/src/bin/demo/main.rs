//! `cargo xtask demo`: the mesh under a moderate load with the agent beside it, until it is told to stop. Where Kafka is
//! there, orders go on over a topic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::load;
use tests::mesh::Mesh;
use tests::topic::Topic;
use tokio::signal::unix::{SignalKind, signal};

/// Clients, and what each of them waits between two requests: some 40 requests a second.
const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(75);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value =
        |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let seconds = value("--seconds").map(|seconds| seconds.parse()).transpose().context("--seconds takes a number")?;
    let listen = value("--listen").map_or("127.0.0.1:9464", String::as_str);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Signals are heard from now on: whatever has been started ends with its guard.
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let told_to_stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = wait(seconds) => {}
        }
    };

    eprintln!("starting the services");
    let mesh = Mesh::start_with(None, Topic::if_possible()?)?;
    eprintln!("starting the agent");
    let agent = mesh.agent()?.no_spans_file().listen(listen).start().with_context(|| {
        format!("the agent does not start; if something else listens on {listen}, name another address by --listen")
    })?;
    say(&mesh, agent.address);
    let (gateway, stop) = (mesh.gateway(), AtomicBool::new(false));
    let failed = std::thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(|| load::until_stopped(gateway, CLIENTS, PAUSE, &stop));
        runtime.block_on(told_to_stop);
        eprintln!("stopping");
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the load panicked")))
    });
    // On Ctrl-C at a terminal the services have had the signal too: a request may then have failed.
    if let Err(error) = failed
        && seconds.is_some()
    {
        return Err(error);
    }
    Ok(())
}

async fn wait(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}

fn say(mesh: &Mesh, agent: std::net::SocketAddr) {
    println!("\nThe agent traces these services, none of which knows of it:\n");
    for service in mesh.services() {
        println!("  {:9} {:8} http://127.0.0.1:{}", service.name, service.runtime, service.port);
    }
    if let Some(topic) = mesh.topic() {
        println!("  shipping  Python   reads what orders puts into a topic of the broker {}", topic.broker.bootstrap());
    }
    println!("\nLook here:\n");
    println!("  traces    http://{agent}/");
    println!("  metrics   http://{agent}/metrics");
    println!("\nAsk for something yourself:\n");
    println!("  curl http://127.0.0.1:{}/order/7", mesh.gateway());
    println!("\nCtrl-C ends all of it.");
}
