//! Who asks, and what they may: tokens, sessions of browsers, one-time codes, and whoever may open the Unix socket.
//!
//! API thread. Only hashes of secrets are kept, and every one is compared, in constant time, whichever matches.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::limits::Limits;
use super::problem::{Kind, Problem};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing.
    Open,
    Read,
    /// To read what packets hold: as `Read`, unless `[api] read_captures = false`.
    Packets,
    Operate,
    /// To come through the Unix socket.
    Local,
}

/// What a token may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    Read,
    Operate,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Unix { uid: u32 },
    Tcp(IpAddr),
}

impl Peer {
    /// What limits count it by.
    pub fn key(self) -> String {
        match self {
            Peer::Unix { uid } => format!("uid {uid}"),
            Peer::Tcp(addr) => addr.to_string(),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// `None`: nobody known.
    pub grant: Option<Grant>,
    /// Through the Unix socket, by a user of this host.
    pub local: bool,
    /// By a browser's cookie, which goes along with whatever a page makes the browser ask.
    pub by_cookie: bool,
    pub key: String,
}

/// A token as the settings have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub grant: Grant,
    /// SHA-256 of the token's text.
    pub digest: [u8; 32],
}

pub const COOKIE_NAME: &str = "referee";
/// How long a browser stays logged in, how many at once, and how long a one-time code holds.
pub const SESSION: Duration = Duration::from_secs(12 * 3600);
const SESSIONS: usize = 64;
pub const CODE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Secret {
    digest: [u8; 32],
    grant: Grant,
    until: Instant,
}

#[derive(Debug, Default)]
pub struct Auth {
    tokens: Vec<Token>,
    sessions: Mutex<VecDeque<Secret>>,
    codes: Mutex<VecDeque<Secret>>,
}

pub fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 256 random bits as text; `None` if the system gives none.
pub fn fresh() -> Option<String> {
    let mut bytes = [0; 32];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    (got == bytes.len()).then(|| hex(&bytes))
}

/// The number of the digest among others, without a branch that depends on which it is.
fn find<'a>(wanted: &[u8; 32], all: impl Iterator<Item = &'a [u8; 32]>) -> Option<usize> {
    let mut found = 0_u32;
    for (number, one) in (1..).zip(all) {
        let same: Choice = wanted.ct_eq(one);
        found.conditional_assign(&number, same);
    }
    (found as usize).checked_sub(1)
}

/// What a user of this host may who opened the Unix socket: root and whose it is, all; its group, to read.
fn at_socket(uid: u32) -> Grant {
    match uid == 0 || uid == rustix::process::geteuid().as_raw() {
        true => Grant::Operate,
        false => Grant::Read,
    }
}

impl Auth {
    pub fn new(tokens: Vec<Token>) -> Auth {
        Auth { tokens, ..Auth::default() }
    }

    /// Who a request's headers say it is. What is presented and unknown counts as a failed login.
    pub fn who(&self, peer: Peer, headers: &HeaderMap, limits: &Limits) -> Result<Who, Problem> {
        if let Peer::Unix { uid } = peer {
            return Ok(Who { grant: Some(at_socket(uid)), local: true, by_cookie: false, key: peer.key() });
        }
        let nobody = Who { grant: None, local: false, by_cookie: false, key: peer.key() };
        if let Some(given) = headers.get(AUTHORIZATION) {
            let token = given.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
            return match token.and_then(|token| self.token(token.trim())) {
                Some(token) => {
                    Ok(Who { grant: Some(token.grant), key: format!("token {}", token.name), ..nobody })
                }
                None => Err(self.failed(peer, limits, "this token is not known here")),
            };
        }
        let Some(cookie) = cookie(headers) else { return Ok(nobody) };
        let digest = digest(cookie);
        // A session that has ended is nobody's, not an attempt.
        Ok(match session(&self.sessions, &digest) {
            Some(grant) => Who {
                grant: Some(grant),
                by_cookie: true,
                key: format!("session {}", hex(&digest[..8])),
                ..nobody
            },
            None => nobody,
        })
    }

    fn failed(&self, peer: Peer, limits: &Limits, what: &str) -> Problem {
        match limits.login_failed(&peer.key()) {
            Ok(()) => unauthorized(what),
            Err(problem) => problem,
        }
    }

    fn token(&self, text: &str) -> Option<&Token> {
        let number = find(&digest(text), self.tokens.iter().map(|token| &token.digest))?;
        self.tokens.get(number)
    }

    /// A one-time code for a browser, which may what its maker may.
    pub fn code(&self, grant: Grant) -> Option<String> {
        let code = fresh()?;
        remember(&self.codes, Secret { digest: digest(&code), grant, until: Instant::now() + CODE });
        Some(code)
    }

    /// A session for a token or a code, which is used up by it. Gives the cookie's secret.
    pub fn log_in(
        &self,
        peer: Peer,
        secret: &str,
        is_code: bool,
        limits: &Limits,
    ) -> Result<(String, Grant), Problem> {
        let grant = match is_code {
            true => taken(&self.codes, &digest(secret)),
            false => self.token(secret).map(|token| token.grant),
        };
        let Some(grant) = grant else {
            return Err(self.failed(
                peer,
                limits,
                "this token or code is not known here, or its time is over",
            ));
        };
        let Some(session) = fresh() else {
            return Err(Problem::new(Kind::Busy, "the system gives no random numbers"));
        };
        remember(&self.sessions, Secret { digest: digest(&session), grant, until: Instant::now() + SESSION });
        Ok((session, grant))
    }

    pub fn log_out(&self, headers: &HeaderMap) {
        if let Some(cookie) = cookie(headers) {
            taken(&self.sessions, &digest(cookie));
        }
    }
}

pub fn unauthorized(what: &str) -> Problem {
    Problem::new(Kind::Unauthorized, what)
        .help("Authorization: Bearer TOKEN; `referee token NAME --role read` makes one")
        .header(axum::http::header::WWW_AUTHENTICATE, "Bearer realm=\"referee\"")
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

fn remember(secrets: &Mutex<VecDeque<Secret>>, secret: Secret) {
    let mut secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
    secrets.retain(|secret| secret.until > Instant::now());
    if secrets.len() == SESSIONS {
        secrets.pop_front();
    }
    secrets.push_back(secret);
}

fn session(secrets: &Mutex<VecDeque<Secret>>, digest: &[u8; 32]) -> Option<Grant> {
    let secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
    let number = find(digest, secrets.iter().map(|secret| &secret.digest))?;
    secrets.get(number).filter(|secret| secret.until > Instant::now()).map(|secret| secret.grant)
}

fn taken(secrets: &Mutex<VecDeque<Secret>>, digest: &[u8; 32]) -> Option<Grant> {
    let mut secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
    let number = find(digest, secrets.iter().map(|secret| &secret.digest))?;
    secrets.remove(number).filter(|secret| secret.until > Instant::now()).map(|secret| secret.grant)
}

impl Who {
    /// # Errors
    /// What is missing.
    pub fn may(&self, role: Role, read_captures: bool) -> Result<(), Problem> {
        let needed = match role {
            Role::Open => return Ok(()),
            Role::Local if self.local => return Ok(()),
            Role::Local => {
                let what = "this is answered through the Unix socket only";
                return Err(Problem::new(Kind::Forbidden, what).help("ask on the box itself"));
            }
            Role::Read => Grant::Read,
            Role::Packets if read_captures => Grant::Read,
            Role::Packets | Role::Operate => Grant::Operate,
        };
        match self.grant {
            None => Err(unauthorized("nobody said who asks")),
            Some(grant) if grant >= needed => Ok(()),
            Some(_) => {
                Err(Problem::new(Kind::Forbidden, "the role `read` may not do that").help(match self.local {
                    true => "ask as root, or as the user that runs referee",
                    false => "use a token of the role `operate`",
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth() -> Auth {
        let token = |name: &str, grant| Token { name: name.into(), grant, digest: digest(name) };
        Auth::new(vec![
            token("first", Grant::Read),
            token("second", Grant::Operate),
            token("third", Grant::Read),
        ])
    }

    fn asked(auth: &Auth, name: &str, value: &str) -> Result<Who, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(axum::http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        auth.who(Peer::Tcp("192.0.2.1".parse().unwrap()), &headers, &Limits::new(20))
    }

    #[test]
    fn every_token_is_found_wherever_it_stands() {
        let auth = auth();
        for (name, grant) in [("first", Grant::Read), ("second", Grant::Operate), ("third", Grant::Read)] {
            let who = asked(&auth, "authorization", &format!("Bearer {name}")).unwrap();
            assert_eq!((who.grant, who.key), (Some(grant), format!("token {name}")));
        }
        for wrong in ["Bearer fourth", "Bearer ", "Bearer", "Basic first", "first"] {
            assert_eq!(asked(&auth, "authorization", wrong).unwrap_err().status(), 401, "{wrong}");
        }
        assert_eq!(asked(&auth, "x-other", "1").unwrap().grant, None);
    }

    #[test]
    fn failed_logins_are_numbered() {
        let (auth, limits, peer) = (auth(), Limits::new(20), Peer::Tcp("192.0.2.1".parse().unwrap()));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer wrong".parse().unwrap());
        let statuses: Vec<u16> =
            (0..12).map(|_| auth.who(peer, &headers, &limits).unwrap_err().status()).collect();
        assert_eq!(statuses, [401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 429, 429]);
        // The right one is not kept out by it.
        headers.insert(AUTHORIZATION, "Bearer second".parse().unwrap());
        assert!(auth.who(peer, &headers, &limits).is_ok());
    }

    #[test]
    fn a_code_is_good_once_and_a_session_until_it_is_left() {
        let (auth, limits, peer) = (auth(), Limits::new(20), Peer::Tcp("192.0.2.1".parse().unwrap()));
        let code = auth.code(Grant::Operate).unwrap();
        let (session, grant) = auth.log_in(peer, &code, true, &limits).unwrap();
        assert_eq!(grant, Grant::Operate);
        assert_eq!(auth.log_in(peer, &code, true, &limits).unwrap_err().status(), 401);
        // A code is no token and a token no code.
        assert!(auth.log_in(peer, "first", true, &limits).is_err());
        assert!(auth.log_in(peer, "first", false, &limits).is_ok());
        let who = asked(&auth, "cookie", &format!("other=1; referee={session}")).unwrap();
        assert!(who.by_cookie && who.grant == Some(Grant::Operate));
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, format!("referee={session}").parse().unwrap());
        auth.log_out(&headers);
        assert_eq!(asked(&auth, "cookie", &format!("referee={session}")).unwrap().grant, None);
    }

    #[test]
    fn roles_include_the_lower_ones() {
        let who = |grant| Who { grant, local: false, by_cookie: false, key: String::new() };
        let status = |grant, role| who(grant).may(role, false).err().map_or(200, |problem| problem.status());
        assert_eq!(status(None, Role::Open), 200);
        assert_eq!(status(None, Role::Read), 401);
        assert_eq!(status(Some(Grant::Read), Role::Read), 200);
        assert_eq!(status(Some(Grant::Read), Role::Packets), 403);
        assert!(who(Some(Grant::Read)).may(Role::Packets, true).is_ok());
        assert_eq!(status(Some(Grant::Read), Role::Operate), 403);
        assert_eq!(status(Some(Grant::Operate), Role::Operate), 200);
        assert_eq!(status(Some(Grant::Operate), Role::Local), 403);
    }

    #[test]
    fn at_the_socket_only_root_and_its_owner_operate() {
        let auth = auth();
        let own = rustix::process::geteuid().as_raw();
        for (uid, grant) in [(0, Grant::Operate), (own, Grant::Operate), (own + 4242, Grant::Read)] {
            let who = auth.who(Peer::Unix { uid }, &HeaderMap::new(), &Limits::new(20)).unwrap();
            assert!(who.local && who.grant == Some(grant), "{who:?}");
        }
        let limits = Limits::new(20);
        let code = auth.code(Grant::Read).unwrap();
        let (_, grant) = auth.log_in(Peer::Unix { uid: 0 }, &code, true, &limits).unwrap();
        assert_eq!(grant, Grant::Read, "a code is worth no more than who asked for it");
    }
}
