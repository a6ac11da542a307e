//! The `remora` binary: see `remora --help`.

use std::process::ExitCode;

use agent::config::{self, Command};
use agent::{allocator, ending};

fn main() -> ExitCode {
    allocator::configure();
    let result = match config::from_command_line(std::env::args_os(), &config::variable) {
        Ok(Command::Run(config)) => agent::app::run(config),
        Ok(Command::Check { config, json }) => return agent::check::run(&config, json),
        Err(stop) => return stop.report(),
    };
    match result {
        Ok(()) => ending::leave(0),
        Err(error) => {
            // One line: what was tried, then why it failed.
            eprintln!("remora: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}
