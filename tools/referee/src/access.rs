//! What a user may not do, and what helps: words for files, folders and sockets that belong to others.
//!
//! Main thread. Looks at owners and at the lists of users and groups; changes nothing.

use std::fs;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use dataplane::record::{Store, StoreError};
use rustix::process::geteuid;

use crate::error::{Code, Failure};

/// Opens a store to read it.
///
/// # Errors
/// Failed: there is none. Privilege: this user may not look into it.
pub fn store(folder: &Path) -> Result<Store, Failure> {
    Store::open(folder).map_err(|error| match &error {
        StoreError::Missing { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            denied(format!("the store {}", folder.display()), folder)
        }
        _ => Failure::failed(error),
    })
}

/// This user may not use what lies at `path`, which its group may.
pub fn denied(what: impl std::fmt::Display, path: &Path) -> Failure {
    let group = path.ancestors().find_map(|place| fs::metadata(place).ok()).map(|place| place.gid());
    let help = match group.filter(|gid| *gid != 0) {
        Some(gid) => format!(
            "join the group {0}: adduser {1} {0}, then log in anew; or ask as root",
            group_name(gid),
            user_name(geteuid().as_raw())
        ),
        None => "ask as root".to_owned(),
    };
    Failure::new(Code::Privilege, format!("{what}: permission denied")).help(help)
}

/// What to do where a run can't make or open a file: by then root has no right to other users' files.
pub fn own_folder(path: &Path, error: &Error) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let owner = fs::metadata(folder).map(|folder| folder.uid());
    let usual = "name a path in a folder that belongs to the user that runs referee";
    match owner {
        Ok(uid) if error.kind() == ErrorKind::PermissionDenied => {
            rights(geteuid().as_raw(), uid, &folder.display().to_string())
        }
        _ => usual.to_owned(),
    }
}

fn rights(user: u32, owner: u32, folder: &str) -> String {
    let [user_name, owner_name] = [user, owner].map(user_name);
    match user {
        0 => format!(
            "root gives up its right to other users' files before it captures, and {folder} belongs to {owner_name}; a run \
             over a store of {owner_name}'s becomes {owner_name}: chown -R {owner_name}: STORE. Or name a path in a folder of root's"
        ),
        _ => format!(
            "this run is {user_name}'s, and {folder} belongs to {owner_name}; name a path in a folder of {user_name}'s: \
             install -d -o {user_name} FOLDER"
        ),
    }
}

/// The number where it has no name.
pub fn user_name(uid: u32) -> String {
    named(&fs::read_to_string("/etc/passwd").unwrap_or_default(), uid)
}

fn group_name(gid: u32) -> String {
    named(&fs::read_to_string("/etc/group").unwrap_or_default(), gid)
}

/// Both lists have the name first and the number third.
fn named(list: &str, number: u32) -> String {
    let name = list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_lists() {
        let list = "root:x:0:0:root\nodd\nreferee:x:101:103:Referee\n";
        assert_eq!([0, 101, 7].map(|number| named(list, number)), ["root", "referee", "7"]);
    }

    #[test]
    fn it_is_said_whose_it_is_and_what_helps() {
        assert_eq!(user_name(0), "root");
        let root = rights(0, 0x7fff_0001, "/var/log/referee");
        assert!(
            root.contains("/var/log/referee belongs to 2147418113") && root.contains("chown -R "),
            "{root}"
        );
        let other = rights(0x7fff_0001, 0, "/root");
        assert!(other.starts_with("this run is 2147418113's, and /root belongs to root"), "{other}");
        let denied_to = denied("the store /s", Path::new("/no/such/place"));
        assert_eq!(
            (denied_to.code, denied_to.message.as_str()),
            (Code::Privilege, "the store /s: permission denied")
        );
        assert_eq!(denied_to.help.as_deref(), Some("ask as root"), "/ is root's");
        let missing = own_folder(Path::new("/no/such/file"), &ErrorKind::NotFound.into());
        assert!(missing.starts_with("name a path"), "{missing}");
    }
}
