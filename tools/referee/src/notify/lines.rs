//! Those who are told a line at a time: a file, standard output, the system's log.
//!
//! A thread of its own, which may wait for a slow disk or pipe: nobody waits for it, since what finds no room in the queue
//! to it is counted. It renders, writes, and says when something can't be written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rules::Severity;

use super::account::Counts;
use super::eve::Form;
use super::limit::Limit;
use super::{Note, Said, now_ms, now_ns};
use crate::config::notify::SyslogConfig;

/// A datagram's bytes at most, as log daemons take them.
const DATAGRAM: usize = 8 << 10;
/// How often it looks for what was left out, if nothing comes.
const LOOK: Duration = Duration::from_secs(1);

/// Something that takes lines.
pub enum Out {
    File(LogFile),
    Stdout,
    Syslog(Syslog),
}

impl Out {
    fn put(&mut self, line: &str, severity: Severity) -> io::Result<()> {
        match self {
            Out::File(file) => file.put(line),
            Out::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush())
            }
            Out::Syslog(log) => log.put(line, severity),
        }
    }

    /// Where it is.
    fn place(&self) -> Option<&Path> {
        match self {
            Out::File(file) => Some(&file.path),
            Out::Stdout => None,
            Out::Syslog(log) => Some(&log.to),
        }
    }

    /// Bytes of a line at most.
    fn limit(&self) -> usize {
        match self {
            Out::Syslog(_) => DATAGRAM - Syslog::HEAD,
            _ => usize::MAX,
        }
    }
}

/// A file that others may rename away, or have closed by a signal: the next line goes to a new one.
pub struct LogFile {
    path: PathBuf,
    open: Option<(File, (u64, u64))>,
    /// Set from outside: to be opened anew.
    reopen: Arc<AtomicBool>,
    /// The last line is there in part.
    torn: bool,
}

impl LogFile {
    /// # Errors
    /// It can't be opened or made.
    pub fn open(path: &Path, reopen: Arc<AtomicBool>) -> io::Result<LogFile> {
        let mut file = LogFile { path: path.to_path_buf(), open: None, reopen, torn: false };
        file.now().map(drop)?;
        Ok(file)
    }

    /// The file as it is named now.
    fn now(&mut self) -> io::Result<&mut File> {
        let asked = self.reopen.swap(false, Ordering::Relaxed);
        let there = fs::metadata(&self.path).ok().map(|meta| (meta.dev(), meta.ino()));
        let same = !asked && self.open.as_ref().is_some_and(|(_, known)| Some(*known) == there);
        if !same {
            self.open = None;
            self.torn = false;
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
            let meta = file.metadata()?;
            self.open = Some((file, (meta.dev(), meta.ino())));
        }
        self.open.as_mut().map(|(file, _)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn put(&mut self, line: &str) -> io::Result<()> {
        self.now()?;
        let line = format!("{}{line}\n", if self.torn { "\n" } else { "" });
        let written = self.now()?.write_all(line.as_bytes());
        self.torn = written.is_err();
        written
    }
}

/// The log daemon's socket. It may be replaced at any time, and is never waited for.
pub struct Syslog {
    socket: UnixDatagram,
    to: PathBuf,
    facility: u8,
    tag: String,
}

impl Syslog {
    /// Bytes before the line, more than there are.
    const HEAD: usize = 64;

    /// # Errors
    /// No socket can be made.
    pub fn new(config: &SyslogConfig) -> io::Result<Syslog> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let tag = format!("referee[{}]", std::process::id());
        Ok(Syslog { socket, to: config.socket.clone(), facility: config.facility, tag })
    }

    /// RFC 3164 without its time, which has no zone: the daemon puts its own there (§4.3.2), the event has one inside.
    fn put(&self, line: &str, severity: Severity) -> io::Result<()> {
        let level = match severity {
            Severity::Critical => 2,
            Severity::Warning => 4,
            Severity::Info => 6,
        };
        let priority = u32::from(self.facility) * 8 + level;
        let datagram = format!("<{priority}>{}: {line}", self.tag);
        self.socket.send_to(datagram.as_bytes(), &self.to).map(drop)
    }
}

/// One of them, and how often it is told.
pub struct Sink {
    pub name: &'static str,
    pub out: Out,
    pub limit: Limit,
    pub counts: Arc<Counts>,
    /// People were told that it fails.
    pub failing: bool,
}

impl Sink {
    pub fn tell(&mut self, note: &Note, form: &Form, said: &Said) {
        self.counts.taken();
        if !self.limit.pass(&note.incident.kind, now_ms()) {
            self.counts.limited();
            return;
        }
        let line = form.line(note, self.out.limit());
        let put = self.out.put(&line, note.incident.severity);
        match &put {
            Ok(()) => self.counts.sent(),
            Err(_) => self.counts.failed(),
        }
        self.news(put, said);
    }

    fn tell_left_out(&mut self, form: &Form, last: bool, said: &Said) {
        if let Some(left) = self.limit.left_out(now_ms(), last) {
            let put = self.out.put(&form.left_out(&left, now_ns()).to_string(), Severity::Info);
            self.news(put, said);
        }
    }

    /// When it begins to fail, and when it works again.
    fn news(&mut self, put: io::Result<()>, said: &Said) {
        match (&put, self.failing) {
            (Err(error), false) => {
                let place = self.out.place().map_or(String::new(), |path| format!(" ({})", path.display()));
                said.say(format!("notify: {}{place} can't be told: {error}", self.name));
            }
            (Ok(()), true) => said.say(format!("notify: {} can be told again", self.name)),
            _ => return,
        }
        self.failing = put.is_err();
    }
}

/// The thread's body: ends when nobody tells any more, and everything is told.
pub fn run(mut sinks: Vec<Sink>, inbox: &Receiver<Arc<Note>>, form: &Form, said: &Said) {
    loop {
        let last = match inbox.recv_timeout(LOOK) {
            Ok(note) => {
                sinks.iter_mut().for_each(|sink| sink.tell(&note, form, said));
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        sinks.iter_mut().for_each(|sink| sink.tell_left_out(form, last, said));
        if last {
            return;
        }
    }
}
