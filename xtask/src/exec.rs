//! Running other programs: one place that names the command that failed.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Runs the command with this process's own standard streams. An error names the command and its exit status.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("{status} from: {}", show(command));
    }
    Ok(())
}

/// Runs the command and returns its standard output. An error carries what it wrote to standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} from: {}\n{}", output.status, show(command), stderr.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The context of an error of `spawn`, `status` or `exec`.
pub(crate) fn cannot_start(command: &Command) -> String {
    format!("cannot start: {}", show(command))
}

/// The command as a shell would take it, with the variables that were set for it.
pub(crate) fn show(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value?.to_string_lossy().into_owned());
        // Extended for every cargo command (see `cargo`): long, and of no use to somebody who repeats it.
        (name != "PATH").then(|| format!("{name}={}", quote(&value)))
    });
    let words =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| quote(&word.to_string_lossy()));
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether this process already is root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A command that runs as root: as it is for root, by `sudo` for anybody else, with `sudo_flags`.
///
/// # Errors
/// Neither root nor `sudo` there.
pub(crate) fn as_root(program: &str, sudo_flags: &[&str]) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = find("sudo")
        .with_context(|| format!("`{program}` needs root here and there is no sudo: run this command as root"))?;
    let mut command = Command::new(sudo);
    command.args(sudo_flags).arg("--").arg(program);
    Ok(command)
}

/// The program's path; the directories of system programs count even when a user's `PATH` leaves them out.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    which::which_in(program, Some(format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")), "/").ok()
}

/// `cargo` in the workspace's root: the one that runs this task, and `bpf-linker` found where `cargo install` puts it.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root());
    with_cargo_bin(&mut command);
    command
}

/// Adds the directory of `cargo install` to the command's `PATH`: a shell that has not read cargo's profile lacks it.
pub(crate) fn with_cargo_bin(command: &mut Command) {
    let old = env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(cargo_home().join("bin")).chain(env::split_paths(&old));
    if let Ok(path) = env::join_paths(all) {
        command.env("PATH", path);
    }
}

/// Cargo's home: `CARGO_HOME`, else `~/.cargo`.
pub(crate) fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(|| env::home_dir().unwrap_or_default().join(".cargo"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_command_that_a_shell_takes() {
        let mut command = Command::new("cargo");
        command.args(["test", "a b", "it's"]).env("X", "1 2").env("PATH", "/long");
        assert_eq!(show(&command), r"X='1 2' cargo test 'a b' 'it'\''s'");
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert_eq!(error, "exit status: 3 from: sh -c 'exit 3'");
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).unwrap_err().to_string();
        assert!(error.ends_with("\nwhy"), "{error}");
    }
}
