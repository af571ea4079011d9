//! Giving up what is not needed any more: all capabilities, and the way to new ones.
//!
//! Main thread, after everything privileged has been opened and before any other thread exists: capabilities
//! belong to threads, and those spawned afterwards inherit what is left, which is nothing.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::error::{Code, Failure};

/// Does something as it will be done when privileges have been given up: with none in effect.
///
/// # Errors
/// Privilege: the kernel refuses to lay them aside or to take them up again. Those of `work`.
pub fn without<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let refused = |error: rustix::io::Errno| {
        Failure::new(Code::Privilege, format!("privileges can't be laid aside: {error}"))
    };
    let all = capabilities(None).map_err(refused)?;
    set_capabilities(None, CapabilitySets { effective: CapabilitySet::empty(), ..all }).map_err(refused)?;
    let done = work();
    set_capabilities(None, all).map_err(refused)?;
    done
}

/// Drops all capabilities for good.
///
/// # Errors
/// Privilege: the kernel refuses, in which case nothing may be run.
pub fn give_up() -> Result<(), Failure> {
    let refused = |what: &'static str| {
        move |error: rustix::io::Errno| {
            Failure::new(Code::Privilege, format!("privileges can't be given up ({what}): {error}"))
        }
    };
    // The bounding set first: leaving it needs a privilege, and without that nothing could come back anyway.
    for capability in CapabilitySet::all().iter() {
        if matches!(capability_is_in_bounding_set(capability), Ok(true)) {
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    clear_ambient_capability_set().map_err(refused("ambient set"))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(refused("capabilities"))?;
    set_no_new_privs(true).map_err(refused("no_new_privs"))
}
