//! What a body decides with: `incident`, `explain`, `advise`, `evidence`, `tag`, `withdraw`, `capture`. On the judge's
//! thread; what they are told goes into the run's verdict, or makes the run fail.

use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString, Map};

use crate::body::engine::Stage;
use crate::body::views::{Address, End, View};
use crate::facts::{FlowFacts, HostFacts, ServiceFacts};
use crate::verdict::{CaptureWish, EvidenceValue, Severity, Verdict};

/// Pieces of evidence, of advice and of explanation one run may leave.
const MAX_NOTES: usize = 64;
const TAG_BYTES: usize = 64;

type Done = Result<(), Box<EvalAltResult>>;

pub(crate) fn register(engine: &mut Engine, stage: &Stage) {
    register_words(engine, stage);
    register_evidence(engine, stage);
    register_capture(engine, stage, |_: &View<FlowFacts>, verdict| &mut verdict.capture);
    register_capture(engine, stage, |_: &View<HostFacts>, verdict| &mut verdict.capture);
    register_capture(engine, stage, |_: &View<ServiceFacts>, verdict| &mut verdict.capture);
    register_capture(engine, stage, |end: &End, verdict| match end {
        End::Host => &mut verdict.capture_host,
        End::Service => &mut verdict.capture_service,
    });
}

fn register_words(engine: &mut Engine, stage: &Stage) {
    let at = stage.clone();
    engine.register_fn("incident", move |severity: ImmutableString, text: ImmutableString| -> Done {
        let severity = Severity::from_name(&severity).ok_or_else(|| {
            format!("there is no severity \"{severity}\": use \"info\", \"warning\" or \"critical\"")
        })?;
        at.lock().verdict.incident = Some((severity, text.to_string()));
        Ok(())
    });
    let at = stage.clone();
    engine.register_fn("incident", move |text: ImmutableString| -> Done {
        let mut run = at.lock();
        let severity = run.severity.ok_or("the rule's header names no severity")?;
        run.verdict.incident = Some((severity, text.to_string()));
        Ok(())
    });
    let at = stage.clone();
    engine.register_fn("explain", move |text: ImmutableString| -> Done {
        let explain = &mut at.lock().explain;
        if explain.len() == MAX_NOTES {
            return Err(format!("more than {MAX_NOTES} calls of explain").into());
        }
        explain.push(text);
        Ok(())
    });
    let at = stage.clone();
    engine.register_fn("tag", move |text: ImmutableString| -> Done {
        if text.is_empty() || text.len() > TAG_BYTES {
            return Err(format!("a tag has 1 to {TAG_BYTES} bytes").into());
        }
        let tags = &mut at.lock().verdict.tags;
        if tags.iter().any(|tag| *tag == *text) {
            return Ok(());
        }
        if tags.len() == Verdict::TAGS {
            return Err(format!("more than {} tags", Verdict::TAGS).into());
        }
        tags.push(text.to_string());
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
}

fn register_evidence(engine: &mut Engine, stage: &Stage) {
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
