//! Questions to the store: asked on threads for files, a few at a time, and answered in the API's words.
//!
//! API thread hands them over. Reads only; the writer knows nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane::record::list::ListError;
use dataplane::record::query::QueryError;
use dataplane::record::{ExportError, Query, Store, StoreError};

use super::App;
use super::call::Call;
use super::problem::{Kind, Problem};

/// The names by which packets are asked for, one of them at a time.
pub const QUERY: [&str; 4] = ["incident", "flow", "community_id", "host"];
/// How long the store may take for an answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Has a job give up once nobody waits for it any more.
pub struct Waiting(Option<Arc<AtomicBool>>);

impl Waiting {
    /// And what the job is to look at now and then.
    pub fn begin() -> (Waiting, Arc<AtomicBool>) {
        let given_up = Arc::new(AtomicBool::new(false));
        (Waiting(Some(Arc::clone(&given_up))), given_up)
    }

    /// The job may go on without.
    pub fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.iter().for_each(|given_up| given_up.store(true, Ordering::Relaxed));
    }
}

impl App {
    /// Does something with the store where waiting for a disk is no harm. The work is told when its client has left, or has
    /// waited long enough.
    pub async fn job<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Store, &Arc<AtomicBool>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let folder = self.store.clone().ok_or_else(|| {
            Problem::new(Kind::NoStore, "nothing is recorded here")
                .help("`referee run --store DIR` keeps packets")
        })?;
        let place = self.limits.job().await?;
        let (_waiting, given_up) = Waiting::begin();
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            let store = Store::open(&folder).map_err(unreadable)?;
            work(&store, &given_up)
        });
        let done = tokio::time::timeout(PATIENCE, done).await.map_err(|_| {
            Problem::new(Kind::Busy, "the store takes too long to be read").help("narrow it by host or time")
        })?;
        done.unwrap_or_else(|_| Err(Problem::new(Kind::Internal, "a job failed; this is a fault of Referee")))
    }
}

/// The packets that parameters ask for.
pub fn query(call: &Call) -> Result<Query, Problem> {
    let (since, until) = call.between()?;
    let query = Query {
        incident: call.param("incident").map(str::to_owned),
        flow: call.flow_id("flow")?,
        community_id: call.parsed("community_id", "1: and 28 letters of Base64", community)?,
        host: call.host()?,
        since,
        until,
    };
    match QUERY.iter().filter(|name| call.param(name).is_some()).count() {
        0 | 1 => Ok(query),
        _ => {
            let what = format!("only one of {} can be asked for", QUERY.join(", "));
            Err(Problem::new(Kind::BadParameter, what).help("leave out the others"))
        }
    }
}

/// Version 1, a SHA-1 in Base64.
fn community(text: &str) -> Option<String> {
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let hash = text.strip_prefix("1:")?;
    (hash.len() == 28 && hash.chars().all(base64)).then(|| text.to_owned())
}

/// The store's own words name files of this host, which are nobody's business.
pub fn unreadable(error: StoreError) -> Problem {
    let what = match error {
        StoreError::Missing { .. } => "there is no store where one is meant to be",
        _ => "its files can't be read",
    };
    Problem::new(Kind::StoreUnreadable, what).help("`referee store verify` on the box says more")
}

pub fn refused(error: QueryError) -> Problem {
    match error {
        QueryError::Store(error) => unreadable(error),
        QueryError::NoIncident(id) => no_incident(&id),
    }
}

pub fn no_incident(id: &str) -> Problem {
    let shown: String = id.chars().take(100).collect();
    Problem::new(Kind::NoSuchIncident, format!("there is no incident {shown:?}"))
        .help("/api/v1/incidents lists them")
}

pub fn unlisted(error: ListError) -> Problem {
    match error {
        ListError::Query(error) => refused(error),
        ListError::TooMany(_) => too_many(),
    }
}

fn too_many() -> Problem {
    Problem::new(Kind::NoRoom, "more matches than can be prepared").help("narrow it by flow, host or time")
}

pub fn no_room() -> Problem {
    Problem::new(Kind::NoRoom, "there is no room for so much")
        .help("narrow it, make room, or take it with stream=true")
}

pub fn unexported(error: ExportError) -> Problem {
    match error {
        ExportError::Query(error) => refused(error),
        ExportError::NothingKept(_) => Problem::new(Kind::NothingKept, "no packet of it is kept")
            .help("not every incident has packets, and retention deletes the oldest"),
        ExportError::Spool { .. } | ExportError::Output(_) => no_room(),
        ExportError::Stopped | ExportError::Sorted => {
            Problem::new(Kind::Busy, "it was given up").help("ask again")
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::testing::tried;
    use super::*;

    #[tokio::test]
    async fn a_job_gives_up_when_nobody_waits_for_it() {
        let tried = tried(false, |_| {});
        let app = Arc::clone(&tried.app);
        let ((begun, begins), (ended, ends)) = (oneshot::channel(), oneshot::channel());
        let asked = tokio::spawn(async move {
            let work = move |_: &Store, given_up: &Arc<AtomicBool>| {
                begun.send(()).unwrap();
                while !given_up.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                ended.send(()).unwrap();
                Ok(())
            };
            app.job(work).await
        });
        begins.await.unwrap();
        asked.abort();
        ends.await.unwrap();
    }

    #[test]
    fn a_download_is_not_made_for_nobody() {
        let tried = tried(false, |_| {});
        let store = Store::open(tried.folder.path()).unwrap();
        let make =
            |given_up| tried.app.spool.make(&store, &Query::default(), &Arc::new(AtomicBool::new(given_up)));
        assert_eq!(make(true).map(drop).unwrap_err().kind, Kind::Busy);
        assert!(make(false).is_ok());
    }

    #[test]
    fn a_stream_that_has_begun_is_not_given_up() {
        let (waiting, given_up) = Waiting::begin();
        waiting.over();
        assert!(!given_up.load(Ordering::Relaxed));
    }
}
