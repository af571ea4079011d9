//! Webhooks: each has a queue and a task of its own, so that one that doesn't answer holds up no other.
//!
//! All tasks share one thread with an async runtime. They wait for networks and for each other's turn; nobody waits for
//! them but main at the very end, for a few seconds.

mod post;
pub mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use rules::Severity;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::eve::told;
use super::{Note, Said, State};
use crate::config::notify::WebhookConfig;
use crate::error::Failure;
use crate::report::words::subject;
use post::{Outcome, Target};
use queue::{Item, Queue};

/// How long is waited between tries.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Before the second try; twice as long before each further one.
    pub first: Duration,
    /// But not longer, unless the other side says so.
    pub most: Duration,
    /// From the first try on; then the notice is given up.
    pub give_up: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            first: Duration::from_secs(1),
            most: Duration::from_secs(60),
            give_up: Duration::from_secs(3600),
        }
    }
}

impl Pace {
    /// How long after the try that was the `tries`th is the next; `None` if there is none, `since` so long.
    fn wait(&self, tries: u32, after: Option<Duration>, since: Duration) -> Option<Duration> {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1)));
        let wait = after.unwrap_or_default().max(doubled.min(self.most));
        (since + wait <= self.give_up).then_some(wait)
    }
}

/// One webhook.
pub struct Hook {
    pub name: String,
    target: Target,
    pub queue: Arc<Queue>,
    /// Where people find an incident.
    page: Option<String>,
    pace: Pace,
}

impl Hook {
    /// # Errors
    /// Usage: a file it names.
    pub fn new(config: &WebhookConfig, page: Option<String>, pace: Pace) -> Result<Hook, Failure> {
        Ok(Hook {
            name: config.name.clone(),
            target: Target::new(config)?,
            queue: Arc::new(Queue::new(config.per_minute, queue::ROOM)),
            page,
            pace,
        })
    }

    /// The task: tells until the queue is closed and empty.
    pub async fn run(self, said: Said) {
        let mut failing = false;
        while let Some(item) = self.queue.next().await {
            let (key, body) = self.words(&item);
            let body = Bytes::from(body.to_string());
            let begun = Instant::now();
            let mut tries = 0;
            let sent = loop {
                tries += 1;
                let (why, wait) = match self.target.post(&body, &key).await {
                    Outcome::Told => break true,
                    Outcome::Refused(why) => (why, None),
                    Outcome::Later(why, after) => (why, self.pace.wait(tries, after, begun.elapsed())),
                };
                if !std::mem::replace(&mut failing, true) {
                    said.say(format!("notify: {} can't be told: {why}", self.name));
                }
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => break false,
                }
            };
            self.queue.over(&item, sent);
            if sent && std::mem::take(&mut failing) {
                said.say(format!("notify: {} can be told again", self.name));
            }
        }
    }

    /// What names the news, and what is said. `text` is what chat programs show.
    fn words(&self, item: &Item) -> (String, Value) {
        match item {
            Item::Note(note) => {
                let id = &note.incident.id;
                let mut body =
                    json!({ "text": text(note), "state": note.state.name(), "incident": told(note) });
                if let Some(page) = &self.page {
                    body["url"] = format!("{page}/#/incident/{id}").into();
                }
                (format!("{id}-{}", note.state.name()), body)
            }
            Item::LeftOut(left, at) => {
                let kinds = json!({ "all": left.all(), "kinds": left.kinds, "others": left.others });
                (format!("left-out-{at}"), json!({ "text": harmless(&left.words()), "left_out": kinds }))
            }
        }
    }
}

fn text(note: &Note) -> String {
    let incident = &note.incident;
    let head = match (note.state, incident.withdrawn, incident.severity) {
        (_, true, _) => "TAKEN BACK",
        (State::Closed, ..) => "OVER",
        (State::Open, _, Severity::Critical) => "CRITICAL",
        (State::Open, _, Severity::Warning) => "WARNING",
        (State::Open, _, Severity::Info) => "INFO",
    };
    let who = subject(&incident.subject);
    harmless(&format!("{head} {}: {who}. {}", incident.kind, incident.explain))
}

/// Names that a packet brought in are not to call anybody or lead anywhere.
fn harmless(text: &str) -> String {
    let instead = |c: char| match c {
        '<' => '‹',
        '>' => '›',
        '@' => '＠',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(instead).collect()
}

/// The thread's body: ends when all queues are closed and told, or `patience` after they were closed.
pub async fn run(hooks: Vec<Hook>, mut over: watch::Receiver<bool>, patience: Duration, said: &Said) {
    let queues: Vec<Arc<Queue>> = hooks.iter().map(|hook| Arc::clone(&hook.queue)).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for hook in hooks {
        tasks.spawn(hook.run(said.clone()));
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    let late = async {
        // Whoever would say so may also have gone.
        let _ = over.wait_for(|over| *over).await;
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        () = all => {}
        () = late => {}
    }
    queues.iter().for_each(|queue| queue.give_up());
}
