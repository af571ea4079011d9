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
        "connection_churn.rhai",
        "dns_error.rhai",
        "dns_slow.rhai",
        "dns_timeout_retry.rhai",
        "dns_unanswered.rhai",
        "ecn_ce.rhai",
        "ecn_syn_blackhole.rhai",
        "half_open.rhai",
        "host_scan.rhai",
        "http_server_error.rhai",
        "icmp_ignored.rhai",
        "icmp_unreachable.rhai",
        "loss_limited.rhai",
        "mss_low.rhai",
        "pileups.rhai",
        "pmtu_blackhole.rhai",
        "port_exhaustion.rhai",
        "port_scan.rhai",
        "rst_after_clienthello.rhai",
        "rst_after_idle.rhai",
        "rst_injected.rhai",
        "rst_midflow.rhai",
        "rst_storm.rhai",
        "sack_garbled.rhai",
        "sack_missing.rhai",
        "slow_connect.rhai",
        "slow_server.rhai",
        "state_table.rhai",
        "syn_flood.rhai",
        "syn_no_synack.rhai",
        "synack_retransmission.rhai",
        "tls_no_server_hello.rhai",
        "window_limited.rhai",
        "wscale_missing.rhai",
        "zero_window_stall.rhai",
    ];
    files.map(|(name, text)| SourceFile { name: name.to_owned(), text: text.to_owned() }).into()
}
