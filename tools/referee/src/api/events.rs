//! `events`: what happens, as it happens (server-sent events); whoever was away has what it missed, or is told that
//! something is missing.
//!
//! API thread, a task a follower. Looks at the board a few times a second; nobody there knows who follows.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use tokio::time::Instant;

use super::auth::Role;
use super::body::Pieces;
use super::call::{Answer, Call, bad_parameter, text};
use super::routes::Route;
use crate::board::Event;

pub const ROUTES: &[Route] =
    &[Route::get("/api/v1/events", Role::Read, |call| Box::pin(follow(call))).giving(&["text/event-stream"])];

/// How often it is looked, and after how long a silence a sign of life is sent.
const LOOK: Duration = Duration::from_millis(250);
const SILENCE: Duration = Duration::from_secs(15);
/// Events sent at once.
const AT_ONCE: usize = 256;

async fn follow(call: Call) -> Answer {
    let last = call.headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last = match last {
        None | Some("") => None,
        Some(id) => {
            Some(id.parse().map_err(|_| bad_parameter("Last-Event-ID", id, "the number of an event"))?)
        }
    };
    let place = call.app.limits.stream()?;
    let (sender, body) = Pieces::new(None, Some(place));
    let (board, mut over) = (call.app.board.clone(), call.app.over.clone());
    let mut seq = last.unwrap_or_else(|| board.seq());
    tokio::spawn(async move {
        let (mut sent, mut told) = (Instant::now(), String::from(": \n\n"));
        loop {
            let (events, lost) = board.since(seq, AT_ONCE);
            if lost {
                told.push_str("event: gap\ndata: {}\n\n");
                seq = seq.min(board.seq());
            }
            for event in &events {
                seq = event.seq;
                told.push_str(&line(event));
            }
            if told.is_empty() && sent.elapsed() >= SILENCE {
                told.push_str(": \n\n");
            }
            if !told.is_empty() {
                sent = Instant::now();
                if sender.send(Ok(Bytes::from(std::mem::take(&mut told)))).await.is_err() {
                    return;
                }
            }
            if events.len() < AT_ONCE && tokio::time::timeout(LOOK, over.wait_for(|over| *over)).await.is_ok()
            {
                return;
            }
        }
    });
    let body = if call.head { Body::empty() } else { Body::new(body) };
    Ok(text(StatusCode::OK, "text/event-stream", body))
}

/// JSON has no line breaks of its own.
fn line(event: &Event) -> String {
    format!("event: {}\nid: {}\ndata: {}\n\n", event.name, event.seq, event.data)
}
