//! Which processes are Go programs, and where these keep what tells their goroutines apart.
//!
//! The kernel side reads the goroutine of a thread from the program's memory, and has to know where. That is found out from
//! the executable ([`binary`]) on a thread of its own, once for each file, since a large one takes its time.

mod binary;
mod debug;
mod releases;

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use agent_common::ids::Tgid;
use agent_common::layout::{GoLayout, PROCESS_GO, PROCESS_LOOKED_INTO};
use agent_common::limits;
use rustc_hash::FxHashMap;

/// Processes that wait to be looked into; what comes on top counts as no Go program.
const WAITING: usize = 1024;
/// Executables remembered; all are forgotten when there are more.
const FILES: usize = 512;

/// What is known of the processes, and who finds it out. One owner.
pub struct Programs {
    ask: SyncSender<Question>,
    answers: Receiver<Answer>,
    known: FxHashMap<Tgid, Known>,
    questions: u64,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    /// The number of the question: a process may have become another program by the time of the answer.
    Asked(u64),
    Go,
    Other,
}

struct Question {
    number: u64,
    tgid: Tgid,
}

struct Answer {
    number: u64,
    tgid: Tgid,
    layout: Option<GoLayout>,
}

impl Programs {
    /// Starts the thread that reads executables.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (ask, questions) = sync_channel(WAITING);
        // As many answers as questions, so that the reader never waits for room.
        let (answer, answers) = sync_channel(2 * WAITING);
        thread::Builder::new().name("remora-programs".to_owned()).spawn(move || read(&questions, &answer))?;
        Ok(Self { ask, answers, known: FxHashMap::default(), questions: 0 })
    }

    /// Asks what a process is, unless that is known; the answer comes from [`Programs::answers`].
    pub fn look_into(&mut self, tgid: Tgid) {
        if self.known.contains_key(&tgid) {
            return;
        }
        if self.known.len() >= limits::PROCESSES as usize {
            self.known.retain(|_, known| matches!(known, Known::Asked(_)));
        }
        self.questions += 1;
        let known = match self.ask.try_send(Question { number: self.questions, tgid }) {
            Ok(()) => Known::Asked(self.questions),
            Err(_) => Known::Other,
        };
        self.known.insert(tgid, known);
    }

    /// A process has ended or runs another file.
    pub fn forget(&mut self, tgid: Tgid) {
        self.known.remove(&tgid);
    }

    /// What the kernel side is to know of a process, as bits of its entry in the map of processes.
    #[must_use]
    pub fn bits(&self, tgid: Tgid) -> u8 {
        match self.known.get(&tgid) {
            None | Some(Known::Asked(_)) => 0,
            Some(Known::Other) => PROCESS_LOOKED_INTO,
            Some(Known::Go) => PROCESS_LOOKED_INTO | PROCESS_GO,
        }
    }

    /// The next process about which an answer came, and its layout if it is a Go program that can be read.
    pub fn answer(&mut self) -> Option<(Tgid, Option<GoLayout>)> {
        loop {
            let answer = match self.answers.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            };
            if let Some(known) = self.known.get_mut(&answer.tgid)
                && matches!(known, Known::Asked(number) if *number == answer.number)
            {
                *known = if answer.layout.is_some() { Known::Go } else { Known::Other };
                return Some((answer.tgid, answer.layout));
            }
        }
    }
}

/// Answers questions until nobody asks any more.
fn read(questions: &Receiver<Question>, answers: &SyncSender<Answer>) {
    let mut files = FxHashMap::default();
    while let Ok(Question { number, tgid }) = questions.recv() {
        let layout = layout_of(tgid, &mut files);
        if answers.send(Answer { number, tgid, layout }).is_err() {
            return;
        }
    }
}

/// What names a file and its state: device, inode, octets, and time of the last change.
type FileId = (u64, u64, u64, i64, i64);

/// `None` when the process is gone, no Go program, or one that is not known well enough.
fn layout_of(tgid: Tgid, files: &mut FxHashMap<FileId, Option<GoLayout>>) -> Option<GoLayout> {
    let file = File::open(format!("/proc/{}/exe", tgid.0)).ok()?;
    let meta = file.metadata().ok()?;
    let id = (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec());
    if let Some(layout) = files.get(&id) {
        return *layout;
    }
    if files.len() >= FILES {
        files.clear();
    }
    let layout = binary::layout(file);
    files.insert(id, layout);
    layout
}

#[cfg(test)]
mod tests;
