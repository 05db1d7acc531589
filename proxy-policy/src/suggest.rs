//! "Did you mean …?": the nearest known name by edit distance.

/// The longest name that is compared; what is longer is not a slip of the finger.
const MAX_LEN: usize = 64;

/// The known name that `given` was probably meant to be, if one is near enough.
pub(crate) fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if given.chars().count() > MAX_LEN {
        return None;
    }
    known
        .into_iter()
        .map(|name| (distance(given, name), name))
        .filter(|(distance, name)| *distance <= tolerance(name).min(tolerance(given)))
        .min()
        .map(|(_, name)| name)
}

/// How many slips are forgiven: about one in three letters.
fn tolerance(name: &str) -> usize {
    match name.chars().count() {
        0..=1 => 0,
        2..=5 => 1,
        6..=8 => 2,
        _ => 3,
    }
}

/// Edits between two words: insert, remove, replace, or swap two neighbours (restricted Damerau-Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let mut best =
                (cell(&last, j) + usize::from(ca != cb)).min(cell(&last, j + 1) + 1).min(cell(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                best = best.min(cell(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

/// A help line: the nearest name if there is one, or all of them.
pub(crate) fn help<'k>(given: &str, known: impl IntoIterator<Item = &'k str> + Clone, what: &str) -> String {
    if let Some(name) = nearest(given, known.clone()) {
        return format!("did you mean \"{name}\"?");
    }
    list(known, what)
}

/// A help line that names what is known, up to a dozen.
pub(crate) fn list<'k>(known: impl IntoIterator<Item = &'k str>, what: &str) -> String {
    let mut names: Vec<&str> = known.into_iter().collect();
    if names.is_empty() {
        return format!("no {what} is known");
    }
    names.sort_unstable();
    let more = names.len().saturating_sub(12);
    names.truncate(12);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("known {what}s: {}{rest}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let keys = ["exe", "user", "group", "sha256", "credential"];
        assert_eq!(nearest("exee", keys), Some("exe"));
        assert_eq!(nearest("usre", keys), Some("user"));
        assert_eq!(nearest("credentails", keys), Some("credential"));
        assert_eq!(nearest("Group", keys), Some("group"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
    }

    #[test]
    fn the_distance_is_symmetric_and_zero_only_for_the_same_word() {
        for (a, b, d) in [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), d);
            assert_eq!(distance(b, a), d);
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let names: Vec<String> = (10..40).map(|i| format!("role-{i}")).collect();
        assert!(list(names.iter().map(String::as_str), "role").ends_with("role-21 and 18 more"));
        assert_eq!(list([], "role"), "no role is known");
    }
}
