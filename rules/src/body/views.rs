//! The subjects of a rule as its body sees them: `flow`, `flow.orig`, `host`, `service`, `link`, and addresses.
//!
//! Values on the judge's thread. Their getters are registered from the table of facts; an unknown fact
//! reads as `()`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString};

use crate::body::Snapshot;
use crate::facts::table::{Fact, Get, Subject, Window};
use crate::facts::{FlowFacts, HostFacts, LinkFacts, ServiceFacts, SideFacts};
use crate::network::Network;

/// `flow`, `host`, `service` or `link`; cheap to hand around.
#[derive(Clone, Debug)]
pub(crate) struct View<S>(Arc<S>);

/// `flow.orig` or `flow.resp`: a group of facts, by the path before its last dot.
#[derive(Clone, Debug)]
pub(crate) struct SideView {
    facts: Arc<FlowFacts>,
    group: &'static str,
}

impl SideView {
    pub(crate) fn facts(&self) -> &SideFacts {
        if self.group == "orig" { &self.facts.orig } else { &self.facts.resp }
    }
}

/// An address; a type of its own, so that `in "10.0.0.0/8"` asks for the network and not for the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) IpAddr);

/// `host` or `service` in a rule about a flow: the flow's client, or the service it goes to, to be captured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Host,
    Service,
}

/// The subject of one run, by its name.
#[derive(Clone, Debug, Default)]
pub(crate) enum Subjects {
    #[default]
    None,
    Flow(View<FlowFacts>),
    Host(View<HostFacts>),
    Service(View<ServiceFacts>),
    Link(View<LinkFacts>),
}

impl Subjects {
    pub(crate) fn of(snapshot: &Snapshot) -> Subjects {
        match snapshot {
            Snapshot::Flow(facts, _) => Subjects::Flow(View(Arc::new(**facts))),
            Snapshot::Host(facts) => Subjects::Host(View(Arc::new(**facts))),
            Snapshot::Service(facts) => Subjects::Service(View(Arc::new(**facts))),
            Snapshot::Link(facts) => Subjects::Link(View(Arc::new(**facts))),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Dynamic> {
        match (self, name) {
            (Subjects::Flow(view), "flow") => Some(Dynamic::from(view.clone())),
            (Subjects::Flow(_), "host") => Some(Dynamic::from(End::Host)),
            (Subjects::Flow(_), "service") => Some(Dynamic::from(End::Service)),
            (Subjects::Host(view), "host") => Some(Dynamic::from(view.clone())),
            (Subjects::Service(view), "service") => Some(Dynamic::from(view.clone())),
            (Subjects::Link(view), "link") => Some(Dynamic::from(view.clone())),
            _ => None,
        }
    }
}

type Fallible = Result<Dynamic, Box<EvalAltResult>>;

pub(crate) fn register(engine: &mut Engine) {
    register_address(engine);
    engine.register_type_with_name::<View<FlowFacts>>("flow");
    engine.register_type_with_name::<View<HostFacts>>("host");
    engine.register_type_with_name::<View<ServiceFacts>>("service");
    engine.register_type_with_name::<View<LinkFacts>>("link");
    engine.register_type_with_name::<SideView>("side of a flow");
    register_subject::<FlowFacts>(engine);
    register_subject::<HostFacts>(engine);
    register_subject::<ServiceFacts>(engine);
    register_subject::<LinkFacts>(engine);
    for group in ["orig", "resp"] {
        let view = move |flow: &mut View<FlowFacts>| SideView { facts: Arc::clone(&flow.0), group };
        engine.register_get(group, view);
    }
    register_sides(engine);
}

fn register_address(engine: &mut Engine) {
    engine.register_type_with_name::<Address>("address");
    engine.register_fn("to_string", |a: &mut Address| a.0.to_string());
    engine.register_fn("to_debug", |a: &mut Address| a.0.to_string());
    engine.register_fn("==", |a: Address, b: Address| a == b);
    engine.register_fn("!=", |a: Address, b: Address| a != b);
    engine.register_fn("==", |a: Address, b: ImmutableString| is(a, &b));
    engine.register_fn("!=", |a: Address, b: ImmutableString| is(a, &b).map(|same| !same));
    engine.register_fn("==", |a: ImmutableString, b: Address| is(b, &a));
    engine.register_fn("!=", |a: ImmutableString, b: Address| is(b, &a).map(|same| !same));
    engine.register_fn("+", |a: ImmutableString, b: Address| format!("{a}{}", b.0));
    engine.register_fn("+", |a: Address, b: ImmutableString| format!("{}{b}", a.0));
    engine.register_fn("contains", |network: ImmutableString, a: Address| within(&network, a));
    engine.register_fn("contains", |list: rhai::Array, a: Address| -> Result<bool, Box<EvalAltResult>> {
        let mut found = false;
        for item in list {
            found |= match item.clone().try_cast::<Address>() {
                Some(other) => other == a,
                None => within(
                    &item.into_immutable_string().map_err(|t| format!("a list of networks holds {t}"))?,
                    a,
                )?,
            };
        }
        Ok(found)
    });
}

fn is(address: Address, text: &str) -> Result<bool, Box<EvalAltResult>> {
    let other: IpAddr = text.parse().map_err(|_| format!("\"{text}\" is not an IP address"))?;
    Ok(address.0 == other)
}

fn within(network: &str, address: Address) -> Result<bool, Box<EvalAltResult>> {
    Ok(Network::parse(network)?.contains(address.0))
}

fn window(seconds: i64) -> Result<Window, Box<EvalAltResult>> {
    Window::from_seconds(seconds)
        .ok_or_else(|| format!("counts are kept over 1, 10 and 60 s, not {seconds} s").into())
}

/// The name behind the last dot.
fn last_name(path: &'static str) -> &'static str {
    path.rsplit('.').next().unwrap_or(path)
}

fn read<S>(fact: &Fact<S>, subject: &S) -> Dynamic {
    #[cfg(test)]
    if super::unknown::is_hidden(fact.path) {
        return Dynamic::UNIT;
    }
    let value = match fact.get {
        Get::Int(get) => get(subject).map(Dynamic::from_int),
        Get::Bool(get) => get(subject).map(Dynamic::from_bool),
        Get::Address(get) => get(subject).map(|address| Dynamic::from(Address(address))),
        Get::Text(get) => get(subject).map(|name| Dynamic::from(name.to_string())),
        Get::CountOver(_) | Get::RateOver(_) => None,
    };
    value.unwrap_or(Dynamic::UNIT)
}

/// Facts directly below the subject; those of a group are registered by [`register_sides`].
fn register_subject<S: Subject + Clone + Send + Sync>(engine: &mut Engine) {
    for fact in S::facts().filter(|fact| fact.path.matches('.').count() == 1) {
        let name = last_name(fact.path);
        match fact.get {
            Get::CountOver(get) => {
                engine.register_fn(name, move |view: &mut View<S>, seconds: i64| -> Fallible {
                    #[cfg(test)]
                    if super::unknown::is_hidden(fact.path) {
                        return Ok(Dynamic::UNIT);
                    }
                    Ok(get(&view.0, window(seconds)?).map_or(Dynamic::UNIT, Dynamic::from_int))
                });
            }
            Get::RateOver(get) => {
                engine.register_fn(name, move |view: &mut View<S>, seconds: i64| -> Fallible {
                    #[cfg(test)]
                    if super::unknown::is_hidden(fact.path) {
                        return Ok(Dynamic::UNIT);
                    }
                    Ok(get(&view.0, window(seconds)?).map_or(Dynamic::UNIT, Dynamic::from_float))
                });
            }
            _ => {
                engine.register_get(name, move |view: &mut View<S>| read(fact, &view.0));
            }
        }
    }
}

/// A getter for each name in a group; it looks its fact up by the group it is asked on.
fn register_sides(engine: &mut Engine) {
    let mut by_name: BTreeMap<&'static str, Vec<(&'static str, &'static Fact<FlowFacts>)>> = BTreeMap::new();
    for fact in FlowFacts::facts() {
        if let [_, group, name] = *fact.path.split('.').collect::<Vec<_>>() {
            by_name.entry(name).or_default().push((group, fact));
        }
    }
    for (name, same_name) in by_name {
        engine.register_get(name, move |side: &mut SideView| {
            let fact = same_name.iter().find(|(group, _)| *group == side.group);
            fact.map_or(Dynamic::UNIT, |(_, fact)| read(fact, &side.facts))
        });
    }
}
