//! `referee web`: an address for a browser, good once and for a minute, that logs it in.
//!
//! Main thread of a process of its own. Asks the run through its Unix socket for a one-time code; the code stands behind the
//! `#`, which browsers send to nobody.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::api::DEFAULT_SOCKET;
use crate::error::Failure;
use crate::term;

/// How long an answer is waited for, and how long it can be.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER: u64 = 64 << 10;

#[derive(Args)]
pub struct WebArgs {
    /// The API's socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// How the browser reaches this box, if not by the name it calls itself: https://box:8443
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Prints it.
///
/// # Errors
/// Failed: nobody answers, or there is no TCP listener. Usage: no URL.
pub fn run(args: &WebArgs) -> Result<(), Failure> {
    let answer = ask(&args.socket).map_err(|error| {
        Failure::failed(format!("nobody answers at {}: {error}", args.socket.display()))
            .help("is `referee run` or `referee serve` under way? --socket names the API's socket")
    })?;
    let link = link(&answer, args.url.as_deref())?;
    term::show(|out| writeln!(out, "{link}"))?;
    term::note("open it within a minute; it logs one browser in, once");
    Ok(())
}

fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = "POST /api/v1/session/codes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Out of a whole HTTP answer.
fn link(answer: &str, url: Option<&str>) -> Result<String, Failure> {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).map_err(|_| {
        Failure::failed("this is no answer of Referee's").help("--socket names the API's socket")
    })?;
    let Some(code) = body["code"].as_str() else {
        return Err(Failure::failed(body["detail"].as_str().unwrap_or("no code was given")));
    };
    let Some(url) = url.or(body["url"].as_str()) else {
        return Err(Failure::usage("this run listens at no TCP port, so no browser can reach it")
            .help("set [api] listen; or, through a tunnel of yours, say how it is reached: --url URL"));
    };
    Ok(format!("{}/#code={code}", url.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_stands_where_it_is_sent_to_nobody() {
        let answer = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{body}");
        let whole = answer("{\"code\":\"abc\",\"url\":\"https://box:1\"}");
        assert_eq!(link(&whole, None).unwrap(), "https://box:1/#code=abc");
        assert_eq!(link(&whole, Some("https://b/")).unwrap(), "https://b/#code=abc");
        assert!(link(&answer("{\"code\":\"abc\",\"url\":null}"), None).is_err());
        assert_eq!(link(&answer("{\"detail\":\"no\"}"), None).unwrap_err().message, "no");
        assert!(link("", None).is_err());
    }
}
