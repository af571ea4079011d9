//! `captures/live`: the packets that the run keeps, or those of one capture on demand, as they reach the disk; one pcapng
//! without end.
//!
//! The handler is API thread's; each stream has a thread that reads the store as anybody could, and a task that says when it
//! is over. A reader that is slow holds up its own stream and nobody else; what became of each is counted on the board.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::StatusCode;
use dataplane::filter::Selection;
use dataplane::record::follow::{Following, Reins, live};
use dataplane::record::{ExportError, Recorded, Store};

use super::App;
use super::auth::Role;
use super::body::{Pieces, Sink};
use super::call::{Answer, Call, bad_parameter, flow_id, text};
use super::demands::{refused, standing};
use super::download::PCAPNG;
use super::problem::{Kind, Problem};
use super::routes::Route;
use crate::board::streams::Ending;
use crate::control::demands::{DemandState, Stage};
use crate::control::expression::selection;

pub const ROUTES: &[Route] =
    &[Route::get("/api/v1/captures/live", Role::Packets, |call| Box::pin(follow(call)))
        .with(&["expression", "demand"])
        .giving(&[PCAPNG])];

/// How often it is looked how a capture on demand stands.
const LOOK: Duration = Duration::from_millis(500);
/// Looks after history was gone through until what was found there has reached the disk: a chunk waits for a second.
const REACHES_DISK: u32 = 6;
/// A file's time may be behind the clock's by so much.
const COARSE: Duration = Duration::from_secs(1);

async fn follow(call: Call) -> Answer {
    call.app.live()?;
    let demand = match (call.param("demand"), call.param("expression")) {
        (Some(_), Some(expression)) => {
            return Err(bad_parameter("expression", expression, "it without `demand`"));
        }
        (Some(id), None) => Some(standing(&call, id).await?),
        (None, _) => None,
    };
    let expression = call.param("expression").map(str::to_owned);
    let links: Vec<u16> = call.app.interfaces.iter().map(|interface| interface.link_number).collect();
    let prepare = move |store: &Store, _: &_| {
        let chosen = expression.filter(|expression| !expression.trim().is_empty());
        let chosen = chosen.map(|expression| selection(&expression, &links)).transpose().map_err(refused)?;
        Ok((store.clone(), chosen))
    };
    let (store, chosen) = call.app.job(prepare).await?;
    let place = call.app.limits.live()?;
    if call.head {
        return Ok(text(StatusCode::OK, PCAPNG, Body::empty()));
    }
    let following = following(&call.app, chosen, demand.as_ref());
    let (sender, body) = Pieces::new(None, Some(place));
    let reins = Arc::new(Reins::default());
    reins.hold(demand.is_some());
    let (of_thread, board) = (Arc::clone(&reins), Arc::clone(&call.app.board));
    let read = move || {
        let open = board.streams.begin();
        let mut sink = Sink::new(sender);
        let followed = live(&store, following, &of_thread, &mut sink);
        open.end(match &followed {
            Ok(followed) if followed.overtaken => Ending::Overtaken,
            Ok(_) => Ending::Over,
            Err(ExportError::Output(_)) => Ending::Left,
            Err(_) => Ending::Failed,
        });
        if let Err(error) = followed {
            sink.fail(std::io::Error::other(error));
        }
    };
    thread::Builder::new()
        .name("api-live".to_owned())
        .spawn(read)
        .map_err(|error| Problem::new(Kind::Busy, format!("no thread can be made: {error}")))?;
    tokio::spawn(steer(call, demand, reins));
    Ok(text(StatusCode::OK, PCAPNG, Body::new(body)))
}

/// What a stream shows.
fn following(app: &App, chosen: Option<Selection>, demand: Option<&DemandState>) -> Following {
    let wants: Box<dyn Fn(&Recorded<'_>) -> bool + Send> = match (demand, chosen) {
        (Some(demand), _) => {
            let id = flow_id(&demand.id);
            Box::new(move |packet| Some(packet.flow_id) == id)
        }
        (None, Some(chosen)) => Box::new(move |packet| {
            let interface = packet.interface;
            chosen.wants(interface.link, interface.link_number, packet.bytes, packet.orig_len)
        }),
        (None, None) => Box::new(|_| true),
    };
    let begun = |demand: &DemandState| UNIX_EPOCH + Duration::from_nanos(demand.begun_ns);
    let since = demand.and_then(|demand| begun(demand).checked_sub(COARSE));
    Following { interfaces: app.interfaces.to_vec(), wants, since }
}

/// Ends a stream with the run, or once all of its demand is out.
async fn steer(call: Call, demand: Option<DemandState>, reins: Arc<Reins>) {
    let (mut over, mut scanned) = (call.app.over.clone(), 0);
    // The other one is the thread's.
    while Arc::strong_count(&reins) > 1 {
        if tokio::time::timeout(LOOK, over.wait_for(|over| *over)).await.is_ok() {
            break;
        }
        let Some(demand) = &demand else { continue };
        // Without an answer the run is about to be over.
        let Ok(state) = standing(&call, &demand.id).await else { continue };
        scanned += u32::from(state.scanned);
        reins.hold(scanned < REACHES_DISK);
        if state.state == Stage::Done {
            break;
        }
    }
    reins.stop();
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, Response};
    use http_body_util::BodyExt;

    use super::super::auth::Peer;
    use super::super::testing::{Tried, tried};
    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    async fn stream(tried: &Tried, query: &str) -> Response<Body> {
        let request = Request::builder().uri(format!("/api/v1/captures/live{query}"));
        tried.raw(Peer::Unix { uid: 0 }, request.body(Body::empty()).unwrap()).await
    }

    async fn piece(response: &mut Response<Body>) -> Option<Vec<u8>> {
        let frame = response.body_mut().frame().await?.unwrap();
        Some(frame.into_data().unwrap().to_vec())
    }

    async fn counted(tried: &Tried, what: impl Fn(&[u64; 4]) -> bool) {
        while !what(&tried.app.board.streams.now().ended) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn it_begins_at_once_and_ends_whole_with_the_run() {
        run(async {
            let tried = tried(true, |_| {});
            let mut response = stream(&tried, "").await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["content-type"], PCAPNG);
            let first = piece(&mut response).await.unwrap();
            assert_eq!(first[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
            let section = u32::from_le_bytes(first[4..8].try_into().unwrap()) as usize;
            assert_eq!(first[section..section + 4], [1, 0, 0, 0], "and the interface");
            assert_eq!(tried.app.board.streams.now().open, 1);
            tried.over.send(true).unwrap();
            assert_eq!(piece(&mut response).await, None, "what was there before is passed over");
            counted(&tried, |ended| *ended == [1, 0, 0, 0]).await;
            drop(response);
            tried.app.limits.none_live().await;
        });
    }

    #[test]
    fn who_leaves_is_noticed_though_nothing_comes_and_gives_a_place_back() {
        run(async {
            let tried = tried(true, |_| {});
            let mut all = Vec::new();
            for _ in 0..4 {
                all.push(stream(&tried, "").await);
            }
            let status = |response: Response<Body>| response.status().as_u16();
            assert_eq!(status(stream(&tried, "").await), 429);
            for response in &mut all {
                piece(response).await.unwrap();
            }
            drop(all);
            counted(&tried, |ended| *ended == [0, 4, 0, 0]).await;
            assert_eq!(status(stream(&tried, "").await), 200);
        });
    }

    #[test]
    fn what_can_not_be_followed_is_said() {
        run(async {
            let (live, store) = (tried(true, |_| {}), tried(false, |_| {}));
            let path = |query: &str| format!("/api/v1/captures/live{query}");
            let problem = async |tried: &Tried, query: &str| {
                let answered = tried.get(&path(query)).await;
                (answered.status, answered.json()["type"].as_str().unwrap_or_default().to_owned())
            };
            let is = |status, name: &str| (status, format!("/problems/{name}"));
            assert_eq!(problem(&store, "").await, is(409, "no-run"));
            assert_eq!(problem(&live, "?expression=port%20port").await, is(400, "bad-expression"));
            assert_eq!(problem(&live, "?expression=host%20a.b").await, is(400, "bad-expression"));
            assert_eq!(problem(&live, "?expression=tcp&demand=0a").await, is(400, "bad-parameter"));
            assert_eq!(problem(&live, "?demand=00000000000000aa").await, is(409, "no-run"));
            std::fs::remove_dir_all(live.folder.path().join("segments")).unwrap();
            assert_eq!(problem(&live, "").await, is(409, "store-unreadable"));
        });
    }
}
