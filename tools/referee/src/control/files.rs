//! Rule files that somebody sends: checked with all the others, written beside them in one step, and gone by.
//!
//! Control thread, so that nothing else changes the rules meanwhile. A file is written whole under a name that is no rule's
//! and then renamed: whoever reads the folder finds the one before or this one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rules::LoadError;
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::Control;
use super::command::{Mistake, Reloaded, RuleText};
use super::last_good::mistakes;
use crate::rules::load::{self, FILE_LIMIT, Origin};

/// Longest name, bytes.
const NAME_LIMIT: usize = 100;

/// The rule files that a run goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFiles {
    /// Where own ones are; none if only shipped ones are in force.
    pub folder: Option<String>,
    /// Files can be changed there by the run.
    pub writable: bool,
    pub items: Vec<RuleFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFile {
    pub name: String,
    pub bytes: u64,
    /// It came with Referee; an own one of the same name takes its place.
    pub shipped: bool,
}

/// Why nothing was changed, or there is nothing to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRefusal {
    pub why: Why,
    pub what: String,
    pub help: String,
    /// Those of the rules as they would have been.
    pub errors: Vec<Mistake>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    BadName,
    NoSuchFile,
    /// The run goes by no folder of rules.
    NoFolder,
    Unwritable,
    TooLarge,
    Mistakes,
}

fn refuse<T>(why: Why, what: impl Into<String>, help: impl Into<String>) -> Result<T, FileRefusal> {
    Err(FileRefusal { why, what: what.into(), help: help.into(), errors: Vec::new() })
}

fn mistaken(errors: Vec<Mistake>) -> FileRefusal {
    let number = crate::term::plural(errors.len() as u64, "mistake");
    let what = format!("{number} in the rules as they would be; nothing was changed");
    FileRefusal { why: Why::Mistakes, what, help: "all files are looked at together".to_owned(), errors }
}

/// Letters, digits and `_.-`, and nothing that is hidden or leads elsewhere.
fn named(name: &str) -> Result<(), FileRefusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let good = name.len() <= NAME_LIMIT
        && name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && load::is_rule_file(Path::new(name));
    if good {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_LIMIT).collect();
    refuse(
        Why::BadName,
        format!("{shown:?} can't be the name of a rule file here"),
        format!(
            "at most {NAME_LIMIT} letters, digits, _, . and -, beginning with a letter or digit and ending in .rhai"
        ),
    )
}

/// Where files can be changed.
fn folder(origin: &Origin) -> Result<PathBuf, FileRefusal> {
    match &origin.path {
        Some(path) if path.is_dir() => Ok(path.clone()),
        Some(path) if path.is_file() => refuse(
            Why::NoFolder,
            format!("the run goes by one file, {}", path.display()),
            "give `--rules` or [rules] dir a folder, for files to be changed in it",
        ),
        Some(path) => refuse(
            Why::NoFolder,
            format!("the folder of the rules, {}, is not there", path.display()),
            "make it; the user that runs referee must be able to write to it",
        ),
        None => refuse(
            Why::NoFolder,
            "the run goes by the shipped rules, and has no folder of its own",
            "name one: [rules] dir = \"/etc/referee/rules\", and library = true for the shipped ones to stay",
        ),
    }
}

fn unwritable(folder: &Path, error: &io::Error) -> FileRefusal {
    let shown = folder.display();
    let what = format!("{shown} can't be written to by the run: {error}; nothing was changed");
    let help = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => format!(
            "give the folder to the user that runs referee (chown referee: {shown}); a service also needs \
             ReadWritePaths={shown} and a restart"
        ),
        _ => "see to the disk, and try again".to_owned(),
    };
    FileRefusal { why: Why::Unwritable, what, help, errors: Vec::new() }
}

/// A new file under a name that is no rule file's.
fn beside(folder: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    let path = folder.join(format!(".{name}.{}.new", std::process::id()));
    // Of an earlier try that was broken off.
    let _ = fs::remove_file(&path);
    Ok((OpenOptions::new().write(true).create_new(true).open(&path)?, path))
}

/// In one step: the file that was there, or this one.
fn write(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let (mut file, new) = beside(folder, name)?;
    let path = folder.join(name);
    let mut put = || {
        file.write_all(text.as_bytes())?;
        if let Ok(meta) = fs::metadata(&path) {
            file.set_permissions(meta.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    let done = put();
    if done.is_err() {
        let _ = fs::remove_file(&new);
    }
    done.map(|()| settled(folder))
}

/// Has the names survive a power cut, where a folder can be synced.
fn settled(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

fn can_write(folder: &Path) -> bool {
    access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

fn loaded(errors: Vec<LoadError>) -> FileRefusal {
    mistaken(mistakes(errors))
}

impl Control {
    /// As they are now on disk, and shipped ones none of these stands in for.
    pub(super) fn rule_files(&self) -> Result<RuleFiles, FileRefusal> {
        let folder = folder(&self.origin).ok();
        let own = match (&folder, &self.origin.path) {
            (Some(folder), _) => load::in_folder(folder).map_err(|error| unwritable(folder, &error))?,
            (None, path) => path.iter().cloned().collect(),
        };
        let base = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let own = own.iter().filter_map(|path| {
            let bytes = fs::metadata(path).map_or(0, |meta| meta.len());
            Some(RuleFile { name: base(path)?, bytes, shipped: false })
        });
        let mut items: Vec<RuleFile> = own.collect();
        let shipped = if self.origin.library { rules::library() } else { Vec::new() };
        for file in shipped {
            if !items.iter().any(|own| own.name == file.name) {
                items.push(RuleFile { name: file.name, bytes: file.text.len() as u64, shipped: true });
            }
        }
        items.sort_by(|a, b| (a.shipped, &a.name).cmp(&(b.shipped, &b.name)));
        let writable = folder.as_deref().is_some_and(can_write);
        Ok(RuleFiles { folder: folder.map(|folder| folder.display().to_string()), writable, items })
    }

    pub(super) fn rule_file(&self, name: &str) -> Result<RuleText, FileRefusal> {
        named(name)?;
        let own = match folder(&self.origin) {
            Ok(folder) => Some(folder.join(name)).filter(|path| fs::symlink_metadata(path).is_ok()),
            Err(_) => self.origin.path.clone().filter(|path| path.ends_with(name)),
        };
        let shipped = || rules::library().into_iter().find(|file| self.origin.library && file.name == name);
        let text = match own {
            Some(path) => load::read_file(&path).map_err(|error| loaded(vec![error]))?.text,
            None => match shipped() {
                Some(file) => file.text,
                None => return no_such(name),
            },
        };
        Ok(RuleText { name: name.to_owned(), text })
    }

    pub(super) fn put_rule_file(&mut self, file: RuleText) -> Result<Reloaded, FileRefusal> {
        let RuleText { name, text } = file;
        named(&name)?;
        if text.len() as u64 > FILE_LIMIT {
            return refuse(Why::TooLarge, "a rule file has 1 MiB at most", "make several of it");
        }
        let folder = self.checked(&name, Some(text.clone()))?;
        write(&folder, &name, &text).map_err(|error| unwritable(&folder, &error))?;
        Ok(self.reload())
    }

    pub(super) fn delete_rule_file(&mut self, name: &str) -> Result<Reloaded, FileRefusal> {
        named(name)?;
        let place = folder(&self.origin)?.join(name);
        if fs::symlink_metadata(&place).is_err() {
            return no_such(name);
        }
        let folder = self.checked(name, None)?;
        fs::remove_file(folder.join(name)).map_err(|error| unwritable(&folder, &error))?;
        settled(&folder);
        Ok(self.reload())
    }

    /// Whether the rules would be without mistakes with this file changed, by the settings as they are now. The folder.
    fn checked(&self, name: &str, text: Option<String>) -> Result<PathBuf, FileRefusal> {
        let origin = self.asked.origin().map_err(|failure| {
            let (message, help) = (failure.message, failure.help);
            mistaken(vec![Mistake { file: "settings".to_owned(), line: 0, column: 0, message, help }])
        })?;
        let folder = folder(&origin)?;
        let gathered = origin.changed(&folder, &folder.join(name), text);
        let gathered = gathered.map_err(|error| unwritable(&folder, &error))?;
        gathered.load(&origin.params).map_err(loaded)?;
        Ok(folder)
    }
}

fn no_such<T>(name: &str) -> Result<T, FileRefusal> {
    let help = "/api/v1/rules/files lists them; a shipped one is left out by `enabled = false` of its rules";
    refuse(Why::NoSuchFile, format!("there is no rule file {name} of the run's own"), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for good in ["a.rhai", "Mine-2.v1_b.rhai", "0.rhai"] {
            assert_eq!(named(good), Ok(()), "{good}");
        }
        let long = format!("{}.rhai", "x".repeat(NAME_LIMIT));
        for bad in [
            "",
            ".rhai",
            "..",
            "../a.rhai",
            "a/b.rhai",
            "/etc/a.rhai",
            "a.txt",
            "a.rhai~",
            "#a.rhai",
            ".a.rhai",
            "-a.rhai",
            "a b.rhai",
            "a\0.rhai",
            "ä.rhai",
            "a.rhai/",
            "a\\b.rhai",
            "%2e%2e.rhai",
            &long,
        ] {
            assert_eq!(named(bad).unwrap_err().why, Why::BadName, "{bad}");
        }
    }

    #[test]
    fn a_file_is_replaced_in_one_step_with_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rhai");
        write(folder.path(), "a.rhai", "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        // Another that had the same number was broken off.
        fs::write(folder.path().join(format!(".a.rhai.{}.new", std::process::id())), "half").unwrap();
        write(folder.path(), "a.rhai", "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(can_write(folder.path()));
        // A link is replaced, and not what it leads to.
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "safe").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        write(folder.path(), "a.rhai", "three").unwrap();
        assert_eq!(
            (fs::read_to_string(&elsewhere).unwrap().as_str(), fs::read_to_string(&path).unwrap().as_str()),
            ("safe", "three")
        );
        let gone = folder.path().join("gone");
        assert!(write(&gone, "a.rhai", "x").is_err() && !can_write(&gone));
    }

    #[test]
    fn the_set_is_looked_at_as_it_would_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let origin = Origin { path: Some(folder.path().into()), library: false, params: Vec::new() };
        let good = "rule \"a\" on rst when flow.dport == 80 then { incident(\"warning\", \"x\"); }";
        let loads = |name: &str, text: Option<&str>| {
            let gathered = origin.changed(folder.path(), &file(name), text.map(str::to_owned)).unwrap();
            gathered.load(&[]).map(|set| set.rules().len())
        };
        assert_eq!(loads("a.rhai", Some(good)).ok(), Some(1), "the first of an empty folder");
        fs::write(file("a.rhai"), good).unwrap();
        assert!(loads("b.rhai", Some(good)).is_err(), "two of a name");
        assert_eq!(loads("b.rhai", Some(&good.replace("\"a\"", "\"b\""))).ok(), Some(2));
        assert!(loads("a.rhai", Some("rule")).is_err());
        assert!(loads("a.rhai", None).is_err(), "a folder without any");
        assert_eq!(fs::read_to_string(file("a.rhai")).unwrap(), good);
    }
}
