//! "Did you mean …?": the known name nearest to a misspelt one. Used at load time only.
//! Bounded by the lengths of names; the suggestion goes into a `LoadError`.

/// Shortest word that is looked for within names.
const WORD: usize = 3;

/// The known name that was meant, if one is likely: the shortest that has the word in it, else the nearest, if no more than
/// a slip of the fingers lies between. Of a path the word is what follows the last dot.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = last(name);
    let letters = word.chars().count();
    let known: Vec<&str> = known.into_iter().collect();
    let within = known.iter().filter(|candidate| letters >= WORD && last(candidate).contains(word));
    let scored = known.iter().map(|candidate| (distance(name, candidate), candidate));
    let near = scored.filter(|(score, _)| *score <= 2 && 2 * score < letters).min().map(|(_, near)| near);
    within.min_by_key(|candidate| (candidate.len(), **candidate)).or(near).copied()
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Changes of a letter, in characters; two neighbours exchanged are one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = [vec![0; b.len() + 1], (0..=b.len()).collect(), vec![0; b.len() + 1]];
    for i in 1..=a.len() {
        let [before, last, row] = &mut rows;
        row[0] = i;
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(row[j - 1] + 1).min(last[j] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
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
        let facts = ["flow.dst", "flow.rst", "flow.rtt_server_us", "flow.orig.mss"];
        assert_eq!(nearest("flow.foo", facts), None, "one letter of three is no slip");
        assert_eq!(nearest("flow.rtt", facts), Some("flow.rtt_server_us"));
        assert_eq!(nearest("flow.orig.mms", facts), Some("flow.orig.mss"));
        assert_eq!(nearest("idle", ["isle", "server_idle_ms", "idle_ms"]), Some("idle_ms"));
        assert_eq!(nearest("", known), None);
        assert_eq!([distance("kitten", "sitting"), distance("abcd", "bacd"), distance("", "ab")], [3, 1, 2]);
    }
}
