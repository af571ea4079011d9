//! The Rhai engine that bodies run in: what it offers, what it withholds, and its limits.
//!
//! Used on the judge's thread. The stage is what a run sees and what it leaves behind; the engine's
//! functions reach it through a lock that nobody else ever holds. No one operation takes long: values are small.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage,
    BasicStringPackage, LogicPackage, MoreStringPackage, Package,
};
use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString, OptimizationLevel};

use crate::body::memory::{self, Memory, State};
use crate::body::meter::Meter;
use crate::body::views::{self, Subjects};
use crate::body::{BodyLimits, api, large, words};
use crate::language::syntax::FORBIDDEN;
use crate::verdict::{Severity, Verdict};

const MAX_VARIABLES: usize = 256;
/// Elements of a list, with those of lists in it: each operation on it must be over within some µs.
pub(crate) const MAX_ARRAY: usize = 256;
const MAX_MAP: usize = 256;

/// The name of what a rule remembers.
pub(crate) const STATE: &str = "state";

/// What one run sees and leaves behind.
#[derive(Clone, Default)]
pub(crate) struct Stage(Arc<Mutex<Run>>);

#[derive(Default)]
pub(crate) struct Run {
    pub(crate) subjects: Subjects,
    pub(crate) params: Arc<BTreeMap<String, Dynamic>>,
    /// The header's.
    pub(crate) severity: Option<Severity>,
    pub(crate) memory: Memory,
    /// The memory before this run changed it.
    pub(crate) before: Option<Box<Memory>>,
    pub(crate) verdict: Verdict,
    /// Sentences to follow the incident's own.
    pub(crate) explain: Vec<ImmutableString>,
}

impl Stage {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Run> {
        // A run that panicked leaves only its own verdict behind, which is dropped.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, run: Run) {
        *self.lock() = run;
    }

    /// What the run leaves behind; `whole`: it came to its end. Else its memory is as it was before.
    pub(crate) fn take(&self, whole: bool) -> (Verdict, Memory) {
        let Run { mut verdict, memory, before, explain, .. } = std::mem::take(&mut *self.lock());
        if let Some((_, text)) = &mut verdict.incident {
            for more in explain {
                text.push_str(if text.is_empty() { "" } else { " " });
                text.push_str(&more);
            }
        }
        match before {
            Some(before) if !whole => (verdict, *before),
            _ => (verdict, memory),
        }
    }

    pub(crate) fn memory<T>(&self, read: impl FnOnce(&Memory) -> T) -> T {
        read(&self.lock().memory)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Memory) -> Done) -> Done {
        let mut run = self.lock();
        if run.before.is_none() {
            run.before = Some(Box::new(run.memory.clone()));
        }
        change(&mut run.memory)
    }
}

type Done = Result<(), Box<EvalAltResult>>;

pub(crate) fn build(stage: &Stage, limits: &BodyLimits, meter: &Meter) -> Engine {
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
    api::register(&mut engine, stage);
    memory::register(&mut engine, stage);
    large::register(&mut engine, meter);
    let progress = meter.clone();
    engine.on_progress(move |operations| progress.progress(operations));
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
        let found = run.subjects.find(name).or_else(|| run.params.get(name).cloned());
        Ok(found.or_else(|| (name == STATE).then(|| Dynamic::from(State))))
    });
}
