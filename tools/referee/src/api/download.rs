//! A file going out: whole, or the part that was asked for (RFC 9110 §14), or as it comes.
//!
//! API thread; pieces are read on threads for files.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use dataplane::record::{Query, Store};
use tokio::sync::OwnedSemaphorePermit;

use super::body::{PIECE, Pieces, Sink};
use super::call::{Answer, Call, text};
use super::jobs::{Waiting, unreadable};
use super::problem::{Kind, Problem};
use super::spool::{Spooled, export_to};

pub const PCAPNG: &str = "application/x-pcapng";

/// Which bytes go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// First and last byte.
    Range(u64, u64),
    /// There are none of these.
    None,
}

/// One range of bytes; several at once, and what is no range of bytes, are as if they had not been asked for.
fn part(range: Option<&str>, len: u64) -> Part {
    let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return Part::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            Ok(0) => Part::None,
            Ok(_) if len == 0 => Part::None,
            Ok(most) => Part::Range(len.saturating_sub(most), len - 1),
            Err(_) => Part::Whole,
        },
        (first, last) => match (number(first), if last.is_empty() { Ok(u64::MAX) } else { number(last) }) {
            (Ok(first), Ok(last)) if first > last => Part::Whole,
            (Ok(first), Ok(_)) if first >= len => Part::None,
            (Ok(first), Ok(last)) => Part::Range(first, last.min(len - 1)),
            _ => Part::Whole,
        },
    }
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn put(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What is made ready, to a client that may want only a part of it.
pub fn send(call: &Call, spooled: Arc<Spooled>, name: &str, place: OwnedSemaphorePermit) -> Answer {
    let (len, etag) = (spooled.len, spooled.etag.clone());
    let known = header(&call.headers, IF_NONE_MATCH);
    if known.is_some_and(|known| known == "*" || known.split(',').any(|one| one.trim() == etag)) {
        let mut response = text(StatusCode::NOT_MODIFIED, PCAPNG, Body::empty());
        put(&mut response, ETAG, &etag);
        return Ok(response);
    }
    // Only the rest of the same file fits what is there already.
    let fits = header(&call.headers, IF_RANGE).is_none_or(|known| known == etag);
    let (status, first, last) = match part(header(&call.headers, RANGE).filter(|_| fits), len) {
        Part::Whole => (StatusCode::OK, 0, len.saturating_sub(1)),
        Part::Range(first, last) => (StatusCode::PARTIAL_CONTENT, first, last),
        Part::None => {
            let problem = Problem::new(Kind::BadRange, format!("it has {len} bytes"));
            return Err(problem.header(CONTENT_RANGE, &format!("bytes */{len}")));
        }
    };
    let length = if len == 0 { 0 } else { last - first + 1 };
    let body = if call.head { Body::empty() } else { pieces(spooled, first, length, place) };
    let mut response = text(status, PCAPNG, body);
    put(&mut response, ETAG, &etag);
    put(&mut response, ACCEPT_RANGES, "bytes");
    put(&mut response, CONTENT_LENGTH, &length.to_string());
    put(&mut response, CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}\""));
    if status == StatusCode::PARTIAL_CONTENT {
        put(&mut response, CONTENT_RANGE, &format!("bytes {first}-{last}/{len}"));
    }
    Ok(response)
}

fn pieces(spooled: Arc<Spooled>, mut at: u64, mut left: u64, place: OwnedSemaphorePermit) -> Body {
    let (sender, body) = Pieces::new(Some(left), Some(place));
    tokio::spawn(async move {
        while left > 0 {
            let (from, most) = (Arc::clone(&spooled), usize::try_from(left).unwrap_or(usize::MAX).min(PIECE));
            let read = tokio::task::spawn_blocking(move || from.read(at, most)).await;
            let piece = read.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()));
            let piece = piece.and_then(|piece| match piece.is_empty() {
                true => Err(std::io::ErrorKind::UnexpectedEof.into()),
                false => Ok(piece),
            });
            let (len, failed) = (piece.as_ref().map_or(0, Vec::len) as u64, piece.is_err());
            if sender.send(piece.map(Into::into)).await.is_err() || failed {
                return;
            }
            (at, left) = (at + len, left - len);
        }
    });
    Body::new(body)
}

/// A file as it is being made: its length is not known, and what goes wrong under way ends it.
pub async fn stream(call: &Call, query: Query, name: &str, place: OwnedSemaphorePermit) -> Answer {
    let Some(folder) = call.app.store.clone() else {
        return Err(Problem::new(Kind::NoStore, "nothing is recorded here"));
    };
    let job = call.app.limits.job().await?;
    let (sender, body) = Pieces::new(None, Some(place));
    let (begun, beginning) = tokio::sync::oneshot::channel();
    let (waiting, given_up) = Waiting::begin();
    tokio::task::spawn_blocking(move || {
        let _job = job;
        let mut out = Begun { sink: Sink::new(sender), begun: Some(begun) };
        let exported = Store::open(&folder).map_err(unreadable).and_then(|store| {
            export_to(&store, &query, &given_up, &mut out).map_err(super::jobs::unexported)
        });
        match (exported, out.begun.take()) {
            // Nothing has gone out: it can still be said.
            (Err(problem), Some(begun)) => drop(begun.send(Err(problem))),
            (Err(_), None) => out.sink.fail(std::io::ErrorKind::Other.into()),
            (Ok(()), begun) => {
                begun.map(|begun| begun.send(Ok(())));
                let _ = std::io::Write::flush(&mut out.sink);
            }
        }
    });
    beginning
        .await
        .unwrap_or_else(|_| Err(Problem::new(Kind::Internal, "a job failed; this is a fault of Referee")))?;
    // From here on its body says whether somebody is there.
    waiting.over();
    let mut response = text(StatusCode::OK, PCAPNG, if call.head { Body::empty() } else { Body::new(body) });
    put(&mut response, CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}\""));
    Ok(response)
}

/// Says that the first bytes are there.
struct Begun {
    sink: Sink,
    begun: Option<tokio::sync::oneshot::Sender<Result<(), Problem>>>,
}

impl std::io::Write for Begun {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(begun) = self.begun.take() {
            let _ = begun.send(Ok(()));
        }
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_the_rfc_has_them() {
        let cases = [
            (None, Part::Whole),
            (Some("bytes=0-0"), Part::Range(0, 0)),
            (Some("bytes=10-19"), Part::Range(10, 19)),
            (Some("bytes=90-"), Part::Range(90, 99)),
            (Some("bytes=99-500"), Part::Range(99, 99)),
            (Some("bytes=-1"), Part::Range(99, 99)),
            (Some("bytes=-500"), Part::Range(0, 99)),
            (Some("bytes=100-"), Part::None),
            (Some("bytes=-0"), Part::None),
            (Some("bytes=5-4"), Part::Whole),
            (Some("bytes=0-1,5-6"), Part::Whole),
            (Some("bytes=x-"), Part::Whole),
            (Some("items=0-1"), Part::Whole),
            (Some("bytes=99999999999999999999-"), Part::Whole),
        ];
        for (range, expected) in cases {
            assert_eq!(part(range, 100), expected, "{range:?}");
        }
        assert_eq!(part(Some("bytes=0-0"), 0), Part::None);
        assert_eq!(part(Some("bytes=-5"), 0), Part::None);
    }
}
