//! The Rhai engine that bodies run in: what it offers, what it withholds, and its limits.
//!
//! Used on the judge's thread. The stage is what a run sees and what it leaves behind; the engine's
//! functions reach it through a lock that nobody else ever holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage,
    BasicStringPackage, LogicPackage, MoreStringPackage, Package,
};
use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString, Map, OptimizationLevel};

use crate::body::BodyLimits;
use crate::body::views::{self, Address, End, Subjects, View};
use crate::body::words;
use crate::facts::{FlowFacts, HostFacts, ServiceFacts};
use crate::language::syntax::FORBIDDEN;
use crate::verdict::{CaptureWish, EvidenceValue, Severity, Verdict};

const MAX_VARIABLES: usize = 256;
const MAX_ARRAY: usize = 1_024;
const MAX_MAP: usize = 256;
/// Operations between two looks at the clock: a look costs as much as a few operations.
const CLOCK_EVERY: u64 = 16;
/// Pieces of evidence and of advice one run may leave.
const MAX_NOTES: usize = 64;

/// What one run sees and leaves behind.
#[derive(Clone, Default)]
pub(crate) struct Stage(Arc<Mutex<Run>>);

#[derive(Default)]
struct Run {
    subjects: Subjects,
    params: Arc<BTreeMap<String, Dynamic>>,
    deadline: Option<Instant>,
    verdict: Verdict,
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, Run> {
        // A run that panicked leaves only its own verdict behind, which is dropped.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(
        &self,
        subjects: Subjects,
        params: Arc<BTreeMap<String, Dynamic>>,
        deadline: Option<Instant>,
    ) {
        *self.lock() = Run { subjects, params, deadline, verdict: Verdict::default() };
    }

    pub(crate) fn take(&self) -> Verdict {
        std::mem::take(&mut *self.lock()).verdict
    }
}

type Done = Result<(), Box<EvalAltResult>>;

pub(crate) fn build(stage: &Stage, limits: &BodyLimits) -> Engine {
    let mut engine = Engine::new_raw();
    engine.set_optimization_level(OptimizationLevel::None);
    engine.register_global_module(ArithmeticPackage::new().as_shared_module());
    engine.register_global_module(BasicStringPackage::new().as_shared_module());
    engine.register_global_module(BasicIteratorPackage::new().as_shared_module());
    engine.register_global_module(LogicPackage::new().as_shared_module());
    engine.register_global_module(BasicMathPackage::new().as_shared_module());
    engine.register_global_module(BasicArrayPackage::new().as_shared_module());
    engine.register_global_module(BasicMapPackage::new().as_shared_module());
    engine.register_global_module(MoreStringPackage::new().as_shared_module());
    // The loader has refused these already; a body must not find them by another way.
    for symbol in FORBIDDEN {
        engine.disable_symbol(symbol);
    }
    engine.set_max_operations(limits.operations.max(1));
    engine.set_max_call_levels(limits.depth);
    engine.set_max_string_size(limits.string_len.max(1));
    engine.set_max_variables(MAX_VARIABLES);
    engine.set_max_array_size(MAX_ARRAY);
    engine.set_max_map_size(MAX_MAP);
    engine.set_max_modules(0);
    views::register(&mut engine);
    words::register(&mut engine);
    register_names(&mut engine, stage);
    register_verdict(&mut engine, stage);
    register_deadline(&mut engine, stage);
    #[cfg(test)]
    engine.register_fn("panic_for_test", || -> i64 { panic!("as asked for by a test") });
    engine
}

/// `flow`, `host`, `service` and the params are found by name everywhere, in helper functions too, where
/// Rhai's own scope does not reach. Variables that the body declares come with an index and go first.
#[allow(deprecated, reason = "rhai marks on_var as volatile, not as going away; the version is pinned")]
fn register_names(engine: &mut Engine, stage: &Stage) {
    let stage = stage.clone();
    engine.on_var(move |name, index, _| {
        if index > 0 {
            return Ok(None);
        }
        let run = stage.lock();
        Ok(run.subjects.find(name).or_else(|| run.params.get(name).cloned()))
    });
}

fn register_deadline(engine: &mut Engine, stage: &Stage) {
    let stage = stage.clone();
    engine.on_progress(move |operations| {
        if operations % CLOCK_EVERY != 0 {
            return None;
        }
        let late = stage.lock().deadline.is_some_and(|deadline| Instant::now() >= deadline);
        late.then_some(Dynamic::UNIT)
    });
}

fn register_verdict(engine: &mut Engine, stage: &Stage) {
    let at = stage.clone();
    engine.register_fn("incident", move |severity: ImmutableString, text: ImmutableString| -> Done {
        let severity = Severity::from_name(&severity).ok_or_else(|| {
            format!("there is no severity \"{severity}\": use \"info\", \"warning\" or \"critical\"")
        })?;
        at.lock().verdict.incident = Some((severity, text.to_string()));
        Ok(())
    });
    let at = stage.clone();
    engine.register_fn("withdraw", move |reason: ImmutableString| {
        at.lock().verdict.withdraw = Some(reason.to_string());
    });
    let at = stage.clone();
    engine.register_fn("advise", move |text: ImmutableString| -> Done {
        let advise = &mut at.lock().verdict.advise;
        if advise.len() == MAX_NOTES {
            return Err(format!("more than {MAX_NOTES} pieces of advice").into());
        }
        advise.push(text.to_string());
        Ok(())
    });
    let at = stage.clone();
    engine.register_fn("evidence", move |name: ImmutableString, value: Dynamic| -> Done {
        let value = evidence_value(value);
        let evidence = &mut at.lock().verdict.evidence;
        match evidence.iter().position(|(known, _)| known.as_str() == name.as_str()) {
            Some(index) => evidence[index].1 = value,
            None if evidence.len() == MAX_NOTES => {
                return Err(format!("more than {MAX_NOTES} pieces of evidence").into());
            }
            None => evidence.push((name.to_string(), value)),
        }
        Ok(())
    });
    register_capture(engine, stage, |_: &View<FlowFacts>, verdict| &mut verdict.capture);
    register_capture(engine, stage, |_: &View<HostFacts>, verdict| &mut verdict.capture);
    register_capture(engine, stage, |_: &View<ServiceFacts>, verdict| &mut verdict.capture);
    register_capture(engine, stage, |end: &End, verdict| match end {
        End::Host => &mut verdict.capture_host,
        End::Service => &mut verdict.capture_service,
    });
}

/// `of` says where in the verdict a capture of such a subject is noted.
fn register_capture<V: Clone + Send + Sync + 'static>(
    engine: &mut Engine,
    stage: &Stage,
    of: for<'v> fn(&V, &'v mut Verdict) -> &'v mut Option<CaptureWish>,
) {
    let at = stage.clone();
    engine.register_fn("capture", move |subject: V| {
        of(&subject, &mut at.lock().verdict).get_or_insert_default();
    });
    let at = stage.clone();
    engine.register_fn("capture", move |subject: V, wish: Map| -> Done {
        let wish = capture_wish(wish)?;
        *of(&subject, &mut at.lock().verdict) = Some(wish);
        Ok(())
    });
}

fn capture_wish(map: Map) -> Result<CaptureWish, Box<EvalAltResult>> {
    let mut wish = CaptureWish::default();
    for (name, value) in map {
        let slot = match name.as_str() {
            "packets" => &mut wish.packets,
            "bytes" => &mut wish.bytes,
            "seconds" => &mut wish.seconds,
            other => {
                return Err(format!("capture has no limit `{other}`: use packets, bytes or seconds").into());
            }
        };
        match value.as_int() {
            Ok(value) if value >= 0 => *slot = Some(value),
            Ok(value) => return Err(format!("capture: {name} cannot be {value}").into()),
            Err(found) => return Err(format!("capture: {name} must be an integer, not {found}").into()),
        }
    }
    Ok(wish)
}

fn evidence_value(value: Dynamic) -> EvidenceValue {
    if value.is_unit() {
        return EvidenceValue::Unknown;
    }
    if let Ok(value) = value.as_int() {
        return EvidenceValue::Int(value);
    }
    if let Ok(value) = value.as_float() {
        return EvidenceValue::Float(value);
    }
    if let Ok(value) = value.as_bool() {
        return EvidenceValue::Bool(value);
    }
    match value.clone().try_cast::<Address>() {
        Some(address) => EvidenceValue::Address(address.0),
        None => EvidenceValue::Text(value.to_string()),
    }
}
