//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Cargo's target directory, `CARGO_TARGET_DIR` honoured.
pub(crate) fn target() -> PathBuf {
    // A relative CARGO_TARGET_DIR is relative to the caller's directory for cargo; `join` leaves an absolute one alone.
    let base = env::current_dir().unwrap_or_else(|_| root().to_owned());
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| base.join(dir))
}

/// What the test fixtures are built and installed into. Fixed, so that the tests find it without asking cargo.
pub(crate) fn fixtures() -> PathBuf {
    root().join("target/fixtures")
}
