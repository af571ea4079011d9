//! The page as it grows: Prometheus text (exposition format 0.0.4). A family's head, then its values; whoever asks for
//! the page writes it, on its own thread. Names and help are ours, values of labels may be anybody's and are escaped.

use std::fmt::{Display, Write as _};

use dataplane::latency::Durations;

/// Values of labels: (name, value).
pub type Labels<'a> = &'a [(&'a str, &'a str)];

#[derive(Default)]
pub struct Text {
    text: String,
    family: &'static str,
    /// Which accounts of the ledger were told, and as what.
    #[cfg(test)]
    pub books: Vec<(String, u64)>,
}

/// Writing to a `String` cannot fail.
impl Text {
    pub fn counter(&mut self, name: &'static str, help: &str) -> &mut Text {
        self.head(name, "counter", help)
    }

    pub fn gauge(&mut self, name: &'static str, help: &str) -> &mut Text {
        self.head(name, "gauge", help)
    }

    pub fn histogram(&mut self, name: &'static str, help: &str) -> &mut Text {
        self.head(name, "histogram", help)
    }

    fn head(&mut self, name: &'static str, kind: &str, help: &str) -> &mut Text {
        self.family = name;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    pub fn into_text(self) -> String {
        self.text
    }

    pub fn is(&mut self, value: impl Display) {
        self.labelled(&[], value);
    }

    pub fn labelled(&mut self, labels: Labels, value: impl Display) {
        self.series("", labels, None, value);
    }

    /// A value that is an account of the ledger, named by its path there.
    pub fn account(&mut self, _path: &str, labels: Labels, value: u64) -> &mut Text {
        self.labelled(labels, value);
        #[cfg(test)]
        self.books.push((_path.to_owned(), value));
        self
    }

    /// The family's one value, an account of the ledger.
    pub fn only(&mut self, path: &str, value: u64) {
        self.account(path, &[], value);
    }

    /// Each bucket holds what is in those before it, as Prometheus wants it; bounds and sum in seconds.
    pub fn durations<const FIRST: u32>(&mut self, labels: Labels, durations: &Durations<FIRST>) {
        let mut below = 0;
        for (bound, count) in Durations::<FIRST>::bounds().zip(durations.counts) {
            below += count;
            self.series("_bucket", labels, Some(&(bound as f64 / 1e6).to_string()), below);
        }
        let all: u64 = durations.counts.iter().sum();
        self.series("_bucket", labels, Some("+Inf"), all);
        self.series("_sum", labels, None, durations.sum_ns as f64 / 1e9);
        self.series("_count", labels, None, all);
    }

    fn series(&mut self, suffix: &str, labels: Labels, bound: Option<&str>, value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.family);
        let bound = bound.map(|bound| ("le", bound));
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{before}{name}=\"{value}\"");
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use dataplane::latency::RoundTrips;

    use super::*;

    #[test]
    fn what_would_break_a_line_is_escaped() {
        let mut page = Text::default();
        page.gauge("x_info", "a \\ and\na line").labelled(&[("a", "q\"\\\n"), ("b", "{}")], 1);
        assert_eq!(
            page.into_text(),
            "# HELP x_info a \\\\ and\\na line\n# TYPE x_info gauge\nx_info{a=\"q\\\"\\\\\\n\",b=\"{}\"} 1\n"
        );
    }

    #[test]
    fn buckets_hold_what_is_below_their_bound() {
        let mut durations = RoundTrips::default();
        [1_000, 64_000, 65_000, 60_000_000_000].iter().for_each(|ns| durations.count(*ns));
        let mut page = Text::default();
        page.histogram("x_seconds", "x").durations(&[("side", "client")], &durations);
        let page = page.into_text();
        for line in [
            "x_seconds_bucket{side=\"client\",le=\"0.000064\"} 2\n",
            "x_seconds_bucket{side=\"client\",le=\"0.000128\"} 3\n",
            "x_seconds_bucket{side=\"client\",le=\"8.388608\"} 3\n",
            "x_seconds_bucket{side=\"client\",le=\"+Inf\"} 4\n",
            "x_seconds_sum{side=\"client\"} 60.00013\n",
            "x_seconds_count{side=\"client\"} 4\n",
        ] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
    }
}
