//! Rules for operators to take and change, compiled in only for the page that prints them. Their cases stand beside them and
//! are run by a test of the program. Read when documentation is made; never by a worker.

use crate::set::SourceFile;

macro_rules! recipes {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../cookbook/", $name)))),*]
    };
}

/// The cookbook's files, by name.
pub fn cookbook() -> Vec<SourceFile> {
    let files = recipes![
        "api_sla.rhai",
        "cleartext_login.rhai",
        "db_idle_timeout.rhai",
        "db_slow_connect.rhai",
        "idle_timeout_known.rhai",
        "keepalive_too_slow.rhai",
        "pod_syn_drops.rhai",
        "refused_after_deploy.rhai",
        "resolver_failover.rhai",
        "resolver_not_ours.rhai",
        "scan_not_ours.rhai",
        "smtp_egress.rhai",
        "ssh_guessing.rhai",
        "storage_stall.rhai",
        "tls_alert_our_names.rhai",
        "upstream_errors.rhai",
        "vip_resets.rhai",
        "vlan_mtu.rhai",
        "vpn_mss.rhai",
        "wan_loss.rhai",
    ];
    files.map(|(name, text)| SourceFile { name: name.to_owned(), text: text.to_owned() }).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_load_beside_the_shipped_rules() {
        let files: Vec<SourceFile> = cookbook().into_iter().chain(crate::library()).collect();
        if let Err(errors) = crate::RuleSet::load(&files, &[]) {
            panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>());
        }
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cookbook");
        let on_disk = std::fs::read_dir(folder).unwrap();
        let rules = on_disk.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "rhai"));
        assert_eq!(rules.count(), cookbook().len(), "every file is printed");
        assert!(cookbook().len() >= 20);
    }
}
