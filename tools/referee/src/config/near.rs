//! Which known name somebody may have meant who wrote another. Main thread; pure.
//! For messages only: nothing is ever taken for what it is near to.

/// The known name that is fewest changes of a letter away, if that is near enough to be a slip: two letters
/// exchanged are two changes.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|candidate| (distance(name, candidate), *candidate));
    let allowed = (name.chars().count() / 3).clamp(2, 5);
    scored.min().filter(|(score, _)| *score <= allowed).map(|(_, candidate)| candidate)
}

/// Levenshtein distance, in characters.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.chars().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
