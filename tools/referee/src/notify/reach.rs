//! Whether those who are to be told can be: what `config check` says of files and sockets, without opening or making any.
//!
//! Main thread, of whoever asks.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD};

use crate::config::notify::NotifyConfig;

/// What stands in the way, in words. `writes`: the caller is the user who will run it, so that what it may tells.
pub fn out_of_reach(config: &NotifyConfig, writes: bool) -> Vec<String> {
    let mut all = Vec::new();
    let may = |path: &Path, mode| !writes || rustix::fs::accessat(CWD, path, mode, AtFlags::EACCESS).is_ok();
    if let Some(file) = &config.file {
        let path = &file.path;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let what = match fs::metadata(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Some(format!("there is no folder {}", folder.display()))
            }
            Ok(meta) if !meta.is_dir() => Some(format!("{} is no folder", folder.display())),
            Ok(_) if path.is_dir() => Some("it is a folder".to_owned()),
            Ok(_) if path.exists() && !may(path, Access::WRITE_OK) => {
                Some("it can't be written to".to_owned())
            }
            Ok(_) if !path.exists() && !may(folder, Access::WRITE_OK.union(Access::EXEC_OK)) => {
                Some(format!("nothing can be made in {}", folder.display()))
            }
            // What this user can't look into it can't judge.
            _ => None,
        };
        all.extend(what.map(|what| format!("[notify.file] {}: {what}", path.display())));
    }
    if let Some(log) = &config.syslog {
        let what = match fs::metadata(&log.socket) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some("no log daemon listens there"),
            Ok(meta) if !meta.file_type().is_socket() => Some("it is no socket"),
            _ => None,
        };
        all.extend(what.map(|what| format!("[notify.syslog] {}: {what}", log.socket.display())));
    }
    for hook in &config.webhooks {
        let files = [&hook.header_file, &hook.secret_file, &hook.ca_file].into_iter().flatten();
        for path in files.filter(|path| !path.exists() || !may(path, Access::READ_OK)) {
            all.push(format!("[[notify.webhook]] {}: {} can't be read", hook.name, path.display()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::notify::{FileConfig, SyslogConfig};

    #[test]
    fn what_cannot_be_told_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = |file: &str, socket: &str| NotifyConfig {
            file: Some(FileConfig { path: folder.path().join(file), per_minute: 0 }),
            syslog: Some(SyslogConfig { socket: folder.path().join(socket), facility: 3, per_minute: 0 }),
            ..NotifyConfig::default()
        };
        fs::write(folder.path().join("plain"), "").unwrap();
        let _daemon = std::os::unix::net::UnixDatagram::bind(folder.path().join("log")).unwrap();
        let said = |file, socket| out_of_reach(&config(file, socket), true).join("\n");
        assert_eq!(said("eve.json", "log"), "");
        assert_eq!(said("plain", "log"), "");
        assert!(said("none/eve.json", "log").contains("[notify.file] "), "{}", said("none/eve.json", "log"));
        assert!(said("none/eve.json", "log").ends_with("/none"));
        assert!(said("plain/eve.json", "log").ends_with("/plain is no folder"));
        assert!(said("eve.json", "plain").ends_with("/plain: it is no socket"));
        assert!(said("eve.json", "gone").ends_with("/gone: no log daemon listens there"));
        assert!(!folder.path().join("eve.json").exists(), "it makes nothing");
    }
}
