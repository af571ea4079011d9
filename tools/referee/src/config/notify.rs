//! `[notify]` of referee.toml, checked and typed: who is told of incidents, of which, and how often.
//!
//! Main thread, before any other exists. What is named here is opened by `notify`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use rules::Severity;
use toml::Spanned;

use super::Reader;
use super::raw::{self, Number};

/// Longest name of a webhook.
const NAME: usize = 40;

/// Everything about telling others.
#[derive(Clone, Debug)]
pub struct NotifyConfig {
    pub wanted: Wanted,
    /// EVE's `event_type`.
    pub event_type: &'static str,
    /// Where people find an incident's page, without `#/incident/ID`.
    pub page: Option<String>,
    pub file: Option<FileConfig>,
    pub stdout: Option<StdoutConfig>,
    pub syslog: Option<SyslogConfig>,
    pub webhooks: Vec<WebhookConfig>,
}

/// Which incidents are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub min_severity: Severity,
    /// Of these kinds only; of all if it is empty.
    pub kinds: BTreeSet<String>,
    pub open: bool,
    pub closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    pub path: PathBuf,
    /// 0 for no limit, here as everywhere.
    pub per_minute: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StdoutConfig {
    pub per_minute: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogConfig {
    pub socket: PathBuf,
    /// As in a datagram's priority.
    pub facility: u8,
    pub per_minute: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    pub name: String,
    pub url: Uri,
    /// Headers to send, a line each.
    pub header_file: Option<PathBuf>,
    /// What bodies are signed with.
    pub secret_file: Option<PathBuf>,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    pub per_minute: u32,
    pub timeout: Duration,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        NotifyConfig {
            wanted: Wanted {
                min_severity: Severity::Warning,
                kinds: BTreeSet::new(),
                open: true,
                closed: true,
            },
            event_type: "incident",
            page: None,
            file: None,
            stdout: None,
            syslog: None,
            webhooks: Vec::new(),
        }
    }
}

impl NotifyConfig {
    /// Nobody is to be told.
    pub fn is_empty(&self) -> bool {
        self.file.is_none() && self.stdout.is_none() && self.syslog.is_none() && self.webhooks.is_empty()
    }
}

const FACILITIES: [(&str, u8); 12] = [
    ("user", 1),
    ("daemon", 3),
    ("auth", 4),
    ("authpriv", 10),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

pub(super) fn notify(r: &mut Reader<'_>, raw: raw::Notify, folder: &Path, c: &mut NotifyConfig) {
    let severities = Severity::ALL.map(|severity| (severity.as_str(), severity));
    r.choose(&mut c.wanted.min_severity, &raw.min_severity, "min_severity", &severities);
    c.wanted.kinds = raw.kinds.into_iter().collect();
    if let Some(states) = &raw.states {
        let named = |state: &str| states.get_ref().iter().any(|given| given == state);
        (c.wanted.open, c.wanted.closed) = (named("open"), named("closed"));
        let known = states.get_ref().iter().all(|state| ["open", "closed"].contains(&state.as_str()));
        if !known || states.get_ref().is_empty() {
            r.say(states.span(), "`states` names \"open\", \"closed\", or both");
        }
    }
    let types = [("incident", "incident"), ("alert", "alert")];
    r.choose(&mut c.event_type, &raw.event_type, "event_type", &types);
    if let Some(page) = &raw.page {
        match web(page.get_ref()) {
            Some(_) => c.page = Some(page.get_ref().trim_end_matches('/').to_owned()),
            None => r.say(page.span(), "`page` is where this box's page is, such as \"https://box:8443\""),
        }
    }
    c.file = raw.file.map(|file| FileConfig {
        path: folder.join(file.path),
        per_minute: per_minute(r, &file.per_minute, 0),
    });
    c.stdout = raw.stdout.map(|out| StdoutConfig { per_minute: per_minute(r, &out.per_minute, 0) });
    c.syslog = raw.syslog.map(|log| {
        let mut facility = 3;
        r.choose(&mut facility, &log.facility, "facility", &FACILITIES);
        SyslogConfig {
            socket: folder.join(log.socket.as_deref().unwrap_or("/dev/log")),
            facility,
            per_minute: per_minute(r, &log.per_minute, 600),
        }
    });
    let mut names: BTreeSet<String> = ["file", "stdout", "syslog"].map(str::to_owned).into();
    for (number, hook) in raw.webhook.into_iter().enumerate() {
        if let Some(hook) = webhook(r, hook, folder, number + 1, &mut names) {
            c.webhooks.push(hook);
        }
    }
}

fn per_minute(r: &mut Reader<'_>, given: &Number, otherwise: u32) -> u32 {
    let mut number = otherwise;
    r.set(&mut number, given, "per_minute", 0..=1_000_000, 1);
    number
}

fn webhook(
    r: &mut Reader<'_>,
    raw: Spanned<raw::Webhook>,
    folder: &Path,
    number: usize,
    names: &mut BTreeSet<String>,
) -> Option<WebhookConfig> {
    let span = raw.span();
    let raw = raw.into_inner();
    let (name, place) = match raw.name {
        Some(name) => (name.get_ref().clone(), name.span()),
        None => (format!("webhook-{number}"), span),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME || !name.chars().all(plain) {
        r.say(place.clone(), "`name` is 1 to 40 of A-Z a-z 0-9 - _ .");
    } else if !names.insert(name.clone()) {
        r.say(place, &format!("`{name}` is the name of two that are told"));
    }
    let Some(url) = web(raw.url.get_ref()) else {
        r.say(
            raw.url.span(),
            "`url` is http://HOST… or https://HOST…, without user or password (those go into `header_file`)",
        );
        return None;
    };
    let mut timeout_s = 10;
    r.set(&mut timeout_s, &raw.timeout_s, "timeout_s", 1..=300, 1);
    let path = |name: Option<String>| name.map(|name| folder.join(name));
    Some(WebhookConfig {
        name,
        url,
        header_file: path(raw.header_file),
        secret_file: path(raw.secret_file),
        ca_file: path(raw.ca_file),
        per_minute: per_minute(r, &raw.per_minute, 30),
        timeout: Duration::from_secs(timeout_s),
    })
}

/// A place on the web, if it is one.
fn web(url: &str) -> Option<Uri> {
    let url: Uri = url.parse().ok()?;
    let scheme = matches!(url.scheme_str(), Some("http" | "https"));
    let host = url.host().is_some_and(|host| !host.is_empty());
    let authority = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    (scheme && host && authority).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(text: &str) -> Result<NotifyConfig, String> {
        let config = Config::parse("r.toml", text, Path::new("/etc/referee"));
        config.map(|config| config.notify).map_err(|failure| failure.to_string())
    }

    #[test]
    fn everybody_to_be_told_is_read() {
        let config = parse(
            "[notify]\nmin_severity = \"critical\"\nkinds = [\"syn_flood\"]\nstates = [\"open\"]\nevent_type = \"alert\"\n\
             page = \"https://box:8443/\"\n[notify.file]\npath = \"eve.json\"\n[notify.stdout]\nper_minute = 5\n\
             [notify.syslog]\nfacility = \"local3\"\n[[notify.webhook]]\nurl = \"https://chat.example/hook/x\"\n\
             header_file = \"/run/h\"\n[[notify.webhook]]\nname = \"pager\"\nurl = \"http://[::1]:9/\"\nper_minute = 0\n\
             timeout_s = 2\nsecret_file = \"s\"\nca_file = \"ca.pem\"\n",
        )
        .unwrap();
        let wanted = Wanted {
            min_severity: Severity::Critical,
            kinds: ["syn_flood".to_owned()].into(),
            open: true,
            closed: false,
        };
        assert_eq!((config.wanted, config.event_type), (wanted, "alert"));
        assert_eq!(config.page.as_deref(), Some("https://box:8443"));
        assert_eq!(config.file, Some(FileConfig { path: "/etc/referee/eve.json".into(), per_minute: 0 }));
        assert_eq!(config.stdout, Some(StdoutConfig { per_minute: 5 }));
        let syslog = SyslogConfig { socket: "/dev/log".into(), facility: 19, per_minute: 600 };
        assert_eq!(config.syslog, Some(syslog));
        let [chat, pager] = config.webhooks.as_slice() else { panic!("{:?}", config.webhooks) };
        assert_eq!((chat.name.as_str(), chat.per_minute, chat.timeout.as_secs()), ("webhook-1", 30, 10));
        assert_eq!(chat.header_file, Some("/run/h".into()));
        assert_eq!((pager.name.as_str(), pager.per_minute, pager.timeout.as_secs()), ("pager", 0, 2));
        assert_eq!(pager.secret_file, Some("/etc/referee/s".into()));
        assert_eq!(pager.ca_file, Some("/etc/referee/ca.pem".into()));
    }

    #[test]
    fn nobody_is_told_unless_it_is_said_whom() {
        let config = parse("[notify]\n").unwrap();
        assert!(config.is_empty() && config.wanted.open && config.wanted.closed);
        assert!(!parse("[notify.stdout]\n").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, expected) in [
            (
                "[notify]\nmin_severity = \"bad\"\n",
                "r.toml:2:16: `min_severity` is \"bad\"; give \"info\", \"warning\" or",
            ),
            ("[notify]\nstates = [\"ajar\"]\n", "r.toml:2:10: `states` names"),
            ("[notify]\npage = \"box\"\n", "r.toml:2:8: `page` is where"),
            ("[notify.syslog]\nfacility = \"lpr\"\n", "r.toml:2:12: `facility` is"),
            ("[notify.file]\npath = \"x\"\nper_minute = 9_999_999\n", "r.toml:3:14: `per_minute` is"),
            ("[[notify.webhook]]\nurl = \"ftp://x/\"\n", "r.toml:2:7: `url` is"),
            ("[[notify.webhook]]\nurl = \"https://me:pw@x/\"\n", "without user or password"),
            ("[[notify.webhook]]\nurl = \"http://x/\"\nname = \"a b\"\n", "r.toml:3:8: `name` is 1 to 40"),
            ("[[notify.webhook]]\nurl = \"http://x/\"\nname = \"file\"\n", "`file` is the name of two"),
            ("[[notify.webhook]]\nurll = \"http://x/\"\n", "did you mean `url`?"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
