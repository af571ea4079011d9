//! How long requests to the HTTP interface took until their answer began: by route, as the table of routes has it, and by
//! the hundred of the answer's status, so that labels are bounded.
//!
//! The api thread counts, whoever renders the page reads; the lock is held for a count or a copy.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dataplane::latency::RoundTrips;

use super::text::Text;

/// In place of a method or a path that no route has.
pub const OTHER: &str = "other";
const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Path, method, and the hundred of the status less one.
type Key = (&'static str, &'static str, usize);

#[derive(Debug, Default)]
pub struct Requests(Mutex<BTreeMap<Key, RoundTrips>>);

impl Requests {
    /// One has been answered.
    pub fn count(&self, method: &'static str, path: &'static str, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, STATUSES.len()) - 1;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        all.entry((path, method, class)).or_default().count(ns);
    }

    pub(super) fn show(&self, page: &mut Text) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if all.is_empty() {
            return;
        }
        let help = "Requests to the HTTP interface, from their first line until their answer begins.";
        page.histogram("referee_api_request_seconds", help);
        for ((path, method, class), durations) in &all {
            let status = STATUSES.get(*class).copied().unwrap_or(OTHER);
            page.durations(&[("route", path), ("method", method), ("status", status)], durations);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_and_class_of_status_has_a_histogram() {
        let requests = Requests::default();
        let mut page = Text::default();
        requests.show(&mut page);
        for (path, status, ms) in
            [("/a", 200, 1), ("/a", 204, 3), ("/a", 404, 1), ("/b", 503, 9000), ("/b", 999, 1)]
        {
            requests.count("GET", path, status, Duration::from_millis(ms));
        }
        requests.show(&mut page);
        let page = page.into_text();
        assert_eq!(page.matches("# TYPE").count(), 1, "none while nobody has asked");
        for line in [
            "{route=\"/a\",method=\"GET\",status=\"2xx\",le=\"0.001024\"} 1\n",
            "{route=\"/a\",method=\"GET\",status=\"2xx\",le=\"+Inf\"} 2\n",
            "{route=\"/a\",method=\"GET\",status=\"4xx\",le=\"+Inf\"} 1\n",
            "{route=\"/b\",method=\"GET\",status=\"5xx\",le=\"8.388608\"} 1\n",
        ] {
            let line = format!("referee_api_request_seconds_bucket{line}");
            assert!(page.contains(&line), "{line} is not in {page}");
        }
    }
}
