//! The shipped rules, compiled into the program. Read at load time, never by a worker; the text goes to
//! [`crate::RuleSet::load`] like any operator's file.

use crate::set::SourceFile;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../library/", $name)))),*]
    };
}

/// The rule files that are used when the operator names no directory of rules.
pub fn library() -> Vec<SourceFile> {
    let files = shipped![
        "conn_refused.rhai",
        "half_open.rhai",
        "icmp_ignored.rhai",
        "icmp_unreachable.rhai",
        "pmtu_blackhole.rhai",
        "rst_after_idle.rhai",
        "rst_injected.rhai",
        "rst_midflow.rhai",
        "rst_storm.rhai",
        "syn_no_synack.rhai",
        "synack_retransmission.rhai",
        "zero_window_stall.rhai",
    ];
    files.map(|(name, text)| SourceFile { name: name.to_owned(), text: text.to_owned() }).into()
}
