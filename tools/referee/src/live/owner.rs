//! Whose a run is: started as root over a store that belongs to another user, it becomes that user, so that whoever the
//! store belongs to can go on with all that was made.
//!
//! Main thread, while there is no other: user and group belong to threads, and those spawned afterwards inherit them.
//! What is privileged and no file's business stays possible until `privileges` gives it up.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgroups, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::{privileges, publish};
use crate::config::Config;
use crate::control::socket;
use crate::error::{Code, Failure};
use crate::term;

/// What makes root of somebody after all: other people's files, and becoming somebody else.
const ROOTS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// The user that a store belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
    /// Others than `gid`.
    groups: Vec<u32>,
    /// The number where it has no name.
    pub name: String,
}

impl Owner {
    /// Whom a store belongs to, if that is another than root, and root asks. A store that is yet to be made is whoever's
    /// makes it.
    pub fn of(store: Option<&Path>) -> Option<Owner> {
        let folder = fs::metadata(store?).ok().filter(|_| geteuid().is_root())?;
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        (folder.uid() != 0)
            .then(|| Owner::listed(folder.uid(), folder.gid(), &read("/etc/passwd"), &read("/etc/group")))
    }

    /// One who is in no list has the group of the folder.
    fn listed(uid: u32, folder_gid: u32, passwd: &str, group: &str) -> Owner {
        let entry = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then_some((name, fields.next()?.parse().ok()?))
        });
        let Some((name, gid)) = entry else {
            return Owner { uid, gid: folder_gid, groups: Vec::new(), name: format!("user {uid}") };
        };
        let groups = group.lines().filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next()?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(gid)
        });
        Owner { uid, gid, groups: groups.filter(|other| *other != gid).collect(), name: name.to_owned() }
    }

    fn groups(&self) -> Vec<Gid> {
        self.groups.iter().copied().map(Gid::from_raw).collect()
    }

    fn refused(&self) -> impl Fn(Errno) -> Failure {
        let name = self.name.clone();
        move |error| {
            Failure::new(
                Code::Privilege,
                format!("the store belongs to {name}, and root can't become that: {error}"),
            )
            .help("start it as that user, or name a store of root's own: --store DIR")
        }
    }

    /// Becomes this user for good, with what capturing needs and nothing that would make root of it.
    ///
    /// # Errors
    /// Privilege: the kernel refuses.
    pub fn settle(&self) -> Result<(), Failure> {
        let refused = self.refused();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_keep_capabilities(true).map_err(&refused)?;
        set_thread_groups(&self.groups()).map_err(&refused)?;
        set_thread_res_gid(gid, gid, gid).map_err(&refused)?;
        set_thread_res_uid(uid, uid, uid).map_err(&refused)?;
        let kept = capabilities(None).map_err(&refused)?.permitted.difference(ROOTS);
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets).map_err(&refused)?;
        // As the service's: the store holds what people sent.
        let before = umask(Mode::empty());
        umask(before | Mode::WGRP | Mode::RWXO);
        Ok(())
    }

    /// Does something as this user, and is root again.
    ///
    /// # Errors
    /// Privilege: the kernel refuses.
    pub fn borrow<T>(&self, work: impl FnOnce() -> T) -> Result<T, Failure> {
        let refused = self.refused();
        let (groups, gid) = (getgroups().map_err(&refused)?, getegid());
        set_thread_groups(&self.groups()).map_err(&refused)?;
        set_thread_res_gid(None, Gid::from_raw(self.gid), None).map_err(&refused)?;
        set_thread_res_uid(None, Uid::from_raw(self.uid), None).map_err(&refused)?;
        let done = work();
        // The kernel gives back what root may do along with its number.
        set_thread_res_uid(None, Uid::ROOT, None).map_err(&refused)?;
        set_thread_res_gid(None, gid, None).map_err(&refused)?;
        set_thread_groups(&groups).map_err(&refused)?;
        Ok(done)
    }

    /// Makes room for this user's sockets: those that nobody listens at go, whosever they are, and the usual folder is
    /// handed over.
    ///
    /// # Errors
    /// The folder can't be made, or not be handed over.
    pub fn make_room(&self, sockets: &[&Path]) -> io::Result<()> {
        sockets.iter().for_each(|path| socket::clear(path));
        let usual = Path::new(socket::DEFAULT_PATH).parent();
        if let Some(folder) = usual.filter(|usual| sockets.iter().any(|path| path.parent() == Some(*usual))) {
            if !folder.exists() {
                fs::DirBuilder::new().mode(0o750).create(folder)?;
            }
            if fs::metadata(folder)?.uid() == 0 {
                chown(folder, Some(self.uid), Some(self.gid))?;
            }
        }
        Ok(())
    }
}

/// Root that is to capture becomes the user that the store belongs to; said, since it is nowhere to be seen else.
///
/// # Errors
/// Privilege: the kernel refuses.
pub fn settle(store: Option<&Path>, control: &Path, config: &Config) -> Result<(), Failure> {
    let Some(owner) = Owner::of(store) else { return Ok(()) };
    let beside = publish::beside(control);
    // A run can do without them, which is said when they are to be made.
    let _ = owner.make_room(&[control, config.api.socket(&beside)]);
    owner.settle()?;
    term::note(&format!("the store belongs to {0}: from here on this run is {0}'s", owner.name));
    Ok(())
}

/// Becomes the user a store belongs to and gives up all privileges, where root is asked to write to it and needs none.
/// True if it did.
///
/// # Errors
/// Privilege: the kernel refuses.
pub fn settle_for(store: Option<&Path>, sockets: &[&Path]) -> Result<bool, Failure> {
    let Some(owner) = Owner::of(store) else { return Ok(false) };
    owner.make_room(sockets).map_err(|error| Failure::failed(format!("no socket can be made: {error}")))?;
    owner.settle()?;
    privileges::give_up()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_the_lists() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nreferee:x:101:103:Referee:/var/lib/referee:/bin/false\nodd\n";
        let group =
            "root:x:0:\nadm:x:4:syslog,referee\nreferee:x:103:alice,referee\nptp:x:105:referees\nodd:x\n";
        let owner = Owner { uid: 101, gid: 103, groups: vec![4], name: "referee".to_owned() };
        assert_eq!(Owner::listed(101, 7, passwd, group), owner);
        let owner = Owner { uid: 102, gid: 7, groups: Vec::new(), name: "user 102".to_owned() };
        assert_eq!(Owner::listed(102, 7, passwd, group), owner);
    }

    #[test]
    fn what_is_not_there_is_nobodys() {
        assert_eq!((Owner::of(None), Owner::of(Some(Path::new("/no/such/store")))), (None, None));
    }

    #[test]
    fn root_writes_as_another_and_is_root_again() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let made = |name: &str| fs::write(folder.path().join(name), "").map_err(|error| error.kind());
        let root = made("roots");
        let owner = Owner { uid: 4242, gid: 4243, groups: Vec::new(), name: String::new() };
        assert_eq!(owner.borrow(|| made("theirs")).unwrap(), Err(io::ErrorKind::PermissionDenied));
        chown(folder.path(), Some(4242), Some(4243)).unwrap();
        assert_eq!(Owner::of(Some(folder.path())).map(|owner| (owner.uid, owner.gid)), Some((4242, 4243)));
        assert_eq!(owner.borrow(|| made("theirs")).unwrap(), Ok(()));
        let meta = fs::metadata(folder.path().join("theirs")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (4242, 4243));
        assert_eq!((root, made("again")), (Ok(()), Ok(())));
        assert_eq!(fs::metadata(folder.path().join("again")).unwrap().uid(), 0);
    }
}
