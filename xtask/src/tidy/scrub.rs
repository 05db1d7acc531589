//! Blanks out comments and literals of Rust source, so that rules see code only.
//!
//! Invariant: the result has as many lines as the text, and each remaining character stands where it stood in its line.

/// `text` with comments, strings and character literals replaced by blanks.
pub(super) fn scrub(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(rest) = chars.get(at..).filter(|rest| !rest.is_empty()) {
        let before = at.checked_sub(1).and_then(|at| chars.get(at)).copied();
        let length = hidden(rest, before);
        if length == 0 {
            out.extend(rest.first());
            at += 1;
        } else {
            out.extend(rest.iter().take(length).map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at += length;
        }
    }
    out
}

/// How many characters at the beginning of `rest` are a comment or a literal; 0 when it begins with code.
fn hidden(rest: &[char], before: Option<char>) -> usize {
    match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['"', ..] => quoted(rest, '"'),
        ['r', ..] if !before.is_some_and(|c| c.is_alphanumeric() && c != 'b' && c != 'c' || c == '_') => {
            raw_string(rest)
        }
        ['\'', '\\', ..] => quoted(rest, '\''),
        // 'x' is a character, 'x without the second quote a lifetime.
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(pair) = rest.get(at..).filter(|pair| !pair.is_empty()) {
        match pair {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &[char], end: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.iter().enumerate().skip(1) {
        if escaped {
            escaped = false;
        } else if *c == '\\' {
            escaped = true;
        } else if *c == end {
            return at + 1;
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#` and so on; 0 for an identifier such as `r#type` or `rest`.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest.iter().skip(1).take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let mut at = 2 + hashes;
    while let Some(c) = rest.get(at) {
        at += 1;
        let closed = rest.get(at..at + hashes).is_some_and(|end| end.iter().all(|c| *c == '#'));
        if *c == '"' && closed {
            return at + hashes;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::scrub;

    #[test]
    fn comments_and_literals_become_blanks_and_lines_stay() {
        assert_eq!(scrub("a // b\nc"), "a     \nc");
        assert_eq!(scrub("a /* b /* c\n */ d */ e"), "a          \n         e");
        assert_eq!(scrub(r#"f("todo!\"", x)"#), "f(         , x)");
        assert_eq!(scrub("f(r#\"a\"b\"#)"), "f(        )");
        assert_eq!(scrub("br\"x\" y"), "b     y");
    }

    #[test]
    fn lifetimes_and_identifiers_stay() {
        for code in ["fn f<'a>(x: &'a str)", "let r = rest.r; r#type", "var\u{e9} + for_r"] {
            assert_eq!(scrub(code), code);
        }
        assert_eq!(scrub(r#"c == '\'' || c == '"'"#), "c ==      || c ==    ");
        assert_eq!(scrub("'\"' x"), "    x");
    }

    #[test]
    fn every_prefix_is_taken_without_a_panic_and_keeps_its_lines() {
        let text = "a /* \n */ \"b\\\"\n\" r#\"c\n\"# 'd' '\\n' // e\nf";
        for (end, _) in text.char_indices() {
            let prefix = text.get(..end).unwrap();
            assert_eq!(scrub(prefix).lines().count(), prefix.lines().count(), "{prefix:?}");
        }
    }
}
