//! `[api]` and `[[api.token]]`, checked and typed.
//!
//! Main thread; part of `config`. What is wrong is said with its place.

use std::path::Path;

use super::Reader;
use super::raw;
use crate::api::ApiConfig;
use crate::api::auth::{Grant, Token};

pub fn api(r: &mut Reader<'_>, raw: raw::Api, folder: &Path, c: &mut ApiConfig) {
    let path = |given: Option<String>| given.map(|path| folder.join(path));
    // Empty stays empty: there is to be none.
    c.socket = raw.socket.map(|path| if path.is_empty() { path.into() } else { folder.join(path) });
    (c.group, c.cert, c.key) = (raw.group, path(raw.cert), path(raw.key));
    c.tls = path(raw.tls).unwrap_or_else(|| c.tls.clone());
    c.names = raw.names.unwrap_or_default();
    c.read_captures = raw.read_captures.unwrap_or(true);
    r.set(&mut c.spool_bytes, &raw.spool_mib, "spool_mib", 1..=1 << 24, 1 << 20);
    r.set(&mut c.requests_per_second, &raw.requests_per_second, "requests_per_second", 1..=100_000, 1);
    if let Some(given) = &raw.listen {
        match given.get_ref().parse() {
            Ok(addr) => c.listen = Some(addr),
            Err(_) => {
                r.say(given.span(), "`listen` is an address and a port, such as 192.0.2.1:8443 or [::]:8443")
            }
        }
    }
    for one in raw.token {
        let span = one.span();
        let raw::Token { name, role, sha256 } = one.into_inner();
        let mut grant = Grant::Read;
        r.choose(&mut grant, &role, "role", &[("read", Grant::Read), ("operate", Grant::Operate)]);
        let (Some(name), Some(_), Some(digest)) = (name, role, sha256.as_deref().and_then(digest)) else {
            let needs = "a token has a `name`, a `role` and `sha256`, 64 hexadecimal digits: `referee token NAME` makes one";
            r.say(span, needs);
            continue;
        };
        if c.tokens.iter().any(|token| token.name == name) {
            r.say(span.clone(), &format!("there are two tokens of the name `{name}`"));
        }
        c.tokens.push(Token { name, grant, digest });
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (number, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(number * 2..number * 2 + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn parse(text: &str) -> Result<ApiConfig, String> {
        let parsed = Config::parse("r.toml", text, Path::new("/etc/referee"));
        parsed.map(|config| config.api).map_err(|failure| failure.to_string())
    }

    #[test]
    fn everything_reaches_its_place() {
        let hash = "0f".repeat(32);
        let api = parse(&format!(
            "[api]\nsocket = \"s\"\nlisten = \"[::]:8443\"\nnames = [\"a\"]\nread_captures = false\nspool_mib = 1\n\
             cert = \"/c.pem\"\nkey = \"k.pem\"\n[[api.token]]\nname = \"n\"\nrole = \"operate\"\nsha256 = \"{hash}\"\n"
        ))
        .unwrap();
        assert_eq!(api.socket, Some("/etc/referee/s".into()));
        assert_eq!((api.cert, api.key), (Some("/c.pem".into()), Some("/etc/referee/k.pem".into())));
        assert_eq!((api.listen, api.spool_bytes), ("[::]:8443".parse().ok(), 1 << 20));
        assert_eq!(api.tokens, [Token { name: "n".into(), grant: Grant::Operate, digest: [15; 32] }]);
        assert_eq!(parse("[api]\nsocket = \"\"\n").unwrap().socket, Some("".into()));
        assert_eq!(parse("").unwrap(), ApiConfig::default());
    }

    #[test]
    fn mistakes_have_their_place() {
        let error = parse("[api]\nlisten = \"8443\"\n").unwrap_err();
        assert!(error.starts_with("r.toml:2:10: `listen` is an address"), "{error}");
        for wrong in ["name = \"n\"\nrole = \"read\"\nsha256 = \"abc\"", "name = \"n\"", "role = \"root\""] {
            let error = parse(&format!("[[api.token]]\n{wrong}\n")).unwrap_err();
            assert!(error.contains("r.toml:1:1: a token has"), "{error}");
        }
        assert!(parse("[api]\nlisten_on = \"x\"\n").unwrap_err().contains("did you mean `listen`"));
    }
}
