//! What can be typed: the command line as types. Main thread, before anything else; decides nothing, only
//! parses. The commands' own modules take these over.

mod values;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rules::Override;

use crate::capture::CaptureArgs;
use crate::captures::live::LiveArgs;
use crate::client::ReachArgs;
use crate::control::socket::DEFAULT_PATH;
use crate::doctor::DoctorArgs;
use crate::extcap::ExtcapCommand;
use crate::filter::FilterArgs;
use crate::generate::{CompletionsArgs, GenerateArgs};
use crate::incidents::IncidentsArgs;
use crate::live::mode::{Mode, ZeroCopyArg};
use crate::notify::NotifyCommand;
use crate::rules::check::ConfigCommand;
use crate::serve::ServeArgs;
use crate::time::When;
use crate::token::TokenArgs;
use crate::web_link::WebArgs;
pub use values::interface;
use values::{community_id, flow_id, parameter, seconds};

/// Watches packets, knows when TCP is being broken, and keeps the packets that prove it.
#[derive(Parser)]
#[command(name = "referee", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the work failed, 2 wrong usage, configuration or rules, \
                          3 an input can't be read as a capture, 4 missing privilege or device, \
                          5 the interface changed: start again";

#[derive(Subcommand)]
pub enum Command {
    /// Watch interfaces that receive mirrored traffic
    Run(RunArgs),
    /// Is this host, and are these interfaces, ready to capture?
    Doctor(DoctorArgs),
    /// Analyse capture files
    Replay(ReplayArgs),
    /// Two captures of one path: what happened between them
    Compare(CompareArgs),
    /// Capture packets that an expression names: out of the history of a run under way, and from now on
    Capture(CaptureArgs),
    /// What a store keeps
    #[command(subcommand)]
    Captures(CapturesCommand),
    /// What was found: by a run under way, or as a store has it
    Incidents(IncidentsArgs),
    /// Show a store through the HTTP interface, without capturing
    Serve(ServeArgs),
    /// Make a token for the HTTP interface
    Token(TokenArgs),
    /// An address that logs a browser in
    Web(WebArgs),
    /// How a run under way stands
    Status(SocketArgs),
    /// Rule files
    #[command(subcommand)]
    Rules(RulesCommand),
    /// A store's files
    #[command(subcommand)]
    Store(StoreCommand),
    /// How a run does and what it finds, at a glance, on a terminal
    Top(ReachArgs),
    /// Who is told of incidents
    #[command(subcommand)]
    Notify(NotifyCommand),
    /// referee.toml
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Referee among Wireshark's interfaces
    #[command(subcommand)]
    Extcap(ExtcapCommand),
    /// What makes a shell complete these commands, on standard output
    Completions(CompletionsArgs),
    /// Man pages and completions into a folder, for packages
    #[command(hide = true)]
    Generate(GenerateArgs),
}

/// What `run` and `replay` share.
#[derive(Args)]
pub struct CommonArgs {
    /// Rule files to use instead of the shipped library
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
    /// Keep the packets of what is found in this folder (made if its parent exists)
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Settings; without it the built-in ones (run: those in /etc/referee/referee.toml, if it is there)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A rule's parameter, e.g. rst_after_idle.idle_ms=30000; stronger than the configuration
    #[arg(long, value_name = "RULE.PARAM=VALUE", value_parser = parameter)]
    pub set: Vec<Override>,
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// What `run` and `replay` write for programs.
#[derive(Args, Default)]
pub struct OutputArgs {
    /// Write every flow here when it ends, a JSON object a line (- for standard output)
    #[arg(long, value_name = "PATH")]
    pub flows: Option<PathBuf>,
    /// Write every incident here when it closes, a JSON object a line (- for standard output)
    #[arg(long, value_name = "PATH")]
    pub incidents: Option<PathBuf>,
    /// Write the books here, one JSON object (- for standard output)
    #[arg(long, value_name = "PATH")]
    pub ledger: Option<PathBuf>,
    /// Write the books and gauges here as Prometheus text, whole each time: at the end, and every 10 s of a live run.
    /// For node_exporter: a name.prom in the folder of its textfile collector
    #[arg(long, value_name = "PATH")]
    pub metrics: Option<PathBuf>,
}

#[derive(Args)]
pub struct RunArgs {
    /// The interface to capture from; may be given several times. Without it, those of [capture] interfaces
    #[arg(short = 'i', value_name = "IFACE", value_parser = interface)]
    pub interface: Vec<String>,
    /// How to capture
    #[arg(long, value_enum, default_value = "auto")]
    pub mode: Mode,
    /// Whether packets are to arrive without being copied
    #[arg(long, value_enum, default_value = "prefer")]
    pub zero_copy: ZeroCopyArg,
    /// Take an interface although the host's own traffic goes over it, which then stops
    #[arg(long)]
    pub steal: bool,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Stop after so many seconds; without it, when told to (Ctrl-C, SIGTERM)
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub duration: Option<f64>,
    /// Write incidents as they open and close, and at last the books, to standard output: a JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Where to listen for `referee status`, `capture`, `rules reload`, `shadow` and `list --live`, of this user only
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    pub socket: PathBuf,
    #[command(flatten)]
    pub outputs: OutputArgs,
}

/// Which run to ask.
#[derive(Args)]
pub struct SocketArgs {
    /// The socket that `referee run` was given
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    pub socket: PathBuf,
    /// The answer, as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub outputs: OutputArgs,
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub workers: u32,
    /// pcap or pcapng, also .gz, .zst, .lz4; - is standard input. Several are merged by time
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

#[derive(Args)]
pub struct CompareArgs {
    /// Findings and, last, the summary: a JSON object a line
    #[arg(long)]
    pub json: bool,
    /// One capture: pcap or pcapng, also .gz, .zst, .lz4; - is standard input
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// The other, of the same path; in either order
    #[arg(value_name = "B")]
    pub b: PathBuf,
}

#[derive(Subcommand)]
pub enum CapturesCommand {
    /// The flows kept
    List(ListArgs),
    /// The packets kept, as one pcapng ordered by time
    Get(GetArgs),
    /// The packets that a run under way keeps, as it keeps them, as one pcapng without end
    Live(LiveArgs),
}

#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub query: QueryArgs,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct GetArgs {
    #[command(flatten)]
    pub query: QueryArgs,
    /// What was written, as one JSON object
    #[arg(long)]
    pub json: bool,
    /// The capture file to write (- for standard output); without it, only says what would be in it
    #[arg(short = 'w', value_name = "FILE")]
    pub write: Option<PathBuf>,
}

#[derive(Args, Default)]
pub struct QueryArgs {
    /// The store; without it, the one that referee.toml names
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Settings to find the store in
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Of the flows of this incident
    #[arg(long, value_name = "ID", group = "what")]
    pub incident: Option<String>,
    /// Of this flow (16 hexadecimal digits)
    #[arg(long, value_name = "FLOW_ID", group = "what", value_parser = flow_id)]
    pub flow: Option<u64>,
    /// Of the flow that Zeek, Suricata and --flows name so (1:…)
    #[arg(long, value_name = "ID", group = "what", value_parser = community_id)]
    pub community_id: Option<String>,
    /// From or to this address
    #[arg(long, value_name = "IP", group = "what")]
    pub host: Option<IpAddr>,
    /// Not before: RFC 3339, or so long ago (15m)
    #[arg(long, value_name = "T", value_parser = When::parse)]
    pub since: Option<When>,
    /// Not after: RFC 3339, or so long ago (15m)
    #[arg(long, value_name = "T", value_parser = When::parse)]
    pub until: Option<When>,
}

#[derive(Subcommand)]
pub enum RulesCommand {
    /// Load rule files and say everything that is wrong with them
    Check(CheckArgs),
    /// The events, facts and functions a rule can use, and the rules loaded; or what each rule of a run under way has done
    List(RulesListArgs),
    /// What rules would have done on captured packets, and whether their cases come out
    Test(TestArgs),
    /// Why an incident was reported: what its rule's condition saw at that moment
    Explain(ExplainArgs),
    /// Have a run under way go by the rule files as they are now
    Reload(SocketArgs),
    /// Have a rule of a run under way only look on (on) or speak again (off), until that run ends
    ///
    /// In shadow a rule's condition and body run as ever, and what it would have reported and recorded is counted;
    /// nothing of it is told or kept. `rules list --live` shows the counts. Later reloads keep what was switched.
    Shadow(SwitchArgs),
    /// Have a run under way leave a rule out (off) or take it in again (on), until that run ends
    Enable(SwitchArgs),
}

#[derive(Args)]
pub struct SwitchArgs {
    /// The rule's name
    #[arg(value_name = "RULE")]
    pub rule: String,
    /// Whether it is to be so
    #[arg(value_parser = ["on", "off"])]
    pub state: String,
    #[command(flatten)]
    pub run: SocketArgs,
}

#[derive(Args)]
pub struct CheckArgs {
    /// Rule files, or folders of them; all are loaded as one set
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Settings whose parameters are to be checked too
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A rule's parameter; stronger than the configuration
    #[arg(long, value_name = "RULE.PARAM=VALUE", value_parser = parameter)]
    pub set: Vec<Override>,
    /// Each mistake and, last, the summary: a JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct RulesListArgs {
    /// Rule files to list instead of the shipped library
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
    /// Settings to take rules and parameters from
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A rule's parameter; stronger than the configuration
    #[arg(long, value_name = "RULE.PARAM=VALUE", value_parser = parameter)]
    pub set: Vec<Override>,
    /// The rules of a run under way instead: how often each matched, what it costs, whether it is in shadow or off
    #[arg(long, conflicts_with_all = ["rules", "config", "set"])]
    pub live: bool,
    /// The socket that this run was given
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH, requires = "live")]
    pub socket: PathBuf,
    /// All of it as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(override_usage = "referee rules test [OPTIONS] PATH [FILE]...")]
pub struct TestArgs {
    /// A rule file or a folder of them; then captures to try it on (pcap or pcapng, also .gz, .zst, .lz4; - is standard
    /// input) or the folder of a store, whose packets are taken. Without any, the rules' cases are run
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Fail unless the cases beside the rules come out; with RULE=N, unless that rule makes N incidents
    #[arg(long, value_name = "RULE=N", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub expect: Vec<String>,
    /// Of a store, packets not before: RFC 3339, or so long ago (15m)
    #[arg(long, value_name = "T", value_parser = When::parse)]
    pub since: Option<When>,
    /// Of a store, packets not after
    #[arg(long, value_name = "T", value_parser = When::parse)]
    pub until: Option<When>,
    /// Settings to take parameters from
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A rule's parameter; stronger than the configuration
    #[arg(long, value_name = "RULE.PARAM=VALUE", value_parser = parameter)]
    pub set: Vec<Override>,
    /// Each case, each rule and, last, the summary: a JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ExplainArgs {
    /// The incident's id
    #[arg(value_name = "INCIDENT")]
    pub incident: String,
    /// The store it is in; without it, the one that referee.toml names
    #[arg(long, value_name = "DIR", conflicts_with = "incidents")]
    pub store: Option<PathBuf>,
    /// Look for it in what `--incidents` or `run --json` wrote (- for standard input)
    #[arg(long, value_name = "PATH")]
    pub incidents: Option<PathBuf>,
    /// Settings to find the store in
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum StoreCommand {
    /// Read every segment through and say how each is
    Verify(StoreArgs),
    /// Make the store's index anew, by reading every segment through
    ///
    /// A live run keeps the index by itself; a store without one is searched by reading its segments.
    RebuildIndex(StoreArgs),
}

#[derive(Args)]
pub struct StoreArgs {
    /// The store; without it, the one that referee.toml names
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Settings to find the store in
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What is told, as JSON: an object a segment, or one of the index
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }
}
