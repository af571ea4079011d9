//! Whether a client takes what a route gives (RFC 9110 §12.5.1).
//!
//! API thread.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use super::problem::{Kind, Problem};

/// # Errors
/// None of `gives` is taken. Without the header, or one that can't be read, all are.
pub fn any_of(gives: &[&str], headers: &HeaderMap) -> Result<(), Problem> {
    let Some(ranges) = ranges(headers) else { return Ok(()) };
    match gives.is_empty() || gives.iter().any(|kind| takes(&ranges, kind)) {
        true => Ok(()),
        false => {
            let what = format!("this is {}, which the Accept header leaves out", gives.join(" or "));
            Err(Problem::new(Kind::NotAcceptable, what).help("leave the header out, or add it"))
        }
    }
}

/// A type, a subtype, each possibly `*`, and whether it is wanted.
type Range = (String, String, bool);

fn ranges(headers: &HeaderMap) -> Option<Vec<Range>> {
    let mut ranges = Vec::new();
    for value in headers.get_all(ACCEPT) {
        for part in value.to_str().ok()?.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split(';').map(str::trim);
            let (kind, subkind) = fields.next()?.split_once('/')?;
            let weight = fields.find_map(|field| {
                let (name, value) = field.split_once('=')?;
                name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>().ok())
            });
            let wanted = weight.flatten().is_none_or(|weight| weight > 0.0);
            ranges.push((kind.trim().to_ascii_lowercase(), subkind.trim().to_ascii_lowercase(), wanted));
        }
    }
    (!ranges.is_empty()).then_some(ranges)
}

/// By the range that names it most closely.
fn takes(ranges: &[Range], kind: &str) -> bool {
    let (kind, subkind) = kind.split_once('/').unwrap_or((kind, ""));
    for (kind, subkind) in [(kind, subkind), (kind, "*"), ("*", "*")] {
        let mut these = ranges.iter().filter(|(a, b, _)| a == kind && b == subkind).peekable();
        if these.peek().is_some() {
            return these.any(|(.., wanted)| *wanted);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_not_taken() {
        let taken = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            any_of(&["application/json"], &headers).is_ok()
        };
        for good in [
            "*/*",
            "application/json",
            "Application/*",
            "text/html, application/json;q=0.1",
            "",
            "nonsense",
            "application/json; charset=utf-8",
            "text/html,*/*;q=0.8",
            "application/json;q=much",
        ] {
            assert!(taken(good), "{good}");
        }
        for bad in
            ["text/html", "text/*, image/png", "application/json;q=0, */*", "*/*;q=0", "application/xml;q=1"]
        {
            assert!(!taken(bad), "{bad}");
        }
        assert!(any_of(&["application/json"], &HeaderMap::new()).is_ok());
    }
}
