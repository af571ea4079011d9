//! What is made from the definition of the command line: man pages, and what makes shells complete commands.
//!
//! Main thread. `referee completions` prints one shell's; the hidden `referee generate` writes what a package installs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::Failure;
use crate::term;

#[derive(Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Args)]
pub struct GenerateArgs {
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

const NAME: &str = "referee";

/// `referee completions SHELL`
///
/// # Errors
/// Failed: standard output can't be written.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut text);
    term::show(|out| out.write_all(&text))
}

/// `referee generate DIR`: `man1/`, a page for each command, and `completions/`, a file for each shell.
///
/// # Errors
/// Failed: they can't be written.
pub fn generate(folder: &Path) -> Result<(), Failure> {
    write(folder).map_err(|error| Failure::failed(format!("{}: {error}", folder.display())))
}

fn write(folder: &Path) -> io::Result<()> {
    let pages = folder.join("man1");
    fs::create_dir_all(&pages)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    manual(&command, &pages)?;
    let completions = folder.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), NAME, &completions)?;
    }
    Ok(())
}

/// A page for a command and each below it.
fn manual(command: &clap::Command, folder: &Path) -> io::Result<()> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.into_iter().try_for_each(|command| manual(command, folder))?;
    let page = command.clone().override_usage(synopsis(command));
    // What stands at the foot of a page is the program, also where a part of it is described.
    let source = format!("{NAME} {}", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(page).source(source).generate_to(folder).map(drop)
}

/// How it is called, with the names of all values.
fn synopsis(command: &clap::Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let shown: Vec<&Arg> = command.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
    let options = shown.iter().filter(|arg| !arg.is_positional()).map(|arg| call(arg));
    let positionals = shown.iter().filter(|arg| arg.is_positional()).map(|arg| call(arg));
    let below = command.get_subcommands().any(|command| !command.is_hide_set());
    let below =
        below.then(|| if command.is_subcommand_required_set() { "COMMAND" } else { "[COMMAND]" }.to_owned());
    [name.to_owned()].into_iter().chain(options).chain(positionals).chain(below).collect::<Vec<_>>().join(" ")
}

/// One argument: `[-i IFACE]...`.
fn call(arg: &Arg) -> String {
    let dashed = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}|--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("--{long}"),
        (None, None) => String::new(),
    };
    let takes = arg.is_positional() || arg.get_action().takes_values();
    let values = arg
        .get_value_names()
        .filter(|_| takes)
        .map(|names| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" "));
    let words = [dashed, values.unwrap_or_default()];
    let call = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let many = match arg.get_action() {
        ArgAction::Append => "...",
        _ if arg.get_num_args().is_some_and(|range| range.max_values() > 1) => "...",
        _ => "",
    };
    match arg.is_required_set() {
        true => format!("{call}{many}"),
        false => format!("[{call}]{many}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// "referee-rules-check" for `referee rules check`, and so on for all that is not hidden.
    fn pages(command: &clap::Command, prefix: &str, all: &mut BTreeSet<String>) {
        let name = format!("{prefix}{}", command.get_name());
        let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
        shown.for_each(|command| pages(command, &format!("{name}-"), all));
        all.insert(format!("{name}.1"));
    }

    fn synopsis_of(name: &str) -> String {
        let mut command = Cli::command();
        command.build();
        synopsis(command.find_subcommand(name).unwrap())
    }

    #[test]
    fn every_command_has_a_page_and_every_shell_its_file() {
        let folder = tempfile::tempdir().unwrap();
        generate(folder.path()).unwrap();
        let names = |folder: &str| -> BTreeSet<String> {
            let list = fs::read_dir(folder).unwrap();
            list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let mut wanted = BTreeSet::new();
        pages(&Cli::command(), "", &mut wanted);
        assert_eq!(names(&folder.path().join("man1").display().to_string()), wanted);
        assert!(
            wanted.contains("referee-rules-check.1") && !wanted.contains("referee-generate.1"),
            "{wanted:?}"
        );
        let files = names(&folder.path().join("completions").display().to_string());
        assert_eq!(files, ["_referee", "referee.bash", "referee.fish"].map(str::to_owned).into());
        let page = fs::read_to_string(folder.path().join("man1/referee-run.1")).unwrap();
        let head = format!("\"referee {}\"", env!("CARGO_PKG_VERSION"));
        assert!(page.lines().any(|line| line.starts_with(".TH ") && line.contains(&head)), "{page}");
        assert!(page.contains("zero\\-copy") && page.contains("mirrored traffic"), "{page}");
        let called = synopsis_of("run");
        for part in
            ["referee run [-i IFACE]...", " [--store DIR]", " [--json]", " [--set RULE.PARAM=VALUE]..."]
        {
            assert!(called.contains(part), "{part} is not in {called}");
        }
        assert!(page.contains("[\\-i IFACE]..."), "{page}");
        assert!(synopsis_of("replay").ends_with(" FILE..."), "{}", synopsis_of("replay"));
        let bash = fs::read_to_string(folder.path().join("completions/referee.bash")).unwrap();
        assert!(bash.contains("--zero-copy") && bash.contains("captures"), "{bash}");
    }
}
