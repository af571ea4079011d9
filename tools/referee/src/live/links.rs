//! Whether the interfaces are still what they were when they were taken: named so, with a link, with the queues, the MTU
//! and the XDP program that the capture was set up for. What it can go on with is said; what it can't ends the run in
//! order, for a supervisor to start it again.
//!
//! Main thread. The kernel tells of changes (netlink), and once a second everything is looked at besides: it tells nobody
//! of some, and not everything reaches who is slow to listen.

use dataplane::source::live::{Needs, Port};
use dataplane::source::netlink::LinkEvents;
use dataplane::source::nic::NicState;
use dataplane_sys::ethtool;

use crate::error::{Code, Failure};

/// What was last known of an interface.
struct Known {
    name: String,
    linked: bool,
}

/// Watches the interfaces of a run.
pub struct Links {
    /// `None` if the kernel lets nobody listen; then changes are noticed within a second.
    events: Option<LinkEvents>,
    known: Vec<Known>,
}

impl Links {
    pub fn new(ports: &[Port]) -> Links {
        let known = |port: &Port| Known { name: port.nic().name.clone(), linked: port.nic().carrier };
        Links { events: LinkEvents::listen().ok(), known: ports.iter().map(known).collect() }
    }

    /// True if something may have changed at one of the interfaces since the last call.
    pub fn stirred(&self, ports: &[Port]) -> bool {
        let ours = |ifindex| ports.iter().any(|port| port.nic().ifindex == ifindex);
        self.events.as_ref().is_some_and(|events| events.stirred(ours))
    }

    /// Says what has changed.
    ///
    /// # Errors
    /// Privilege: an interface has gone. Changed: one can't be captured from any more as it was set up for.
    pub fn look(&mut self, ports: &[Port], say: &mut dyn FnMut(&str)) -> Result<(), Failure> {
        for (port, known) in ports.iter().zip(&mut self.known) {
            let now = port.nic().now().map_err(|error| {
                Failure::new(Code::Privilege, format!("{} has gone: {error}", known.name))
                    .help("everything captured before is safe; start again when it is back")
            })?;
            known.compare(&port.nic().name, &now).iter().for_each(|what| say(what));
            let queues = ethtool::receive_queues(&now.name).ok();
            if let Some(what) = unfit(&port.needs(), &now, queues) {
                let what = format!("{} changed: {what}", now.name);
                let help = "everything captured before is safe; start again to capture from it as it is now";
                return Err(Failure::new(Code::Changed, what).help(help));
            }
        }
        Ok(())
    }
}

impl Known {
    /// What has become different and is no reason to end, in words; from now on it is known.
    fn compare(&mut self, taken_as: &str, now: &NicState) -> Vec<String> {
        let mut words = Vec::new();
        if self.name != now.name {
            words.push(format!(
                "{} is called {} now; it is captured from as before, and the books and captures go on calling it \
                 {taken_as}",
                self.name, now.name
            ));
            self.name.clone_from(&now.name);
        }
        if self.linked != now.linked {
            self.linked = now.linked;
            let what = if now.linked { "has a link again" } else { "has no link: nothing can come" };
            words.push(format!("{} {what}", self.name));
        }
        words
    }
}

/// What of an interface the capture can't go on with, in words.
fn unfit(needs: &Needs, now: &NicState, queues: Option<u32>) -> Option<String> {
    if let (Some(wanted), Some(there)) = (needs.queues, queues)
        && wanted != there
    {
        return Some(format!("it has {there} receive queues now, and {wanted} when it was taken"));
    }
    if let Some(largest) = needs.mtu.filter(|largest| now.mtu > *largest) {
        let mtu = now.mtu;
        return Some(format!("its MTU is {mtu} now, and it was taken for packets of up to {largest} bytes"));
    }
    match (needs.program, now.xdp_program) {
        (Some(wanted), Some(there)) if wanted != there => {
            Some(format!("XDP program {there} has taken the place of Referee's, {wanted}"))
        }
        (Some(wanted), None) => Some(format!("somebody took Referee's XDP program off it (id {wanted})")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> NicState {
        NicState { name: "tap0".into(), linked: true, mtu: 1500, xdp_program: Some(7) }
    }

    #[test]
    fn what_it_can_go_on_with_is_said_once() {
        let mut known = Known { name: "tap0".into(), linked: true };
        assert_eq!(known.compare("tap0", &state()), [""; 0]);
        let renamed = NicState { name: "mon0".into(), linked: false, ..state() };
        let said = known.compare("tap0", &renamed);
        assert!(said[0].starts_with("tap0 is called mon0 now"), "{said:?}");
        assert_eq!(said[1..], ["mon0 has no link: nothing can come"]);
        assert_eq!(known.compare("tap0", &renamed), [""; 0]);
    }

    #[test]
    fn what_it_cannot_go_on_with_is_named() {
        let needs = Needs { program: Some(7), queues: Some(1), mtu: Some(1770) };
        assert_eq!(unfit(&needs, &state(), Some(1)), None);
        // A driver that doesn't say, and an MTU that grew within bounds, are no reason.
        assert_eq!(unfit(&needs, &NicState { mtu: 1770, ..state() }, None), None);
        let words = |now: NicState, queues| unfit(&needs, &now, Some(queues)).unwrap();
        assert!(words(state(), 2).starts_with("it has 2 receive queues now"));
        assert!(words(NicState { mtu: 9000, ..state() }, 1).starts_with("its MTU is 9000 now"));
        assert!(
            words(NicState { xdp_program: Some(8), ..state() }, 1).starts_with("XDP program 8 has taken")
        );
        assert!(
            words(NicState { xdp_program: None, ..state() }, 1).starts_with("somebody took Referee's XDP")
        );
        // Who captures without a program doesn't mind who else has one.
        assert_eq!(unfit(&Needs::default(), &NicState { mtu: 9000, ..state() }, Some(4)), None);
    }
}
