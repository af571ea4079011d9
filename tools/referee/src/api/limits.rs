//! How much of each thing a client may have: requests a second, failed logins a minute, jobs, downloads and streams at once.
//!
//! API thread. Every table has a fixed size; who finds no room is told when to come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::RETRY_AFTER;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Kind, Problem};

/// Body of a request, bytes; its address; its header lines, and bytes of them.
pub const BODY: usize = 1 << 20;
pub const URI: usize = 8 << 10;
pub const HEADERS: usize = 100;
pub const HEADER_BYTES: usize = 32 << 10;
/// Connections of one listener; more that are told so at once, and how long one may take to hear it.
pub const CONNECTIONS: usize = 64;
pub const REFUSALS: usize = 16;
pub const REFUSAL_TIME: Duration = Duration::from_secs(2);
/// How long a client may take for its header, for the body, and to take anything of an answer.
pub const HEADER_TIME: Duration = Duration::from_secs(10);
pub const BODY_TIME: Duration = Duration::from_secs(30);
pub const READER_TIME: Duration = Duration::from_secs(60);
/// Followers of events at once, and of packets; downloads being read; jobs on disk at once, and those that may wait for one.
const STREAMS: usize = 16;
const LIVE: usize = 4;
const DOWNLOADS: usize = 4;
const JOBS: usize = 4;
const WAITING: usize = 4;
/// Of one client: requests at once beyond the rate, and failed logins a minute.
const BURST: f64 = 100.0;
const LOGINS: f64 = 10.0;
/// Clients remembered.
const CLIENTS: usize = 1024;

/// So many now, and so many more each second.
#[derive(Debug)]
struct Bucket {
    left: f64,
    seen: Instant,
}

#[derive(Debug)]
struct Buckets {
    per_second: f64,
    burst: f64,
    of: Mutex<HashMap<String, Bucket>>,
}

impl Buckets {
    fn new(per_second: f64, burst: f64) -> Buckets {
        Buckets { per_second, burst, of: Mutex::default() }
    }

    /// Takes one of a client's; how many seconds it is to wait if it has none.
    fn take(&self, client: &str, now: Instant) -> Result<(), f64> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if of.len() >= CLIENTS && !of.contains_key(client) {
            // One that has been away long enough to be as new needs no memory.
            let (rate, burst) = (self.per_second, self.burst);
            of.retain(|_, b| b.left + now.duration_since(b.seen).as_secs_f64() * rate < burst);
            if of.len() >= CLIENTS {
                return Err(1.0);
            }
        }
        let bucket = of.entry(client.to_owned()).or_insert(Bucket { left: self.burst, seen: now });
        let more = now.duration_since(bucket.seen).as_secs_f64() * self.per_second;
        *bucket = Bucket { left: (bucket.left + more).min(self.burst), seen: now };
        if bucket.left < 1.0 {
            return Err((1.0 - bucket.left) / self.per_second);
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub struct Limits {
    requests: Arc<Buckets>,
    logins: Arc<Buckets>,
    streams: Arc<Semaphore>,
    live: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    jobs: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// A place among those who do something on disk.
#[derive(Debug)]
pub struct Job {
    _place: OwnedSemaphorePermit,
}

impl Limits {
    pub fn new(requests_per_second: u32) -> Limits {
        let per_second = f64::from(requests_per_second);
        Limits {
            requests: Arc::new(Buckets::new(per_second, BURST.max(per_second))),
            logins: Arc::new(Buckets::new(LOGINS / 60.0, LOGINS)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            live: Arc::new(Semaphore::new(LIVE)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            jobs: Arc::new(Semaphore::new(JOBS)),
            waiting: Arc::new(Semaphore::new(WAITING + JOBS)),
        }
    }

    pub fn request(&self, client: &str) -> Result<(), Problem> {
        self.requests
            .take(client, Instant::now())
            .map_err(|wait| later(wait, "requests come faster than the limit"))
    }

    /// Counts a failed login.
    pub fn login_failed(&self, peer: &str) -> Result<(), Problem> {
        self.logins
            .take(peer, Instant::now())
            .map_err(|wait| later(wait, "too many logins from there have failed"))
    }

    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.streams).try_acquire_owned();
        place.map_err(|_| later(5.0, &format!("{STREAMS} clients follow already")))
    }

    pub fn live(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.live).try_acquire_owned();
        place.map_err(|_| later(10.0, &format!("{LIVE} clients follow what is kept already")))
    }

    /// Waits until nobody follows packets, and lets nobody begin.
    pub async fn none_live(&self) {
        let all = self.live.acquire_many(LIVE as u32).await;
        all.into_iter().for_each(|all| all.forget());
    }

    pub fn download(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.downloads).try_acquire_owned();
        place.map_err(|_| later(10.0, &format!("{DOWNLOADS} downloads are being read already")))
    }

    /// Waits for a place, behind a few others.
    pub async fn job(&self) -> Result<Job, Problem> {
        let full = |_| later(5.0, "as many questions to the store are being answered as may be at once");
        let _queued = Arc::clone(&self.waiting).try_acquire_owned().map_err(full)?;
        let place = Arc::clone(&self.jobs).acquire_owned().await;
        Ok(Job { _place: place.map_err(|_| later(5.0, "this is ending"))? })
    }
}

/// 429, and when to come again.
pub fn later(seconds: f64, detail: &str) -> Problem {
    let seconds = Duration::from_secs_f64(seconds.clamp(1.0, 3600.0)).as_secs_f64().ceil();
    Problem::new(Kind::TooMany, detail)
        .help(format!("come again in {seconds} s"))
        .header(RETRY_AFTER, &format!("{seconds}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let buckets = Buckets::new(20.0, 100.0);
        let now = Instant::now();
        assert!((0..100).all(|_| buckets.take("a", now).is_ok()));
        assert!(buckets.take("a", now).is_err());
        assert!(buckets.take("b", now).is_ok());
        let later = now + Duration::from_secs(1);
        assert_eq!((0..50).filter(|_| buckets.take("a", later).is_ok()).count(), 20);
    }

    #[test]
    fn only_so_many_clients_are_remembered() {
        let buckets = Buckets::new(1.0, 2.0);
        let now = Instant::now();
        (0..CLIENTS).for_each(|n| assert!(buckets.take(&n.to_string(), now).is_ok()));
        assert!(buckets.take("one more", now).is_err());
        assert!(buckets.take("one more", now + Duration::from_secs(2)).is_ok());
    }
}
