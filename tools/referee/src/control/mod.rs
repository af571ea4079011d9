//! The control thread of a live run: reads the rules again when their files change, on SIGHUP, and when told to through
//! its socket; compiles them, and has workers and judge go by them. Captures on demand are begun here too.
//!
//! Never in the path of a packet and never waited for by a worker. What is to be said goes to main as lines of text.

pub mod client;
pub mod command;
pub mod demands;
pub mod expression;
pub mod files;
pub mod last_good;
pub mod question;
pub mod request;
mod sets;
mod settle;
pub mod socket;
mod standing;
pub mod switches;
mod watch;

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use dataplane::worker::Handover;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rules::{Override, RuleSet, SourceFile};

use self::command::{Mistake, Reloaded, Status};
use self::demands::{Demands, Means, Record};
use self::last_good::Start;
use self::question::Question;
use self::request::{Request, Requests};
pub use self::sets::Live;
use self::sets::Sets;
use self::settle::{Settling, read_twice};
use self::socket::Socket;
use self::switches::{Made, Switches};
use self::watch::Watch;
use crate::config::Config;
use crate::error::Failure;
use crate::live::service;
use crate::report::cost::Ticking;
use crate::rules::load::{self, Origin};

/// How often the thread looks around when nothing wakes it, and while files settle.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(50));
/// How long a reload that was asked for waits for somebody who is still writing.
const WRITER: Duration = Duration::from_secs(2);
const WAKE: Token = Token(0);
const OTHER: Token = Token(1);

/// What the command line says of the rules.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The settings, which are read again too.
    pub config: Option<PathBuf>,
    pub rules: Option<PathBuf>,
    pub set: Vec<Override>,
}

impl Asked {
    fn origin(&self) -> Result<Origin, Failure> {
        Ok(Origin::new(self.rules.as_deref(), &Config::load(self.config.as_deref())?, &self.set))
    }
}

/// All that has to be made before privileges are given up.
pub struct Prepared {
    asked: Asked,
    origin: Origin,
    keep: Option<PathBuf>,
    socket: Option<Socket>,
    watch: Watch,
    hangups: UnixStream,
    terminal: bool,
}

impl Prepared {
    /// `hangups` has a byte for each SIGHUP.
    ///
    /// # Errors
    /// Failed: the system refuses something that it never does.
    pub fn new(
        asked: Asked,
        origin: Origin,
        keep: Option<PathBuf>,
        socket: Option<Socket>,
        hangups: UnixStream,
    ) -> Result<Prepared, Failure> {
        let failed = |error: io::Error| Failure::failed(format!("rules can't be watched: {error}"));
        let watch = Watch::new().map_err(failed)?;
        let terminal = io::stderr().is_terminal();
        Ok(Prepared { asked, origin, keep, socket, watch, hangups, terminal })
    }

    /// Starts the thread. `over` ends the run.
    ///
    /// # Errors
    /// Failed: no thread can be made.
    pub fn spawn(
        self,
        start: Start,
        handovers: Vec<Arc<Handover>>,
        means: Means,
        over: Arc<AtomicBool>,
    ) -> Result<Handle, Failure> {
        let failed = |error: io::Error| Failure::failed(format!("the control thread can't be made: {error}"));
        let Prepared { asked, origin, keep, socket, mut watch, hangups, terminal } = self;
        watch.follow(origin.path.as_deref());
        let poll = Poll::new().map_err(failed)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(failed)?);
        let (requests, asked_for) = Requests::new(Some(Arc::clone(&waker)));
        let mut fds = vec![watch.fd(), hangups.as_raw_fd()];
        fds.extend(socket.as_ref().map(|socket| socket.listener().as_raw_fd()));
        for fd in fds {
            poll.registry().register(&mut SourceFd(&fd), OTHER, Interest::READABLE).map_err(failed)?;
        }
        let sets = Sets::new(start.rules, handovers);
        let ((notes, said), (records, recorded)) = (channel(), channel());
        let (stop, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (live, judge) = (Arc::clone(sets.live()), sets.judge());
        let (ticking, question) = (Ticking::begun(), Arc::new(Question::default()));
        let made = Made::new(&origin, start.params, start.files.clone());
        let control = Control {
            asked,
            origin,
            keep,
            socket,
            watch,
            hangups,
            terminal,
            over,
            stop: Arc::clone(&stop),
            turns: Arc::clone(&turns),
            poll,
            sets,
            made,
            switches: Switches::default(),
            ticking,
            question: Arc::clone(&question),
            tried: Some(start.files),
            last_good: !start.errors.is_empty(),
            errors: start.errors,
            settling: None,
            unkept: false,
            notes,
            requests: asked_for,
            demands: Demands::new(means, records),
        };
        let thread =
            thread::Builder::new().name("control".to_owned()).spawn(|| control.run()).map_err(failed)?;
        Ok(Handle { live, judge, question, ticking, said, requests, recorded, waker, stop, turns, thread })
    }
}

/// Main's end.
pub struct Handle {
    pub live: Arc<Live>,
    /// Sets on their way to the judge.
    pub judge: Arc<ArrayQueue<Arc<RuleSet>>>,
    pub question: Arc<Question>,
    /// By which times are told here and in the metrics.
    pub ticking: Ticking,
    /// What people should know.
    pub said: Receiver<String>,
    /// For the HTTP interface.
    pub requests: Requests,
    /// What is to be kept of captures on demand.
    pub recorded: Receiver<Record>,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    turns: Arc<AtomicU64>,
    thread: JoinHandle<Demands>,
}

impl Handle {
    /// Nothing is loaded any more from now on.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // It looks once a second anyway.
        let _ = self.waker.wake();
    }

    /// Turns it has taken: while these grow, it is not stuck. It takes one a second when there is nothing to do.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Waits for its end, and gives the captures there were; none if it ended by a fault of its own.
    pub fn join(self) -> Option<Demands> {
        self.thread.join().ok()
    }
}

struct Control {
    asked: Asked,
    origin: Origin,
    /// Folder of the last good rules.
    keep: Option<PathBuf>,
    socket: Option<Socket>,
    watch: Watch,
    hangups: UnixStream,
    /// Standard error was a terminal at the start.
    terminal: bool,
    over: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    turns: Arc<AtomicU64>,
    poll: Poll,
    sets: Sets,
    /// What the set in force was made of.
    made: Made,
    switches: Switches,
    ticking: Ticking,
    question: Arc<Question>,
    /// What the files held when they were last loaded, or refused; `None` if they could not be read.
    tried: Option<Vec<SourceFile>>,
    last_good: bool,
    /// Why what is in the files is not in force.
    errors: Vec<Mistake>,
    settling: Option<Settling>,
    /// The last good rules can't be kept, and people know.
    unkept: bool,
    notes: Sender<String>,
    requests: Receiver<Request>,
    demands: Demands,
}

impl Control {
    fn run(mut self) -> Demands {
        if !self.last_good {
            self.remember();
            // What happened since they were read was not watched.
            self.settling = self.origin.path.is_some().then(Settling::begun);
        }
        let mut events = Events::with_capacity(8);
        while !self.stop.load(Ordering::Acquire) {
            self.goes_on();
            let nap = if self.settling.is_some() { LOOKS.1 } else { LOOKS.0 };
            // Whatever ended the wait, everything is looked at.
            let _ = self.poll.poll(&mut events, Some(nap));
            self.hangup();
            if self.watch.look() {
                self.settling.get_or_insert_with(Settling::begun).again(Instant::now());
            }
            self.settle();
            if let Some(socket) = self.socket.take() {
                socket.serve(|line| {
                    self.goes_on();
                    self.answer(line)
                });
                self.socket = Some(socket);
            }
            while let Ok(Request { command, reply }) = self.requests.try_recv() {
                self.goes_on();
                reply(self.obey(command));
            }
            self.sets.free();
            self.demands.look();
        }
        self.demands.stop();
        self.demands
    }

    /// One thing after the other, each of which may take a while, is no standing still.
    fn goes_on(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn say(&self, text: impl Into<String>) {
        // Main has ended first: nobody is left to tell.
        let _ = self.notes.send(text.into());
    }

    /// SIGHUP: reload, or the end if it came because the terminal has gone.
    fn hangup(&mut self) {
        let mut came = false;
        while matches!(self.hangups.read(&mut [0; 64]), Ok(1..)) {
            came = true;
        }
        if came && self.terminal && !io::stderr().is_terminal() {
            self.over.store(true, Ordering::Relaxed);
        } else if came {
            self.reload();
        }
    }

    fn status(&self) -> Status {
        let Reloaded { hash, generation, rules, workers, .. } = self.sets.described();
        let (reloads, refused_reloads) = self.sets.live().reloads();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            hash,
            generation,
            rules,
            workers,
            path: self.origin.path.as_ref().map(|path| path.display().to_string()),
            library: self.origin.library,
            last_good: self.last_good,
            reloads,
            refused_reloads,
            switched: self.switches.told(&self.sets.current()),
            errors: self.errors.clone(),
        }
    }

    /// Somebody wants it now, with the parameters that the settings have now.
    fn reload(&mut self) -> Reloaded {
        let _told = service::Reloading::begun();
        self.settling = None;
        let origin = match self.asked.origin() {
            Ok(origin) => origin,
            Err(failure) => {
                let config = self.asked.config.as_ref().map(|path| path.display().to_string());
                let file = config.unwrap_or_else(|| "settings".to_owned());
                let (message, help) = (failure.message, failure.help);
                return self.refuse(vec![Mistake { file, line: 0, column: 0, message, help }]);
            }
        };
        // From now on the files are read there, also if this fails.
        self.origin = origin;
        self.watch.follow(self.origin.path.as_deref());
        let until = Instant::now() + WRITER;
        self.watch.look();
        while let Some(path) = self.watch.being_written() {
            if Instant::now() >= until {
                let failure = Failure::failed(format!("{} is still being written", path.display()))
                    .help("reload again when that is done");
                return self.refuse(last_good::mistake(&self.origin, &failure));
            }
            thread::sleep(LOOKS.1);
            self.watch.look();
        }
        let changing =
            || Err(Failure::failed("the files keep changing").help("reload again when that is over"));
        let files = read_twice(&self.origin).unwrap_or_else(changing);
        self.load(files)
    }

    /// Has the files' rules go live, or says why not.
    fn load(&mut self, files: Result<Vec<SourceFile>, Failure>) -> Reloaded {
        let files = match files {
            Ok(files) => files,
            Err(failure) => {
                self.tried = None;
                return self.refuse(last_good::mistake(&self.origin, &failure));
            }
        };
        let made = Made::new(&self.origin, self.origin.params.clone(), files.clone());
        let set = match self.switches.load(&made, Some(&self.sets.current())) {
            Ok(set) => set,
            Err(errors) => {
                self.tried = Some(files);
                return self.refuse(last_good::mistakes(errors));
            }
        };
        let (done, same) = match self.sets.replace(set, &self.stop) {
            Ok(done) => done,
            Err(failure) => return self.refuse(last_good::mistake(&self.origin, &failure)),
        };
        (self.tried, self.made) = (Some(files), made);
        let repaired = !self.errors.is_empty();
        (self.errors, self.last_good) = (Vec::new(), false);
        self.remember();
        match (same, repaired) {
            (false, _) => self.say(format!("rules: {}", client::words(&done))),
            (true, true) => {
                self.say(format!("rules: the files are those in force again, generation {}", done.generation))
            }
            (true, false) => {}
        }
        done
    }

    fn refuse(&mut self, errors: Vec<Mistake>) -> Reloaded {
        self.sets.live().refuse();
        let done = Reloaded { errors: errors.clone(), ..self.sets.described() };
        let told: Vec<_> = errors.iter().cloned().map(Into::into).collect();
        self.say(format!(
            "rules: not loaded, generation {} stays in force: {}",
            done.generation,
            load::refusal(&told)
        ));
        self.errors = errors;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::service::{CONTROL_STUCK, Service, Supervised};

    fn ask(handle: &Handle, then: impl FnOnce() + Send + 'static) {
        let request = Request { command: command::Command::Demands {}, reply: Box::new(|_| then()) };
        assert!(handle.requests.ask(request).is_ok());
    }

    #[test]
    fn a_thread_that_is_held_up_is_known_by_its_turns() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.rhai"), "rule \"a\" on rst then { }").unwrap();
        let asked = Asked { config: None, rules: Some(folder.path().to_path_buf()), set: Vec::new() };
        let origin = asked.origin().unwrap();
        let start = last_good::start(&origin, None).unwrap();
        let hangups = crate::live::signals::hangups().unwrap();
        let prepared = Prepared::new(asked, origin, None, None, hangups).unwrap();
        let handle = prepared.spawn(start, Vec::new(), Means::default(), Arc::default()).unwrap();
        let ((entered, inside), (leave, left)) = (channel(), channel::<()>());
        ask(&handle, move || {
            entered.send(()).unwrap();
            left.recv().unwrap();
        });
        inside.recv().unwrap();
        let thread = Supervised { name: "control".to_owned(), patience: CONTROL_STUCK };
        let began = Instant::now();
        let mut service = Service::ready([thread].into_iter(), began);
        let mut look = |at| service.look(at, [handle.turns()].into_iter(), "");
        assert!(look(began).is_empty());
        assert_eq!(look(began + CONTROL_STUCK), ["thread control took no turn for 30 s"]);
        let (done, over) = channel();
        leave.send(()).unwrap();
        ask(&handle, move || done.send(()).unwrap());
        over.recv().unwrap();
        assert!(look(began + CONTROL_STUCK * 2).is_empty());
        handle.stop();
        assert!(handle.join().is_some());
    }
}
