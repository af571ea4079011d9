//! `referee`, the operator's program: parses the command line, runs one command, says why it failed.
//!
//! Main thread. The commands live in modules of their own; packets are the business of `dataplane`, rules
//! that of `rules`.

mod access;
mod api;
mod board;
mod capture;
mod captures;
mod cli;
mod client;
mod compare;
mod config;
mod control;
mod doctor;
#[cfg(test)]
mod documented;
mod error;
mod extcap;
mod filter;
mod generate;
mod incidents;
mod index;
mod live;
mod notify;
mod recording;
mod replay;
mod report;
mod rules;
mod serve;
mod term;
mod time;
mod token;
mod top;
mod verify;
mod web_link;

use std::process::ExitCode;

use clap::Parser;

use control::switches::Switch;

use error::Failure;

use cli::{CapturesCommand, Cli, Command, RulesCommand, StoreCommand};

fn main() -> ExitCode {
    if let Some(call) = extcap::called(std::env::args_os()) {
        return exit(extcap::answer(&call));
    }
    exit(match Cli::parse().command {
        Command::Run(args) => live::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Captures(CapturesCommand::List(args)) => captures::list(&args),
        Command::Captures(CapturesCommand::Get(args)) => captures::get(&args),
        Command::Captures(CapturesCommand::Live(args)) => captures::live::run(&args),
        Command::Incidents(args) => incidents::run(&args),
        Command::Rules(RulesCommand::Check(args)) => rules::check::rules(&args),
        Command::Rules(RulesCommand::List(args)) if args.live => control::client::rules(&args),
        Command::Rules(RulesCommand::List(args)) => rules::list::list(&args),
        Command::Rules(RulesCommand::Test(args)) => rules::test::test(&args),
        Command::Rules(RulesCommand::Explain(args)) => rules::explain::explain(&args),
        Command::Rules(RulesCommand::Reload(args)) => control::client::reload(&args),
        Command::Rules(RulesCommand::Shadow(args)) => control::client::switch(&args, Switch::Shadow),
        Command::Rules(RulesCommand::Enable(args)) => control::client::switch(&args, Switch::Enabled),
        Command::Doctor(args) => doctor::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Web(args) => web_link::run(&args),
        Command::Status(args) => control::client::status(&args),
        Command::Store(StoreCommand::Verify(args)) => verify::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Notify(notify::NotifyCommand::Test { config }) => notify::try_out(config.as_deref()),
        Command::Store(StoreCommand::RebuildIndex(args)) => index::run(&args),
        Command::Config(rules::check::ConfigCommand::Check { config }) => rules::check::config(&config),
        Command::Extcap(command) => extcap::run(&command),
        Command::Completions(args) => generate::completions(args.shell),
        Command::Generate(args) => generate::generate(&args.folder),
    })
}

fn exit(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            term::note(&failure.to_string());
            ExitCode::from(failure.code as u8)
        }
    }
}
