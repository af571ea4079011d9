//! The page: `/`, and what it consists of, `/assets/{hash}/{name}`. All of it is part of the program.
//!
//! API thread. The hash is of all files, so that a browser may keep what it has for as long as it likes; `/` it asks for
//! each time.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
};
use axum::http::{Response, StatusCode};
use sha2::{Digest, Sha256};

use super::auth::{Role, hex};
use super::call::{Answer, Call, text};
use super::problem::{Kind, Problem};
use super::routes::Route;

pub const ROUTES: &[Route] = &[
    // `theme` and `still` are read by the page itself.
    Route::get("/", Role::Open, |call| Box::pin(index(call))).with(&["theme", "still"]).giving(&[]),
    Route::get("/assets/{hash}/{name}", Role::Open, |call| Box::pin(asset(call))).giving(&[]),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";
const PAGE: &str = "text/html; charset=utf-8";

/// Nothing but our own files, and nothing that was written into the page by what came off the wire.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const INDEX: &str = include_str!("../web/index.html");

/// Name, type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("api.js", SCRIPT, include_str!("../web/api.js")),
    ("app.js", SCRIPT, include_str!("../web/app.js")),
    ("books.js", SCRIPT, include_str!("../web/books.js")),
    ("captures.js", SCRIPT, include_str!("../web/captures.js")),
    ("card.js", SCRIPT, include_str!("../web/card.js")),
    ("charts.js", SCRIPT, include_str!("../web/charts.js")),
    ("dom.js", SCRIPT, include_str!("../web/dom.js")),
    ("evidence.js", SCRIPT, include_str!("../web/evidence.js")),
    ("icon.svg", PICTURE, include_str!("../web/icon.svg")),
    ("incident.js", SCRIPT, include_str!("../web/incident.js")),
    ("incidents.js", SCRIPT, include_str!("../web/incidents.js")),
    ("ladder.js", SCRIPT, include_str!("../web/ladder.js")),
    ("ladder-view.js", SCRIPT, include_str!("../web/ladder-view.js")),
    ("latency.js", SCRIPT, include_str!("../web/latency.js")),
    ("login.js", SCRIPT, include_str!("../web/login.js")),
    ("now.js", SCRIPT, include_str!("../web/now.js")),
    ("proof.js", SCRIPT, include_str!("../web/proof.js")),
    ("rule-box.js", SCRIPT, include_str!("../web/rule-box.js")),
    ("rule-editor.js", SCRIPT, include_str!("../web/rule-editor.js")),
    ("rules.js", SCRIPT, include_str!("../web/rules.js")),
    ("sequence.js", SCRIPT, include_str!("../web/sequence.js")),
    ("sequence-view.js", SCRIPT, include_str!("../web/sequence-view.js")),
    ("style.css", STYLE, include_str!("../web/style.css")),
    ("theme.js", SCRIPT, include_str!("../web/theme.js")),
    ("traffic.js", SCRIPT, include_str!("../web/traffic.js")),
    ("words.js", SCRIPT, include_str!("../web/words.js")),
];

static HASH: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new_with_prefix(INDEX);
    FILES.iter().for_each(|(name, _, content)| hash.update(format!("{name} {} {content}", content.len())));
    hex(&hash.finalize()[..8])
});

static START: LazyLock<String> = LazyLock::new(|| INDEX.replace("{hash}", &HASH));

async fn index(call: Call) -> Answer {
    Ok(kept(&call, PAGE, &START, "no-cache"))
}

async fn asset(call: Call) -> Answer {
    let name = call.path("name");
    let Some(&(_, kind, content)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Err(Problem::new(Kind::NotFound, "the page has no such file"));
    };
    // A page of an earlier program asks for what was part of that one.
    let current = call.path("hash") == HASH.as_str();
    Ok(kept(&call, kind, content, if current { "public, max-age=31536000, immutable" } else { "no-store" }))
}

fn kept(call: &Call, kind: &'static str, content: &'static str, keep: &'static str) -> Response<Body> {
    let etag = format!("\"{}\"", HASH.as_str());
    let asked = call.headers.get(IF_NONE_MATCH).and_then(|given| given.to_str().ok()).unwrap_or("");
    let known = asked.split(',').any(|one| one.trim().trim_start_matches("W/") == etag || one.trim() == "*");
    let mut response = match known {
        true => text(StatusCode::NOT_MODIFIED, kind, Body::empty()),
        false => text(StatusCode::OK, kind, content),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::super::testing::tried;
    use super::*;

    #[test]
    fn every_file_of_the_page_is_in_it_and_no_other() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !["index.html", "package.json", "test"].contains(&name.as_str()))
            .collect();
        there.sort();
        let mut known: Vec<&str> = FILES.iter().map(|(name, ..)| *name).collect();
        known.sort_unstable();
        assert_eq!(known, there);
    }

    #[test]
    fn what_is_imported_is_there() {
        let known = |name: &str| FILES.iter().any(|(known, ..)| *known == name);
        for (file, _, content) in FILES {
            for (_, rest) in content.match_indices(" from \"").map(|(at, _)| content.split_at(at)) {
                let name = rest.split('"').nth(1).and_then(|path| path.strip_prefix("./")).unwrap();
                assert!(known(name), "{file} imports {name}");
            }
        }
        for piece in INDEX.split("/assets/{hash}/").skip(1) {
            assert!(known(piece.split('"').next().unwrap()), "index.html: {piece:.40}");
        }
    }

    #[test]
    fn nothing_becomes_markup() {
        let ways = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "new Function",
        ];
        for (file, _, content) in FILES {
            for way in
                ways.iter().chain(&["setAttribute(\"style\"", "createContextualFragment", "javascript:"])
            {
                assert!(!content.contains(way), "{file} uses {way}: what comes off the wire is text, always");
            }
        }
        assert!(!INDEX.contains("<style") && !INDEX.contains(" onload=") && !INDEX.contains("<script>"));
        let foreign = |content: &str| content.contains("https://") || content.contains("http://");
        let namespaces = |content: &str| content.replace("http://www.w3.org/2000/svg", "");
        for (file, _, content) in FILES {
            assert!(!foreign(&namespaces(content)), "{file} names another host");
        }
    }

    #[tokio::test]
    async fn a_browser_keeps_what_it_has() {
        let tried = tried(false, |_| ());
        let page = tried.get("/").await;
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!((page.header("cache-control"), page.header("content-type")), ("no-cache", PAGE));
        let script = format!("/assets/{}/app.js", HASH.as_str());
        assert!(page.text().contains(&script));
        let script = tried.get(&script).await;
        assert!(script.header("cache-control").contains("immutable"));
        assert_eq!((script.status, script.header("content-type")), (200, SCRIPT));
        let etag = script.header("etag").to_owned();
        let again =
            tried.ask(super::super::testing::tcp(), "GET", "/", &[("if-none-match", &etag)], "").await;
        assert_eq!((again.status, again.text().as_str()), (304, ""));
        assert_eq!(tried.get("/assets/older/app.js").await.header("cache-control"), "no-store");
        assert_eq!(tried.get("/assets/older/none.js").await.status, 404);
    }
}
