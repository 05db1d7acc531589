//! Our part of a file of certificates that is somebody else's: between two lines, put in and taken out exactly.

use super::roots::Roots;

const BEGIN: &str = "# BEGIN vouchsafe trust: `vouchsafe trust remove` takes this out again";
/// Said where the file did not end with a newline, which is ours then.
const JOINED: &str = " (with the line end before it)";
const END: &str = "# END vouchsafe trust";

/// A file, cut at our part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// What stands before our part; all of the file when there is none.
    pub(super) before: &'a [u8],
    /// What is between our lines.
    pub(super) ours: Option<&'a [u8]>,
    /// What stands behind it.
    pub(super) after: &'a [u8],
}

/// Finds our part.
///
/// # Errors
/// There are several, or one of its lines is missing: somebody else was at it.
pub(super) fn find(content: &[u8]) -> Result<Parts<'_>, &'static str> {
    const DAMAGED: &str = "has lines `# BEGIN vouchsafe trust` and `# END vouchsafe trust` that do not belong together: \
                           delete them and what is between them by hand";
    let lines = || {
        let mut at = 0;
        content.split_inclusive(|byte| *byte == b'\n').map(move |line| {
            let start = at;
            at += line.len();
            (start, at, line.trim_ascii_end())
        })
    };
    let mut begins = lines().filter(|(.., line)| line.starts_with(BEGIN.as_bytes()));
    let mut ends = lines().filter(|(.., line)| *line == END.as_bytes());
    let (begin, end) = match (begins.next(), ends.next(), begins.next(), ends.next()) {
        (None, None, ..) => return Ok(Parts { before: content, ours: None, after: b"" }),
        (Some(begin), Some(end), None, None) if begin.1 <= end.0 => (begin, end),
        _ => return Err(DAMAGED),
    };
    let joined = begin.2.ends_with(JOINED.as_bytes()) && begin.0 > 0;
    let cut = |from: usize, to: usize| content.get(from..to).ok_or(DAMAGED);
    Ok(Parts {
        before: cut(0, begin.0 - usize::from(joined))?,
        ours: Some(cut(begin.1, end.0)?),
        after: cut(end.1, content.len())?,
    })
}

/// The file with these roots as our part, where it is or else at the end; without roots, without our part.
///
/// # Errors
/// Those of [`find`].
pub(super) fn with(content: &[u8], roots: &Roots) -> Result<Vec<u8>, &'static str> {
    let Parts { before, after, .. } = find(content)?;
    if roots.is_empty() {
        return Ok([before, after].concat());
    }
    let joined = before.last().is_some_and(|byte| *byte != b'\n');
    let (line_end, joined) = if joined { ("\n", JOINED) } else { ("", "") };
    let mut ours = format!("{line_end}{BEGIN}{joined}\n");
    for root in roots.iter() {
        ours.push_str(&format!("# {}\n{}", root.about, root.pem));
    }
    ours.push_str(END);
    ours.push('\n');
    Ok([before, ours.as_bytes(), after].concat())
}

#[cfg(test)]
mod tests {
    use super::super::roots::tests::{part, some};
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static ROOTS: LazyLock<Roots> = LazyLock::new(|| some(3));

    proptest! {
        #[test]
        fn what_was_put_in_is_taken_out_exactly_and_others_changes_stay(
            content in proptest::collection::vec(prop_oneof!["[ -~]{0,20}", "[\r\n\u{e9}]{1,2}"], 0..12),
            more in "[ -~\n]{0,40}",
            first in 0_usize..4,
            second in 1_usize..4,
        ) {
            let content = content.concat().into_bytes();
            let (first, second) = (part(&ROOTS, 0..first), part(&ROOTS, 3 - second..3));
            let once = with(&content, &first).unwrap();
            let twice = with(&once, &second).unwrap();
            prop_assert_eq!(&twice, &with(&content, &second).unwrap(), "nothing of the first is left");
            prop_assert_eq!(&with(&twice, &second).unwrap(), &twice, "again is no change");
            prop_assert_eq!(&with(&twice, &Roots::default()).unwrap(), &content);
            let ours = find(&twice).unwrap().ours.unwrap();
            prop_assert_eq!(crate::trust::certificates(ours).len(), second.iter().count());
            // Somebody else adds at both ends.
            let others = [b"first\n", &twice[..], more.as_bytes()].concat();
            let left = with(&others, &Roots::default()).unwrap();
            prop_assert_eq!(left, [b"first\n", &content[..], more.as_bytes()].concat());
        }
    }

    #[test]
    fn lines_that_do_not_belong_together_are_refused() {
        let whole = with(b"theirs\n", &part(&ROOTS, 0..1)).unwrap();
        let text = String::from_utf8(whole).unwrap();
        let doubled = text.repeat(2);
        let (no_end, no_begin) = (text.replace(END, ""), text.replace(BEGIN, "#"));
        let turned = format!("{END}\n{BEGIN}\n");
        for broken in [doubled, no_end, no_begin, turned] {
            assert!(find(broken.as_bytes()).is_err() && with(broken.as_bytes(), &ROOTS).is_err(), "{broken}");
        }
    }
}
