//! `--filter`: the expression made a filter, what to say when it can't be, and what to say of what it leaves out.
//!
//! Main thread. Judges no packet; the kernel and `dataplane` do.

use std::sync::Arc;

use clap::Args;
use dataplane::filter::{Filter, FilterError, Refused};
use dataplane::source::live::{Port, PortReport};
use serde_json::{Value, json};

use crate::error::{Code, Failure};
use crate::report::finished::Inputs;
use crate::term::{count, patiently, plural};

/// Which packets are to be analysed.
#[derive(Args)]
pub struct FilterArgs {
    /// Only packets that this names (pcap-filter syntax, as tcpdump's), and ICMP errors and fragments that belong to them
    #[arg(long, value_name = "EXPR")]
    pub filter: Option<String>,
    /// The filter to the letter, as tcpdump takes it: no related packets
    #[arg(long, requires = "filter")]
    pub filter_exact: bool,
}

/// Seconds of a live run after which it may be said that a filter looks past its packets.
const PATIENCE: u32 = 10;

impl FilterArgs {
    /// What is asked for.
    pub fn given(&self) -> Option<Filter> {
        self.filter.as_ref().map(|expression| Filter::new(expression, self.filter_exact))
    }

    /// The same for interfaces; whether it can be used is told before one is touched.
    ///
    /// # Errors
    /// Usage: the expression.
    pub fn for_interfaces(&self) -> Result<Option<Arc<Filter>>, Failure> {
        let Some(filter) = self.given() else { return Ok(None) };
        compiling(|| filter.check_for_kernel()).map_err(|error| failure(&error))?;
        Ok(Some(Arc::new(filter)))
    }
}

/// Has a filter compiled, which takes libpcap long if the expression is.
pub fn compiling<R>(work: impl FnOnce() -> R) -> R {
    patiently(
        "compiling the filter… (a long expression takes libpcap minutes; a plain list, host A or host B, is quick)",
        work,
    )
}

/// A filter that can't be used, as the program's failure.
pub fn failure(error: &FilterError) -> Failure {
    match error {
        FilterError::Load(load) if load.is_privilege() => Failure::new(Code::Privilege, error)
            .help("filtering in the kernel needs root, or the capability bpf"),
        _ if error.is_library() => {
            Failure::usage(format!("--filter: {error}")).help("install it: apt-get install libpcap0.8")
        }
        FilterError::Compile(_) => {
            let help =
                "pcap-filter(7) has the syntax, the one of tcpdump; quote an expression of several words";
            Failure::usage(format!("--filter: {error}")).help(help)
        }
        _ => Failure::usage(format!("--filter: {error}"))
            .help("name hosts, nets or ports instead; or capture without it, and filter when replaying"),
    }
}

/// The filter of a run and what it left out, over all inputs.
pub fn of(inputs: &Inputs) -> Option<(&Filter, Refused)> {
    match inputs {
        Inputs::Files { filter, .. } => filter.as_ref().map(|(filter, refused)| (filter, *refused)),
        Inputs::Interfaces { reports, .. } => {
            let filter = reports.iter().find_map(|report| report.filter.as_deref())?;
            let sum = |of: fn(&PortReport) -> u64| reports.iter().map(|report| of(&report.port)).sum();
            let refused = Refused {
                packets: sum(|port| port.filtered),
                tagged: sum(|port| port.filtered_tagged),
                related: sum(|port| port.related),
                unjudged: 0,
            };
            Some((filter, refused))
        }
    }
}

/// Its part of the books; null without a filter.
pub fn books(inputs: &Inputs) -> Value {
    let Some((filter, refused)) = of(inputs) else { return Value::Null };
    json!({
        "expression": filter.expression(), "exact": filter.exact(), "filtered": refused.packets,
        "filtered_vlan": refused.tagged, "filtered_other_link": refused.unjudged, "related": refused.related,
    })
}

/// What people should know at the end.
pub fn notes(inputs: &Inputs) -> Vec<String> {
    let Some((filter, refused)) = of(inputs) else { return Vec::new() };
    let mut notes = Vec::from_iter(advice(filter, refused));
    if refused.unjudged > 0 {
        notes.push(format!(
            "{} were left out because the filter means nothing for their interface's link type",
            plural(refused.unjudged, "packet")
        ));
    }
    notes
}

/// That most of what is left out has a VLAN tag, and how to look behind it.
fn advice(filter: &Filter, refused: Refused) -> Option<String> {
    let expression = filter.expression();
    let looks_behind = expression.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "vlan");
    (refused.tagged > refused.packets / 2 && !looks_behind).then(|| {
        format!(
            "{} of {} filtered packets have a VLAN tag, and an expression looks behind a tag only after the word `vlan`: \
             try --filter '{expression} or (vlan and ({expression}))'",
            count(refused.tagged),
            count(refused.packets)
        )
    })
}

/// The same while a run is under way, once.
#[derive(Debug, Default)]
pub struct Advice {
    looks: u32,
}

impl Advice {
    /// Once a second.
    pub fn look(&mut self, ports: &[Port], reports: &[PortReport]) -> Option<String> {
        if self.looks > PATIENCE {
            return None;
        }
        self.looks += 1;
        if self.looks < PATIENCE {
            return None;
        }
        let filter = ports.iter().find_map(|port| port.filter())?;
        let sum = |of: fn(&PortReport) -> u64| reports.iter().map(of).sum();
        let refused = Refused {
            packets: sum(|report| report.filtered),
            tagged: sum(|report| report.filtered_tagged),
            ..Refused::default()
        };
        let advice = advice(filter, refused);
        // Until there is something to say: packets may come later.
        self.looks = if advice.is_some() { PATIENCE + 1 } else { PATIENCE - 1 };
        advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_worth_a_word_if_they_are_why_most_is_left_out() {
        let asked = |expression: &str, packets, tagged| {
            advice(&Filter::new(expression, false), Refused { packets, tagged, ..Refused::default() })
        };
        let told = asked("host 10.0.0.1", 1000, 501).unwrap();
        assert!(told.starts_with("501 of 1,000 filtered packets have a VLAN tag"), "{told}");
        assert!(told.ends_with("try --filter 'host 10.0.0.1 or (vlan and (host 10.0.0.1))'"), "{told}");
        assert_eq!(asked("host 10.0.0.1", 1000, 500), None);
        assert_eq!(asked("port 80 or (vlan and port 80)", 1000, 900), None);
        assert_eq!(asked("host 10.0.0.1", 0, 0), None);
    }
}
