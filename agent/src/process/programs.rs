//! What is in the files that processes run, and in their memory: where a Go program keeps its goroutines ([`super::go`]), Python its
//! tasks ([`super::asyncio`]), where functions of TLS libraries are ([`super::tls`]), and whether librdkafka is among them.
//!
//! Reading an executable takes its time, so a thread of its own does it, once for each file.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use agent_common::asyncio::AsyncioLayout;
use agent_common::ids::Tgid;
use agent_common::layout::{GoLayout, PROCESS_ASYNCIO, PROCESS_GO, PROCESS_LOOKED_INTO, PROCESS_TLS};
use agent_common::limits;
use rustc_hash::FxHashMap;

use super::maps::mapping;
use super::tls::{self, Place};
use super::{asyncio, go, hpack, read};
use crate::conn::Located;
use crate::protocol::http2::OwnTable;

/// Processes that wait to be looked into; what comes on top counts as one without coroutines, and is asked about again when it
/// next speaks TLS.
const WAITING: usize = 1024;
/// Files remembered; all are forgotten when there are more.
const FILES: usize = 1024;

/// What is known of the processes, and who finds it out. One owner.
pub struct Programs {
    ask: SyncSender<Question>,
    answers: Receiver<Answer>,
    known: FxHashMap<Tgid, Known>,
    questions: u64,
    /// TLS libraries are looked for.
    libraries: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    coroutines: Looked,
    /// Its files were looked into after it had spoken TLS.
    tls: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Looked {
    #[default]
    Unasked,
    /// The number of the question: a process may have become another program by the time of the answer.
    Asked(u64),
    /// Bits for the kernel side.
    Found(u8),
}

enum Question {
    Process { number: u64, tgid: Tgid },
    Libraries { tgid: Tgid, speaks: bool },
    Table(Located),
}

/// What was found in the files of a process.
pub enum Answer {
    /// Where it keeps its coroutines, if it has such as can be read; and whether it has mapped librdkafka.
    Process { number: u64, tgid: Tgid, coroutines: Option<Coroutines>, librdkafka: bool },
    /// The files with functions of TLS libraries that it has mapped; [`STANDING`] for those of the host, which any process
    /// may map.
    Libraries { tgid: Tgid, files: Vec<Library>, speaks: bool },
    /// The table of header fields that a process has for a connection, if it could be read.
    Table { located: Located, own: Option<OwnTable> },
    /// The libraries of the host, and of the processes there were at the start, were told of.
    LookedAround,
}

/// Where a process keeps what tells its coroutines apart.
#[derive(Clone, Copy, Debug)]
pub enum Coroutines {
    Go(GoLayout),
    Asyncio(AsyncioLayout),
}

/// Stands for the processes to come.
pub const STANDING: Tgid = Tgid(0);

/// A file with functions of TLS libraries.
#[derive(Clone, Debug)]
pub struct Library {
    pub id: FileId,
    /// What it was found as.
    pub path: PathBuf,
    /// Open, so that it can be hooked when its process is gone by then: its next one will have it hooked.
    pub file: Arc<File>,
    pub places: Arc<[Place]>,
}

/// What names a file and its state: device, inode, octets, and time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(u64, u64, u64, i64, i64);

impl FileId {
    fn of(meta: &Metadata) -> Self {
        Self(meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())
    }
}

impl Programs {
    /// Starts the thread that reads executables. With `libraries` it looks for TLS libraries, first for those of the host
    /// and of the processes there are.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(libraries: bool) -> std::io::Result<Self> {
        let (ask, questions) = sync_channel(WAITING);
        // As many answers as questions, so that the reader never waits for room.
        let (answer, answers) = sync_channel(2 * WAITING);
        thread::Builder::new()
            .name("remora-programs".to_owned())
            .spawn(move || Reader::new(questions, answer).run(libraries))?;
        Ok(Self { ask, answers, known: FxHashMap::default(), questions: 0, libraries })
    }

    /// Asks whether a process has coroutines that can be told apart, unless that is known.
    pub fn look_into(&mut self, tgid: Tgid) {
        let Some(known) = self.known(tgid) else { return };
        if !matches!(known.coroutines, Looked::Unasked) {
            return;
        }
        self.questions += 1;
        let number = self.questions;
        let asked = self.ask.try_send(Question::Process { number, tgid }).is_ok();
        let coroutines = if asked { Looked::Asked(number) } else { Looked::Found(PROCESS_LOOKED_INTO) };
        self.known.entry(tgid).or_default().coroutines = coroutines;
    }

    /// A process runs a file that may be new: asks for functions of TLS libraries in it, and of others that are hooked.
    pub fn look_at_files(&self, tgid: Tgid) {
        if self.libraries {
            // Without room it is asked about when it speaks TLS.
            let _ = self.ask.try_send(Question::Libraries { tgid, speaks: false });
        }
    }

    /// A process speaks TLS: asks for the libraries that it has mapped.
    pub fn speaks_tls(&self, tgid: Tgid) {
        if self.libraries {
            // Without room it is asked about at its next connection.
            let _ = self.ask.try_send(Question::Libraries { tgid, speaks: true });
        }
    }

    /// Reads a table of header fields; whether there is room for the question.
    pub fn read_table(&self, located: Located) -> bool {
        self.ask.try_send(Question::Table(located)).is_ok()
    }

    fn known(&mut self, tgid: Tgid) -> Option<&mut Known> {
        if self.known.len() >= limits::PROCESSES as usize {
            self.known.retain(|_, known| matches!(known.coroutines, Looked::Asked(_)));
        }
        (self.known.len() < 2 * limits::PROCESSES as usize).then(|| self.known.entry(tgid).or_default())
    }

    /// A process has ended or runs another file.
    pub fn forget(&mut self, tgid: Tgid) {
        self.known.remove(&tgid);
    }

    /// What the kernel side is to know of a process, as bits of its entry in the map of processes.
    #[must_use]
    pub fn bits(&self, tgid: Tgid) -> u8 {
        let Some(known) = self.known.get(&tgid) else { return 0 };
        let coroutines = match known.coroutines {
            Looked::Unasked | Looked::Asked(_) => 0,
            Looked::Found(bits) => bits,
        };
        if known.tls { coroutines | PROCESS_TLS } else { coroutines }
    }

    /// The next answer.
    pub fn answer(&mut self) -> Option<Answer> {
        loop {
            let answer = match self.answers.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            };
            match &answer {
                Answer::Process { number, tgid, coroutines, .. } => {
                    if let Some(known) = self.known.get_mut(tgid)
                        && matches!(known.coroutines, Looked::Asked(asked) if asked == *number)
                    {
                        let kind = match coroutines {
                            None => 0,
                            Some(Coroutines::Go(_)) => PROCESS_GO,
                            Some(Coroutines::Asyncio(_)) => PROCESS_ASYNCIO,
                        };
                        known.coroutines = Looked::Found(PROCESS_LOOKED_INTO | kind);
                        return Some(answer);
                    }
                }
                Answer::Libraries { tgid, speaks, .. } => {
                    if *speaks && let Some(known) = self.known(*tgid) {
                        known.tls = true;
                    }
                    return Some(answer);
                }
                Answer::Table { .. } | Answer::LookedAround => return Some(answer),
            }
        }
    }
}

/// Answers questions until nobody asks any more.
struct Reader {
    questions: Receiver<Question>,
    answers: SyncSender<Answer>,
    layouts: FxHashMap<FileId, Option<GoLayout>>,
    places: FxHashMap<FileId, Arc<[Place]>>,
}

/// Nobody takes the answers any more.
struct Gone;

impl Reader {
    fn new(questions: Receiver<Question>, answers: SyncSender<Answer>) -> Self {
        Self { questions, answers, layouts: FxHashMap::default(), places: FxHashMap::default() }
    }

    fn run(mut self, libraries: bool) {
        if libraries && self.look_around().is_err() {
            return;
        }
        while let Ok(question) = self.questions.recv() {
            if self.reply(&question).is_err() {
                return;
            }
        }
    }

    /// Looks for libraries before anybody asks; questions that come meanwhile go first.
    fn look_around(&mut self) -> Result<(), Gone> {
        let files: Vec<_> = tls::host_files().into_iter().filter_map(|path| self.library(path)).collect();
        self.send(Answer::Libraries { tgid: STANDING, files, speaks: false })?;
        for tgid in read::all().into_iter().filter(|tgid| tgid.0 != std::process::id()) {
            while let Ok(question) = self.questions.try_recv() {
                self.reply(&question)?;
            }
            let files = self.libraries(tgid);
            if !files.is_empty() {
                self.send(Answer::Libraries { tgid, files, speaks: false })?;
            }
        }
        self.send(Answer::LookedAround)
    }

    fn reply(&mut self, question: &Question) -> Result<(), Gone> {
        match *question {
            Question::Process { number, tgid } => {
                let go = self.layout(tgid).map(Coroutines::Go);
                let coroutines = go.or_else(|| asyncio::layout(tgid.0).map(Coroutines::Asyncio));
                let librdkafka = mapping(tgid.0, |name| name.contains("librdkafka")).is_some();
                self.send(Answer::Process { number, tgid, coroutines, librdkafka })
            }
            Question::Libraries { tgid, speaks } => {
                let files = self.libraries(tgid);
                self.send(Answer::Libraries { tgid, files, speaks })
            }
            Question::Table(located) => {
                let own = hpack::read(located.tgid.0, &located.table);
                self.send(Answer::Table { located, own })
            }
        }
    }

    fn send(&self, answer: Answer) -> Result<(), Gone> {
        self.answers.send(answer).map_err(|_| Gone)
    }

    /// `None` when the process is gone, no Go program, or one that is not known well enough.
    fn layout(&mut self, tgid: Tgid) -> Option<GoLayout> {
        let file = File::open(format!("/proc/{}/exe", tgid.0)).ok()?;
        let id = FileId::of(&file.metadata().ok()?);
        if let Some(layout) = self.layouts.get(&id) {
            return *layout;
        }
        if self.layouts.len() >= FILES {
            self.layouts.clear();
        }
        let layout = go::layout(file);
        self.layouts.insert(id, layout);
        layout
    }

    fn libraries(&mut self, tgid: Tgid) -> Vec<Library> {
        tls::files(tgid.0).into_iter().filter_map(|mapped| self.library(mapped.path)).collect()
    }

    /// A file with functions of TLS libraries.
    fn library(&mut self, path: PathBuf) -> Option<Library> {
        let file = File::open(&path).ok()?;
        let meta = file.metadata().ok().filter(Metadata::is_file)?;
        let id = FileId::of(&meta);
        if self.places.len() >= FILES && !self.places.contains_key(&id) {
            self.places.clear();
        }
        let places = self.places.entry(id).or_insert_with(|| tls::places(&file).into());
        (!places.is_empty()).then(|| Library { id, path, places: Arc::clone(places), file: Arc::new(file) })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::process::go::tests::build;

    #[test]
    fn a_process_is_asked_about_once_and_answered() {
        let folder = tempfile::tempdir().unwrap();
        let source = "package main\n\nimport \"time\"\n\nfunc main() { time.Sleep(time.Minute) }\n";
        let Some(program) = build(folder.path(), "sleeper", source, &[]) else { return };
        let mut child = Command::new(program).spawn().unwrap();
        let (go, own) = (Tgid(child.id()), Tgid(std::process::id()));
        let mut programs = Programs::start(false).unwrap();
        programs.look_into(go);
        programs.look_into(own);
        assert_eq!(programs.bits(go), 0);
        let mut answers = Vec::new();
        let until = Instant::now() + Duration::from_secs(20);
        while answers.len() < 2 && Instant::now() < until {
            answers.extend(programs.answer());
            thread::sleep(Duration::from_millis(1));
        }
        let bits = (programs.bits(go), programs.bits(own));
        programs.forget(go);
        let _ = (child.kill(), child.wait());
        assert_eq!(bits, (PROCESS_LOOKED_INTO | PROCESS_GO, PROCESS_LOOKED_INTO));
        assert_eq!(answers.len(), 2);
        assert_eq!(programs.bits(go), 0);
    }
}
