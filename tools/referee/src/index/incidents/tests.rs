//! With the index and without it, incidents are the same: while lines come, files are rotated, and the index lags, is ahead,
//! or is damaged.
//!
//! One thread; the index is filled by hand, look by look.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::IpAddr;

use dataplane::record::{Finder, IncidentLog, IncidentRecord, ReadAll, Store};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::super::held::Held;
use super::super::tests::{Dice, fill};
use super::super::{finder, schema};
use super::{Shown, Sieve, walk};

fn store(folder: &tempfile::TempDir) -> Store {
    Store::create(&folder.path().join("store")).unwrap()
}

fn incident(dice: &mut Dice, ids: u64) -> Value {
    let id = dice.roll(ids);
    let kind = ["a", "b", "c"][dice.roll(3) as usize];
    let severity = ["info", "critical"][dice.roll(2) as usize];
    let first = (id * 7919) % 100;
    json!({
        "id": format!("{id:03}"), "kind": kind, "severity": severity, "first_ns": first,
        "last_ns": first + dice.roll(50), "withdrawn": dice.roll(4) == 0,
        "subject": {"src": format!("10.0.0.{}", dice.roll(4)), "dst": "2001:db8::1"},
        "explain": "x".repeat(dice.roll(60) as usize),
    })
}

fn sieve(dice: &mut Dice) -> Sieve {
    let mut one_in = |sides: u64| dice.roll(sides) == 0;
    let with = [one_in(2), one_in(3), one_in(3), one_in(3), one_in(3), one_in(3), one_in(3)];
    Sieve {
        after: with[0].then(|| (dice.roll(100), format!("{:03}", dice.roll(200)))),
        kind: with[1].then(|| "b".to_owned()),
        severity: with[2].then(|| "info".to_owned()),
        withdrawn: with[3].then(|| dice.roll(2) == 0),
        host: with[4].then(|| IpAddr::from([10, 0, 0, dice.roll(5) as u8])),
        since: with[5].then(|| dice.roll(120)),
        until: with[6].then(|| dice.roll(120)),
    }
}

fn passes(sieve: &Sieve, record: &IncidentRecord) -> bool {
    let about = |host: IpAddr| record.rest["subject"]["src"] == host.to_string();
    sieve.after.as_ref().is_none_or(|(ns, id)| (record.first_ns, &record.id) < (*ns, id))
        && sieve.kind.as_ref().is_none_or(|kind| record.kind == *kind)
        && sieve.severity.as_ref().is_none_or(|severity| record.severity == *severity)
        && sieve.withdrawn.is_none_or(|withdrawn| record.rest["withdrawn"] == withdrawn)
        && sieve.host.is_none_or(about)
        && sieve.since.is_none_or(|since| record.last_ns >= since)
        && sieve.until.is_none_or(|until| record.first_ns <= until)
}

/// What passes, newest first, and how many were shown in that order.
fn found(store: &Store, sieve: &Sieve) -> (Vec<IncidentRecord>, usize) {
    let (mut all, mut newest) = (HashMap::new(), Vec::new());
    walk(store, sieve, &mut |shown, record| {
        if shown == Shown::Newest {
            newest.push((record.first_ns, record.id.clone()));
        }
        all.insert(record.id.clone(), record);
        true
    })
    .unwrap();
    assert!(newest.is_sorted_by(|a, b| a > b), "{newest:?}");
    let passing = all.into_values().filter(|record| passes(sieve, record));
    let listed: BTreeMap<_, _> =
        passing.map(|record| ((record.first_ns, record.id.clone()), record)).collect();
    (listed.into_values().rev().collect(), newest.len())
}

/// Without an index.
fn truth(store: &Store, sieve: &Sieve) -> Vec<IncidentRecord> {
    let mut all = HashMap::new();
    store.each_incident(|_, record: IncidentRecord| drop(all.insert(record.id.clone(), record))).unwrap();
    let passing = all.into_values().filter(|record| passes(sieve, record));
    let listed: BTreeMap<_, _> =
        passing.map(|record| ((record.first_ns, record.id.clone()), record)).collect();
    listed.into_values().rev().collect()
}

fn same(store: &Store, dice: &mut Dice) -> usize {
    let sieve = sieve(dice);
    let (found, by_index) = found(store, &sieve);
    assert_eq!(found, truth(store, &sieve), "{sieve:?}");
    let id = format!("{:03}", dice.roll(200));
    let [with, without] =
        [&*finder(store), &ReadAll as &dyn Finder].map(|by| store.incident_by(&id, by).unwrap());
    assert_eq!(with, without);
    by_index
}

fn check(store: &Store, dice: &mut Dice, times: u32) {
    for _ in 0..times {
        same(store, dice);
    }
}

#[test]
fn incidents_are_the_same_with_and_without_while_files_are_rotated() {
    let (mut dice, mut by_index) = (Dice(4_242_424_242), 0);
    for _ in 0..8 {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let mut log = IncidentLog::open(&store).unwrap().bounded(6000, None);
        for _ in 0..60 {
            for _ in 0..dice.roll(12) {
                log.append(&incident(&mut dice, 200)).unwrap();
            }
            match dice.roll(20) {
                0 => {
                    // A kill in mid-rotation, or in mid-line.
                    drop(log);
                    if dice.roll(2) == 0 && store.incidents_path().exists() {
                        fs::rename(store.incidents_path(), store.older_incidents_path()).unwrap();
                    } else {
                        let torn =
                            [fs::read(store.incidents_path()).unwrap(), b"{\"id\":\"to".to_vec()].concat();
                        fs::write(store.incidents_path(), torn).unwrap();
                    }
                    by_index += same(&store, &mut dice);
                    log = IncidentLog::open(&store).unwrap().bounded(6000, None);
                }
                1..=10 => fill(&store, false),
                _ => {}
            }
            by_index += same(&store, &mut dice);
        }
        fill(&store, false);
        (0..20).for_each(|_| by_index += same(&store, &mut dice));
    }
    assert!(by_index > 1000, "the index finds them: {by_index}");
}

#[test]
fn a_page_of_many_reads_little() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    let mut log = IncidentLog::open(&store).unwrap();
    (0..500).for_each(|n| log.append(&json!({"id": format!("{n:03}"), "first_ns": n})).unwrap());
    fill(&store, false);
    log.append(&json!({"id": "100", "first_ns": 100, "kind": "late"})).unwrap();
    let mut shown = Vec::new();
    walk(&store, &Sieve::default(), &mut |how, record| {
        shown.push((how, record.id));
        shown.len() < 4
    })
    .unwrap();
    let newest = |id: &str| (Shown::Newest, id.to_owned());
    assert_eq!(shown, [(Shown::Written, "100".to_owned()), newest("499"), newest("498"), newest("497")]);
}

#[test]
fn an_index_that_lies_or_is_ahead_changes_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    let mut dice = Dice(77);
    let mut log = IncidentLog::open(&store).unwrap().bounded(6000, None);
    (0..10).for_each(|_| log.append(&incident(&mut dice, 200)).unwrap());
    let before = fs::read(store.incidents_path()).unwrap();
    assert!(!store.older_incidents_path().exists());
    (0..30).for_each(|_| log.append(&incident(&mut dice, 200)).unwrap());
    fill(&store, false);
    let whole = fs::read(schema::path(&store)).unwrap();
    // The files as they were before, under an index of the ones after.
    fs::remove_file(store.older_incidents_path()).unwrap();
    fs::write(store.incidents_path(), &before).unwrap();
    check(&store, &mut dice, 10);
    fill(&store, false);
    (0..10).for_each(|_| assert!(same(&store, &mut dice) <= 10));
    // Places where no such line is.
    let db = Connection::open(schema::path(&store)).unwrap();
    db.execute("UPDATE incidents SET at = at + 1", []).unwrap();
    check(&store, &mut dice, 10);
    drop(db);
    for keep in [0, 50, 4096, whole.len() / 2, whole.len() - 4096] {
        fs::write(schema::path(&store), &whole[..keep]).unwrap();
        check(&store, &mut dice, 5);
    }
    fs::remove_file(schema::path(&store)).unwrap();
    (0..5).for_each(|_| assert_eq!(same(&store, &mut dice), 0));
}

#[test]
fn what_is_held_is_known_or_not_and_never_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    assert!(Held::now(&store).is_none());
    fill(&store, false);
    let held = |flows: &[u64], this_run| Held::now(&store).unwrap().any(flows, 5, this_run);
    assert_eq!((held(&[], None), held(&[1], None)), (Some(false), Some(false)), "there is no segment");
    let name = "w0-00000000000000000001-000000.pcapng.zst";
    fs::write(store.segments().join(name), "four").unwrap();
    assert_eq!(held(&[1], None), None, "one that the index doesn't know");
    assert_eq!(held(&[1], Some(6)), Some(false), "of this run, which began after that was over");
    assert_eq!(held(&[1], Some(4)), None);
    let db = Connection::open(schema::path(&store)).unwrap();
    db.execute("INSERT INTO segments VALUES(7, ?1, 4, 1, 1, 1, 1, 'complete', 1)", [name]).unwrap();
    db.execute("INSERT INTO extents VALUES(1, 7, 1, 1)", []).unwrap();
    assert_eq!((held(&[9, 1], None), held(&[2], None)), (Some(true), Some(false)));
    fs::write(store.segments().join(name), "grown").unwrap();
    assert_eq!(held(&[1], None), None, "not the one that it knows");
    fs::remove_file(store.segments().join(name)).unwrap();
    assert_eq!(held(&[1], None), Some(false), "deleted since");
}
