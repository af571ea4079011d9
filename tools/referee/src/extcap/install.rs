//! A link to this program in the folder that Wireshark looks for extcap programs in.
//!
//! Main thread. Replaces no file of somebody else's.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PlaceArgs;
use crate::error::Failure;
use crate::term;

const NAME: &str = "referee";

/// `referee extcap install`
///
/// # Errors
/// Usage: no folder is known, or something else is there. Failed: it can't be written.
pub fn install(args: &PlaceArgs) -> Result<(), Failure> {
    let program =
        env::current_exe().map_err(|error| Failure::failed(format!("this program's path: {error}")))?;
    let folder = folder(args)?;
    let link = link(&folder, &program)?;
    term::note(&format!(
        "{} is {}: Wireshark lists Referee from its next start on",
        link.display(),
        program.display()
    ));
    Ok(())
}

/// `referee extcap remove`
///
/// # Errors
/// Usage: no folder is known, or what is there is no link. Failed: it can't be removed.
pub fn remove(args: &PlaceArgs) -> Result<(), Failure> {
    let link = folder(args)?.join(NAME);
    match fs::symlink_metadata(&link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            term::note(&format!("{} is not there", link.display()));
            Ok(())
        }
        Ok(known) if known.is_symlink() => fs::remove_file(&link).map_err(|error| refused(&link, &error)),
        _ => Err(occupied(&link)),
    }
}

fn link(folder: &Path, program: &Path) -> Result<PathBuf, Failure> {
    let link = folder.join(NAME);
    fs::create_dir_all(folder).map_err(|error| refused(folder, &error))?;
    match fs::symlink_metadata(&link) {
        Ok(known) if !known.is_symlink() => return Err(occupied(&link)),
        Ok(_) => fs::remove_file(&link).map_err(|error| refused(&link, &error))?,
        Err(_) => {}
    }
    symlink(program, &link).map_err(|error| refused(&link, &error))?;
    Ok(link)
}

fn occupied(link: &Path) -> Failure {
    Failure::usage(format!("{} is there and is no link", link.display()))
        .help("look at what it is, and move it away")
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::failed(format!("{}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            failure.help("run it as root, or with --user (Wireshark 4.2 and later)")
        }
        _ => failure,
    }
}

fn folder(args: &PlaceArgs) -> Result<PathBuf, Failure> {
    if let Some(folder) = &args.folder {
        return Ok(folder.clone());
    }
    if args.user {
        let home = env::var_os("HOME").ok_or_else(|| Failure::usage("HOME is not set"))?;
        return Ok(Path::new(&home).join(".local/lib/wireshark/extcap"));
    }
    told().or_else(usual).ok_or_else(|| {
        Failure::usage("Wireshark's folder of extcap programs is not known")
            .help("is it installed? --folder DIR names the one that Help, About, Folders shows")
    })
}

/// What tshark says.
fn told() -> Option<PathBuf> {
    let said = Command::new("tshark").args(["-G", "folders"]).stderr(Stdio::null()).output().ok()?;
    global(&String::from_utf8_lossy(&said.stdout))
}

/// The line is "Extcap path: …", in later versions "Global Extcap path: …".
fn global(said: &str) -> Option<PathBuf> {
    let line = said
        .lines()
        .find(|line| line.starts_with("Extcap path") || line.starts_with("Global Extcap path"))?;
    let path = line.split_once(':')?.1.trim();
    (!path.is_empty()).then(|| path.into())
}

/// Where Debian has it.
fn usual() -> Option<PathBuf> {
    let libraries = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok).map(|entry| entry.path());
    libraries.map(|folder| folder.join("wireshark/extcap")).find(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_replaces_a_link_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("extcap");
        let args = PlaceArgs { user: false, folder: Some(place.clone()) };
        link(&place, Path::new("/usr/bin/old")).unwrap();
        install(&args).unwrap();
        assert_eq!(fs::read_link(place.join("referee")).unwrap(), env::current_exe().unwrap());
        remove(&args).unwrap();
        remove(&args).unwrap();
        fs::write(place.join("referee"), "somebody's").unwrap();
        assert!(install(&args).is_err() && remove(&args).is_err());
        assert_eq!(fs::read_to_string(place.join("referee")).unwrap(), "somebody's");
    }

    #[test]
    fn tshark_names_the_folder() {
        let old = "Global Plugins:\t/x\nExtcap path:     \t/usr/lib/x86_64-linux-gnu/wireshark/extcap\n";
        assert_eq!(global(old), Some("/usr/lib/x86_64-linux-gnu/wireshark/extcap".into()));
        let new = "Personal Extcap path:\t/home/a/x\nGlobal Extcap path:\t/usr/lib/wireshark/extcap\n";
        assert_eq!(global(new), Some("/usr/lib/wireshark/extcap".into()));
        assert_eq!(global(""), None);
    }
}
