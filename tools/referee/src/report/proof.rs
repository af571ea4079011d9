//! The line with which people open in Wireshark what was kept.
//!
//! Main thread. Names the store unless `referee captures` would find it in the settings anyway.

use std::path::Path;

use crate::captures;

/// Of one store.
#[derive(Clone, Debug)]
pub struct Proofs {
    store: String,
}

impl Proofs {
    /// Looks once whether the settings name this store.
    pub fn of(store: &Path) -> Proofs {
        let same = |named: &Path| match (named.canonicalize(), store.canonicalize()) {
            (Ok(named), Ok(store)) => named == store,
            _ => named == store,
        };
        let named = captures::store_folder(None, None).is_ok_and(|named| same(&named));
        Proofs { store: if named { String::new() } else { format!(" --store {}", quoted(store)) } }
    }

    /// The line for one incident, for a shell.
    pub fn line(&self, incident: &str) -> String {
        format!("referee captures get{} --incident {incident} -w - | wireshark -k -i -", self.store)
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,=@%:".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        path
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_a_shell() {
        let quoted = |path: &str| quoted(Path::new(path));
        assert_eq!(quoted("/var/lib/referee"), "/var/lib/referee");
        assert_eq!(quoted("my store"), "'my store'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
