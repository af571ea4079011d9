//! From paths to a rule set: reads rule files, adds the parameters given by the configuration and by `--set`.
//!
//! Main thread, at start; never a worker. The set is shared with the worker and the judge, mistakes go to the
//! operator, all of them at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rules::{LoadError, Override, RuleSet, SourceFile};

use crate::config::{Config, Placed};
use crate::error::Failure;

/// Longest rule file read, bytes.
pub const FILE_LIMIT: u64 = 1 << 20;

/// Most rule files in one set.
const FILES_LIMIT: usize = 10_000;

const EXTENSION: &str = "rhai";

/// Where rules come from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// A rule file or a folder of them; `None` for the shipped ones alone.
    pub path: Option<PathBuf>,
    /// The shipped ones as well.
    pub library: bool,
    pub params: Vec<Placed>,
}

impl Origin {
    /// The rules that `--rules` or the configuration names, else the shipped ones, with their parameters.
    pub fn new(rules: Option<&Path>, config: &Config, set: &[Override]) -> Origin {
        let path = rules.or(config.rules_dir.as_deref()).map(Path::to_path_buf);
        Origin { library: path.is_none() || config.rules_library, path, params: params(config, set) }
    }

    /// The files as they are now, as far as they can be read.
    fn gather(&self) -> Gathered {
        let own = match &self.path {
            // Beside the shipped ones there need not be any yet, or any more.
            Some(folder) if self.library && in_folder(folder).is_ok_and(|files| files.is_empty()) => {
                Gathered::default()
            }
            Some(path) => gather(std::slice::from_ref(path)),
            None => Gathered::default(),
        };
        self.with_library(own)
    }

    /// What the folder would make with one of its files changed: another text, or none any more.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn changed(&self, folder: &Path, file: &Path, text: Option<String>) -> std::io::Result<Gathered> {
        let mut others = in_folder(folder)?;
        others.retain(|other| other != file);
        // Without any, this is the same mistake as when they are loaded.
        let last = others.is_empty() && text.is_none() && !self.library;
        let mut own = if last { nothing_in(folder) } else { gather(&others) };
        own.files.extend(text.map(|text| SourceFile { name: file.display().to_string(), text }));
        Ok(self.with_library(own))
    }

    /// One of a shipped file's name stands in for it.
    fn with_library(&self, own: Gathered) -> Gathered {
        let base = |file: &SourceFile| Path::new(&file.name).file_name().map(ToOwned::to_owned);
        let mut files = if self.library { rules::library() } else { Vec::new() };
        files.retain(|shipped| !own.files.iter().any(|file| base(file) == base(shipped)));
        files.extend(own.files);
        Gathered { files, unread: own.unread }
    }

    /// The files as they are now.
    ///
    /// # Errors
    /// Usage: a path that can't be read or holds no rules, and what is wrong with the others.
    pub fn files(&self) -> Result<Vec<SourceFile>, Failure> {
        let gathered = self.gather();
        match gathered.unread.is_empty() {
            true => Ok(gathered.files),
            false => Err(refusal(&gathered.load(&[]).err().unwrap_or_default())),
        }
    }

    pub fn overrides(&self) -> Vec<Override> {
        self.params.iter().map(|placed| placed.set.clone()).collect()
    }

    /// The set that these files make after `previous`.
    ///
    /// # Errors
    /// All mistakes, each with its place.
    pub fn load(
        &self,
        previous: Option<&RuleSet>,
        files: &[SourceFile],
    ) -> Result<Arc<RuleSet>, Vec<LoadError>> {
        RuleSet::load_after(previous, files, &self.overrides())
            .map(Arc::new)
            .map_err(|errors| placed(errors, files, &self.params))
    }
}

/// The parameters of the configuration, and those of `--set`, which are stronger.
pub fn params(config: &Config, set: &[Override]) -> Vec<Placed> {
    let typed = set.iter().map(|set| Placed { place: "--set".to_owned(), set: set.clone() });
    config.params.iter().cloned().chain(typed).collect()
}

/// The rules that `--rules` or the configuration names, else the shipped ones, with their parameters.
///
/// # Errors
/// Usage: all that is wrong with them.
pub fn load(rules: Option<&Path>, config: &Config, set: &[Override]) -> Result<Arc<RuleSet>, Failure> {
    let origin = Origin::new(rules, config, set);
    origin.gather().load(&origin.params).map(Arc::new).map_err(|errors| refusal(&errors))
}

/// Its name is that of a rule file, and none of those that editors and copying programs make beside one.
pub fn is_rule_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let own = !name.starts_with(['.', '#']) && !name.ends_with('~');
    own && path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// What was found where rule files are said to be.
#[derive(Debug, Default)]
pub struct Gathered {
    pub files: Vec<SourceFile>,
    /// What can't be read, a mistake each.
    pub unread: Vec<LoadError>,
}

/// Reads rule files, and all rule files of folders (not of folders in them), as far as they can be read.
pub fn gather(paths: &[PathBuf]) -> Gathered {
    let mut gathered = Gathered::default();
    let mut names = Vec::new();
    for path in paths {
        match named(path) {
            Ok(found) => names.extend(found),
            Err(error) => gathered.unread.push(error),
        }
    }
    names.sort();
    names.dedup();
    if names.len() > FILES_LIMIT {
        let message = format!("{} rule files are too many; at most {FILES_LIMIT} can be loaded", names.len());
        gathered.unread.push(mistake(names.last().map_or(Path::new("."), PathBuf::as_path), &message, ""));
        return gathered;
    }
    for name in &names {
        match read_file(name) {
            Ok(file) => gathered.files.push(file),
            Err(error) => gathered.unread.push(error),
        }
    }
    gathered
}

impl Gathered {
    /// Loads them with parameters.
    ///
    /// # Errors
    /// All that is wrong with files and parameters.
    pub fn load(&self, params: &[Placed]) -> Result<RuleSet, Vec<LoadError>> {
        // What they are for may be in a file that can't be read.
        let params = if self.unread.is_empty() { params } else { &[] };
        let overrides: Vec<Override> = params.iter().map(|placed| placed.set.clone()).collect();
        match RuleSet::load(&self.files, &overrides) {
            Ok(rules) if self.unread.is_empty() => Ok(rules),
            loaded => {
                let mut errors = self.unread.clone();
                errors.extend(placed(loaded.err().unwrap_or_default(), &self.files, params));
                errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
                Err(errors)
            }
        }
    }
}

/// The files that a path names.
fn named(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |error| cannot_read(path, &error);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let names = in_folder(path).map_err(failed)?;
    match names.is_empty() {
        true => Err(no_files(path)),
        false => Ok(names),
    }
}

fn no_files(folder: &Path) -> LoadError {
    let help = format!("rule files end in .{EXTENSION}; name the folder they are in");
    mistake(folder, "this folder holds no rule files", &help)
}

fn nothing_in(folder: &Path) -> Gathered {
    Gathered { files: Vec::new(), unread: vec![no_files(folder)] }
}

/// The rule files of a folder, sorted.
pub fn in_folder(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        // A link to nothing is a mistake, not a rule less.
        if is_rule_file(&file) && (file.is_file() || fs::metadata(&file).is_err()) {
            names.push(file);
        }
    }
    names.sort();
    Ok(names)
}

/// One rule file.
///
/// # Errors
/// Why it can't be read.
pub fn read_file(path: &Path) -> Result<SourceFile, LoadError> {
    let failed = |error| cannot_read(path, &error);
    if fs::metadata(path).map_err(failed)?.len() > FILE_LIMIT {
        return Err(mistake(path, "it has more than 1 MiB, so it is no rule file", ""));
    }
    let bytes = fs::read(path).map_err(failed)?;
    let text =
        String::from_utf8(bytes).map_err(|error| not_text(path, error.as_bytes(), &error.utf8_error()))?;
    Ok(SourceFile { name: path.display().to_string(), text })
}

fn mistake(path: &Path, message: &str, help: &str) -> LoadError {
    let help = (!help.is_empty()).then(|| help.to_owned());
    LoadError { file: path.display().to_string(), line: 0, column: 0, message: message.to_owned(), help }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> LoadError {
    let help = "name a rule file, or a folder of them, that this user may read";
    mistake(path, &format!("can't be read: {error}"), help)
}

fn not_text(path: &Path, bytes: &[u8], error: &std::str::Utf8Error) -> LoadError {
    let before = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default()).into_owned();
    let byte = bytes.get(error.valid_up_to()).copied().unwrap_or(0);
    let help = "save the file as UTF-8: this byte is of another encoding, or the file is no text";
    LoadError {
        line: before.matches('\n').count() + 1,
        column: before.rsplit('\n').next().unwrap_or("").chars().count() + 1,
        ..mistake(path, &format!("can't be read: the byte 0x{byte:02x} is not UTF-8"), help)
    }
}

/// All mistakes, each with its place and what to write instead.
pub fn refusal(errors: &[LoadError]) -> Failure {
    let mut text = format!("{} in the rules", crate::term::plural(errors.len() as u64, "mistake"));
    for error in errors {
        text.push('\n');
        text.push_str(&error.to_string());
    }
    Failure::usage(text)
}

/// Says of each mistake in a parameter where that was given.
fn placed(errors: Vec<LoadError>, files: &[SourceFile], params: &[Placed]) -> Vec<LoadError> {
    let (of_params, mut all): (Vec<_>, Vec<_>) = errors.into_iter().partition(|error| error.file == "--set");
    if of_params.is_empty() {
        return all;
    }
    for Placed { place, set } in params {
        let alone = RuleSet::load(files, std::slice::from_ref(set)).err().unwrap_or_default();
        let mine = alone.into_iter().filter(|error| error.file == "--set");
        all.extend(mine.map(|error| LoadError { file: place.clone(), ..error }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str =
        "param low = 3;\nrule \"r\" on rst\nwhen flow.dport > low\nthen { evidence(\"a\", 1); }\n";

    fn set(rule: &str, param: &str, value: &str) -> Override {
        Override { rule: rule.into(), param: param.into(), value: value.into() }
    }

    #[test]
    fn folders_are_read_and_strangers_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let unread =
            |path: PathBuf| gather(&[path]).unread.iter().map(|e| format!("{e}\n")).collect::<String>();
        let error = unread(dir.path().to_path_buf());
        assert!(error.contains("holds no rule files"), "{error}");
        fs::write(dir.path().join("b.rhai"), RULE).unwrap();
        for stranger in
            ["README.md", ".b.rhai.swp", ".#b.rhai", "#b.rhai#", "b.rhai~", ".hidden.rhai", "4913"]
        {
            fs::write(dir.path().join(stranger), "not a rule").unwrap();
        }
        let both = [dir.path().to_path_buf(), dir.path().join("b.rhai")];
        assert_eq!((gather(&both).files.len(), gather(&both).unread.len()), (1, 0));
        assert!(unread(dir.path().join("none")).contains("none: can't be read"));
        fs::write(dir.path().join("c.rhai"), b"// ok\n// na\xefve").unwrap();
        assert!(unread(dir.path().to_path_buf()).contains("c.rhai:2:6: can't be read: the byte 0xef"));
        std::os::unix::fs::symlink("gone", dir.path().join("d.rhai")).unwrap();
        assert!(unread(dir.path().to_path_buf()).contains("d.rhai: can't be read"), "a link to nothing");
    }

    #[test]
    fn a_file_that_cannot_be_read_hides_no_mistake_of_another() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.rhai"), [0xff, 0xfe]).unwrap();
        fs::write(dir.path().join("b.rhai"), RULE.replace("dport", "dprot")).unwrap();
        let error =
            load(Some(dir.path()), &Config::default(), &[set("a", "low", "x")]).unwrap_err().to_string();
        assert!(error.starts_with("2 mistakes in the rules\n"), "{error}");
        assert!(
            error.contains("a.rhai:1:1: can't be read") && error.contains("b.rhai:3:6: there is no"),
            "{error}"
        );
        assert!(!error.contains("--set"), "what it sets may be in the file that can't be read: {error}");
    }

    #[test]
    fn a_wrong_parameter_is_blamed_on_where_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("r.rhai"), RULE).unwrap();
        let place = "referee.toml:7:1".to_owned();
        let config =
            Config { params: vec![Placed { place, set: set("r", "lwo", "4") }], ..Config::default() };
        let error = load(Some(dir.path()), &config, &[set("r", "low", "x")]).unwrap_err().to_string();
        assert!(error.contains("referee.toml:7:1: `r` has no param `lwo`"), "{error}");
        assert!(error.contains("--set: `r.low` is an integer; `x` is not"), "{error}");
    }

    #[test]
    fn own_files_beside_the_shipped_ones_or_instead_of_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine.rhai"), RULE).unwrap();
        let shipped = rules::library();
        let names = |library, more: &str| {
            let config = Config { rules_library: library, ..Config::default() };
            if !more.is_empty() {
                fs::write(dir.path().join(more), "rule \"instead\" on rst then { }").unwrap();
            }
            let set = load(Some(dir.path()), &config, &[]).unwrap();
            set.in_force().map(|(_, meta)| meta.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(false, ""), ["r"]);
        assert_eq!(names(true, "").len(), RuleSet::load(&shipped, &[]).unwrap().rules().len() + 1);
        let name = Path::new(&shipped[0].name).file_name().unwrap().to_str().unwrap();
        assert!(names(true, name).contains(&"instead".to_owned()));
    }

    #[test]
    fn beside_the_shipped_ones_a_folder_may_be_empty() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("README"), "").unwrap();
        let origin =
            |library, path: &Path| Origin { path: Some(path.to_owned()), library, params: Vec::new() };
        let shipped = rules::library().len();
        assert_eq!(origin(true, dir.path()).files().unwrap().len(), shipped);
        let refused = |origin: &Origin| origin.files().unwrap_err().to_string();
        assert!(refused(&origin(false, dir.path())).contains("holds no rule files"));
        assert!(refused(&origin(true, &dir.path().join("none"))).contains("can't be read"));
        // The last own one may go.
        let file = dir.path().join("mine.rhai");
        fs::write(&file, RULE).unwrap();
        let without = |library| origin(library, dir.path()).changed(dir.path(), &file, None).unwrap();
        assert_eq!(
            without(true).load(&[]).unwrap().rules().len(),
            RuleSet::load(&rules::library(), &[]).unwrap().rules().len()
        );
        assert!(without(false).load(&[]).is_err());
    }

    #[test]
    fn set_is_stronger_than_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("r.rhai"), RULE).unwrap();
        let given = |value: &str| Placed { place: String::new(), set: set("r", "low", value) };
        let hash = |params: Vec<Placed>, sets: &[Override]| {
            let config = Config { params, ..Config::default() };
            load(Some(dir.path()), &config, sets).unwrap().hash().to_owned()
        };
        assert_eq!(hash(vec![given("5")], &[set("r", "low", "9")]), hash(vec![given("9")], &[]));
        assert_ne!(hash(vec![given("5")], &[]), hash(vec![given("9")], &[]));
    }
}
