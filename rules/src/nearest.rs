//! "Did you mean …?": the known name nearest to a misspelt one. Used at load time only.
//! Bounded by the lengths of names; the suggestion goes into a `LoadError`.

/// The nearest of `known`, if any is near enough to be a slip of the fingers.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = name.chars().count().div_ceil(3).clamp(1, 4);
    let scored = known.into_iter().map(|candidate| (distance(name, candidate), candidate));
    scored.filter(|(score, _)| *score <= allowed).min().map(|(_, candidate)| candidate)
}

/// Levenshtein distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["idle_ms", "per_second", "timeout_ms"];
        assert_eq!(nearest("idel_ms", known), Some("idle_ms"));
        assert_eq!(nearest("per_secnd", known), Some("per_second"));
        assert_eq!(nearest("idel", ["idle"]), Some("idle"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
