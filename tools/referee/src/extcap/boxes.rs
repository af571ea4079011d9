//! Other boxes that captures can come from: their names, addresses, and the files their tokens lie in.
//!
//! Main thread. Kept in the user's own folder, since Wireshark runs as that user; no token is in the file.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::Call;
use crate::client::{Client, ReachArgs};
use crate::error::Failure;
use crate::term;

/// The name of the box that this is.
pub const THIS: &str = "this";

#[derive(Args)]
pub struct AddArgs {
    /// What it is called in the dialog
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its API, such as https://box:8443
    #[arg(value_name = "URL")]
    pub url: String,
    /// The file that holds the token for it
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// SHA-256 of its certificate, if nobody vouches for that
    #[arg(long, value_name = "HEX")]
    pub fingerprint: Option<String>,
}

/// One box.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    pub url: String,
    pub token_file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Boxes {
    pub named: BTreeMap<String, Known>,
    /// Where this host's run listens, if not at the usual place.
    pub socket: Option<PathBuf>,
}

impl Boxes {
    /// # Errors
    /// Usage: the file can't be read, or is wrong.
    pub fn load() -> Result<Boxes, Failure> {
        let socket = env::var_os("REFEREE_API_SOCKET").map(PathBuf::from);
        let path = file()?;
        if !path.exists() {
            return Ok(Boxes { socket, ..Boxes::default() });
        }
        let failed = |error: String| Failure::usage(format!("{}: {error}", path.display()));
        let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        Ok(Boxes { socket, ..Boxes::parse(&text).map_err(|error| failed(error.to_string()))? })
    }

    pub fn parse(text: &str) -> Result<Boxes, toml::de::Error> {
        Ok(Boxes { named: toml::from_str(text)?, socket: None })
    }

    /// The box that this is.
    pub fn this(&self) -> ReachArgs {
        ReachArgs { socket: self.socket.clone(), ..ReachArgs::default() }
    }

    /// The box that a dialog's values mean.
    ///
    /// # Errors
    /// Usage: there is none of that name.
    pub fn meant(&self, call: &Call) -> Result<ReachArgs, Failure> {
        let text = |name: &str| call.value(name).map(str::to_owned);
        if let Some(url) = text("url") {
            let token_file = call.value("token-file").map(PathBuf::from).or_else(usual_token);
            return Ok(ReachArgs {
                url: Some(url),
                token_file,
                fingerprint: text("fingerprint"),
                socket: None,
            });
        }
        match call.value("box").filter(|name| *name != THIS) {
            None => Ok(self.this()),
            Some(name) => match self.named.get(name) {
                Some(known) => Ok(known.reach()),
                None => Err(Failure::usage(format!("there is no box `{name}`"))
                    .help("referee extcap list names those there are, referee extcap add names another")),
            },
        }
    }
}

impl Known {
    fn reach(&self) -> ReachArgs {
        ReachArgs {
            socket: None,
            url: Some(self.url.clone()),
            token_file: Some(self.token_file.clone()),
            fingerprint: self.fingerprint.clone(),
        }
    }
}

/// `$XDG_CONFIG_HOME/referee`, or where that is without it.
fn folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    base.map(|base| base.join("referee"))
        .ok_or_else(|| Failure::usage("neither HOME nor XDG_CONFIG_HOME is set"))
}

fn file() -> Result<PathBuf, Failure> {
    Ok(folder()?.join("boxes.toml"))
}

/// The token's file where nobody names one.
fn usual_token() -> Option<PathBuf> {
    folder().ok().map(|folder| folder.join("token")).filter(|path| path.exists())
}

/// `referee extcap add NAME URL …`: tries it, then keeps it.
///
/// # Errors
/// Usage: the box is named wrongly, or refuses the token. Failed: it can't be reached, or the file not written.
pub fn add(args: &AddArgs) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if args.name.is_empty() || args.name == THIS || !args.name.chars().all(plain) {
        let what = format!("`{}` can't be a box's name", args.name);
        return Err(Failure::usage(what).help("letters, digits, dots, dashes; `this` is this box"));
    }
    let token_file = fs::canonicalize(&args.token_file)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.token_file.display())))?;
    let known = Known { url: args.url.clone(), token_file, fingerprint: args.fingerprint.clone() };
    let said: serde_json::Value = Client::reach(&known.reach())?.json("/api/v1/version")?;
    let mut boxes = Boxes::load()?;
    boxes.named.insert(args.name.clone(), known);
    save(&file()?, &boxes)?;
    let version = said.get("version").and_then(serde_json::Value::as_str).unwrap_or("?");
    term::note(&format!(
        "{} is referee {version}; it can be chosen in the dialogs of Referee's interfaces",
        args.name
    ));
    Ok(())
}

/// Whole or not at all, and for this user's eyes.
fn save(path: &Path, boxes: &Boxes) -> Result<(), Failure> {
    let failed = |error: String| Failure::failed(format!("{}: {error}", path.display()));
    let text = toml::to_string(&boxes.named).map_err(|error| failed(error.to_string()))?;
    let beside = path.with_extension("new");
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error: std::io::Error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn boxes_are_kept_for_their_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("referee/boxes.toml");
        let known = Known { url: "https://b:1".into(), token_file: "/t".into(), fingerprint: None };
        let boxes = Boxes { named: [("b.east-1".to_owned(), known)].into(), socket: None };
        save(&path, &boxes).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(Boxes::parse(&text).unwrap().named["b.east-1"].url, "https://b:1");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Boxes::parse("[b]\nurl = 1\n").is_err());
    }

    #[test]
    fn the_dialog_names_a_box() {
        let boxes = Boxes::parse("[b]\nurl = \"https://b:1\"\ntoken_file = \"/t\"\n").unwrap();
        let meant = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            boxes.meant(&Call::read(&words)).map(|reach| reach.url)
        };
        assert_eq!(meant("--box b"), Ok(Some("https://b:1".into())));
        assert_eq!(meant("--box this"), Ok(None));
        assert_eq!(meant("--box b --url https://c"), Ok(Some("https://c".into())));
        assert!(meant("--box c").is_err());
    }
}
