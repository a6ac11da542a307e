//! Which processes the user wants traced.

use agent_common::ids::Tgid;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustc_hash::FxHashSet;

use super::name::base;

/// What a filter looks at in a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The executable's path, as the process sees it.
    pub exe: Option<&'a str>,
    /// The file that an interpreter runs.
    pub script: Option<&'a str>,
    /// The name the process was called by: its first argument.
    pub called: Option<&'a str>,
    /// The kernel's name of the process, at most 15 octets. Counts only when the executable is not known.
    pub comm: Option<&'a str>,
}

/// A glob that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{glob:?} is not a glob")]
pub struct BadGlob {
    pub glob: String,
    #[source]
    pub source: globset::Error,
}

/// The user's choice of processes: `--exe`, `--pid` and `--exclude-exe`. Without `--exe` and `--pid` all are chosen; with both, those
/// that either chooses. An exclude wins over everything.
///
/// A glob with a `/` is held against the whole path of the executable and of the script that an interpreter runs; there
/// `*` stops at `/` and `**` does not. A glob without one is held against their base names, and against the name the
/// process was called by, so that `python3` finds an executable that is `python3.11` on disk.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    exe: Globs,
    exclude: Globs,
    pids: FxHashSet<Tgid>,
    chooses: bool,
    by_pid: bool,
}

#[derive(Clone, Debug, Default)]
struct Globs {
    paths: GlobSet,
    names: GlobSet,
}

impl Globs {
    fn new(globs: &[String]) -> Result<Self, BadGlob> {
        let mut paths = GlobSetBuilder::new();
        let mut names = GlobSetBuilder::new();
        for glob in globs {
            let bad = |source| BadGlob { glob: glob.clone(), source };
            let compiled = GlobBuilder::new(glob).literal_separator(true).build().map_err(bad)?;
            if glob.contains('/') {
                paths.add(compiled)
            } else {
                names.add(compiled)
            };
        }
        let bad = |source| BadGlob { glob: globs.join(" "), source };
        Ok(Self { paths: paths.build().map_err(bad)?, names: names.build().map_err(bad)? })
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        let comm = subject.comm.filter(|_| subject.exe.is_none());
        let mut files = subject.exe.into_iter().chain(subject.script);
        let mut names = subject.exe.into_iter().chain(subject.script).chain(subject.called).chain(comm);
        (!self.paths.is_empty() && files.any(|path| self.paths.is_match(path)))
            || (!self.names.is_empty() && names.any(|name| self.names.is_match(base(name))))
    }
}

impl Filter {
    /// A filter of the values of `--exe`, `--pid` and `--exclude-exe`.
    ///
    /// # Errors
    /// When a glob cannot be read.
    pub fn new(exe: &[String], pids: &[u32], exclude_exe: &[String]) -> Result<Self, BadGlob> {
        Ok(Self {
            exe: Globs::new(exe)?,
            exclude: Globs::new(exclude_exe)?,
            pids: pids.iter().copied().map(Tgid).collect(),
            by_pid: !pids.is_empty(),
            chooses: !exe.is_empty() || !pids.is_empty(),
        })
    }

    /// Whether every process is traced, so that nothing needs to be known of one to decide.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        !self.chooses && self.exclude.paths.is_empty() && self.exclude.names.is_empty()
    }

    /// Whether the user named processes by id, be they gone by now or not.
    #[must_use]
    pub fn by_pid(&self) -> bool {
        self.by_pid
    }

    /// Whether the user named this process by its id.
    #[must_use]
    pub fn names(&self, tgid: Tgid) -> bool {
        self.pids.contains(&tgid)
    }

    /// The process with this id has ended: whoever gets the same number next was not meant.
    pub fn ended(&mut self, tgid: Tgid) {
        self.pids.remove(&tgid);
    }

    /// Whether to trace a process. `family` says that it, or one it descends from, was named by its id.
    #[must_use]
    pub fn traces(&self, subject: &Subject<'_>, family: bool) -> bool {
        let chosen = !self.chooses || family || self.exe.matches(subject);
        chosen && !self.exclude.matches(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(exe: &[&str], pids: &[u32], exclude: &[&str]) -> Filter {
        let owned = |globs: &[&str]| globs.iter().map(|&glob| glob.to_owned()).collect::<Vec<_>>();
        Filter::new(&owned(exe), pids, &owned(exclude)).unwrap()
    }

    #[test]
    fn globs_choose_and_excludes_win() {
        let nginx =
            Subject { exe: Some("/usr/sbin/nginx"), called: Some("nginx: worker process"), ..Subject::default() };
        let shop = Subject {
            exe: Some("/usr/bin/python3.11"),
            script: Some("/srv/shop/orders.py"),
            called: Some("python3"),
            comm: Some("python3"),
        };
        let gone = Subject { comm: Some("curl"), ..Subject::default() };
        let cases: [(&[&str], &[&str], [bool; 3]); 13] = [
            (&[], &[], [true, true, true]),
            (&["nginx"], &[], [true, false, false]),
            (&["n*"], &[], [true, false, false]),
            (&["/usr/sbin/*"], &[], [true, false, false]),
            (&["/usr/*"], &[], [false, false, false]),
            (&["/usr/**"], &[], [true, true, false]),
            (&["python3"], &[], [false, true, false]),
            (&["python3.*"], &[], [false, true, false]),
            (&["orders.py"], &[], [false, true, false]),
            (&["/srv/shop/*.py"], &[], [false, true, false]),
            (&["curl", "nginx"], &[], [true, false, true]),
            (&[], &["python*", "curl"], [true, false, false]),
            (&["/usr/**"], &["nginx"], [false, true, false]),
        ];
        for (exe, exclude, expected) in cases {
            let filter = filter(exe, &[], exclude);
            assert_eq!(
                [nginx, shop, gone].map(|subject| filter.traces(&subject, false)),
                expected,
                "{exe:?} {exclude:?}"
            );
        }
    }

    #[test]
    fn a_process_is_chosen_by_its_id_or_its_family() {
        let mut filter = filter(&["nginx"], &[42], &["sh"]);
        let python = Subject { exe: Some("/usr/bin/python3"), ..Subject::default() };
        let shell = Subject { exe: Some("/bin/sh"), ..Subject::default() };
        assert!(filter.names(Tgid(42)) && !filter.names(Tgid(43)));
        assert!(filter.traces(&python, true));
        assert!(!filter.traces(&python, false));
        assert!(!filter.traces(&shell, true));
        filter.ended(Tgid(42));
        assert!(!filter.names(Tgid(42)) && !filter.traces(&python, false));
    }

    #[test]
    fn a_bad_glob_is_named() {
        let error = Filter::new(&["a[".to_owned()], &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "\"a[\" is not a glob");
    }
}
