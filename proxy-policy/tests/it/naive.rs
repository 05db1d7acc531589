//! The meaning of operations and paths written once more, from the documentation and as simply as possible: what tests and fuzz
//! targets hold the compiled matcher and the normalization against.

use proxy_policy::CallKind;

/// One rule of the reference: its text and whether it denies.
pub(crate) type Rule = (String, bool);

/// The segments of a path, decoded; a slash at the end is an empty last one.
fn segments(path: &str) -> Vec<String> {
    let decode = |segment: &str| {
        let mut out = String::new();
        let mut rest = segment;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            out.push(char::from(u8::from_str_radix(&after[..2], 16).unwrap()));
            rest = &after[2..];
        }
        out + rest
    };
    path.strip_prefix('/').unwrap().split('/').map(decode).collect()
}

/// Whether the characters of a segment match those of a pattern segment, by trying everything.
fn segment_matches(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skip| segment_matches(rest, &text[skip..])),
        Some((c, rest)) => text.first() == Some(c) && segment_matches(rest, &text[1..]),
    }
}

fn path_matches(pattern: &[String], path: &[String]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((first, rest)) if first == "**" => {
            (0..=path.len()).any(|skip| path_matches(rest, &path[skip..]))
        }
        Some((first, rest)) => {
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            path.split_first().is_some_and(|(segment, others)| {
                let one = match first.as_str() {
                    "*" => !segment.is_empty(),
                    name if name.starts_with('{') => !segment.is_empty(),
                    first => segment_matches(&chars(first), &chars(segment)),
                };
                one && path_matches(rest, others)
            })
        }
    }
}

fn without_slash(mut segments: Vec<String>) -> Vec<String> {
    if segments.len() > 1 && segments.last().is_some_and(String::is_empty) {
        segments.pop();
    }
    segments
}

fn folded(segments: &[String]) -> Vec<String> {
    segments.iter().map(|it| it.split(';').next().unwrap().to_lowercase()).collect()
}

fn lowered(segments: &[String]) -> Vec<String> {
    segments.iter().map(|it| it.to_lowercase()).collect()
}

/// Whether a rule matches, as the documentation says it.
fn matches((text, denies): &Rule, kind: CallKind, method: &str, path: &str) -> bool {
    let (methods, pattern) = text.split_once(' ').unwrap();
    let websocket = kind == CallKind::WebSocket;
    let spoken = match methods {
        "websocket" => websocket,
        "*" => *denies || !websocket,
        methods if *denies => methods.split('|').any(|it| it.eq_ignore_ascii_case(method)),
        methods => !websocket && methods.split('|').any(|it| it == method),
    };
    let (pattern, path) = (segments(pattern), segments(path));
    if !denies {
        return spoken && path_matches(&pattern, &path);
    }
    let (pattern, path) = (without_slash(pattern), without_slash(path));
    spoken && (path_matches(&pattern, &path) || path_matches(&lowered(&pattern), &folded(&path)))
}

/// The rule that decides, as the documentation says it; with `false` a deny, without anything what is not granted.
pub(crate) fn decide(rules: &[Rule], kind: CallKind, method: &str, path: &str) -> Option<(bool, String)> {
    let first =
        |denies| rules.iter().filter(|rule| rule.1 == denies).find(|rule| matches(rule, kind, method, path));
    first(true).or_else(|| first(false)).map(|(text, denies)| (!denies, text.clone()))
}

/// The path as the documentation says that it is decided and forwarded; nothing if it is refused.
pub(crate) fn normalized(raw: &str) -> Option<String> {
    if raw == "*" {
        return Some(raw.to_owned());
    }
    let mut decoded: Vec<u8> = Vec::new();
    let mut text = String::new();
    let mut rest = raw.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            if !(b'!'..=b'~').contains(&first) || b"\\?#".contains(&first) {
                return None;
            }
            decoded.push(first);
            text.push(char::from(first));
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |i: usize| char::from(digits[i]).to_digit(16);
        let byte = u8::try_from(digit(0)? * 16 + digit(1)?).unwrap();
        rest = after;
        if b"/\\".contains(&byte) {
            return None;
        }
        decoded.push(byte);
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    if String::from_utf8(decoded).ok()?.chars().any(char::is_control) || !text.starts_with('/') {
        return None;
    }
    let twice = text.split('%').skip(1).any(|it| {
        let it = it.as_bytes();
        it.starts_with(b"25") && it.len() >= 4 && it[2..4].iter().all(u8::is_ascii_hexdigit)
    });
    if twice {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut last = "";
    for segment in text.split('/').skip(1) {
        let parameter = |dots| {
            let after = segment.strip_prefix(dots).unwrap_or("");
            after.starts_with(';') || after.starts_with("%3B")
        };
        if parameter(".") || parameter("..") {
            return None;
        }
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()?),
            segment => kept.push(segment),
        }
        last = segment;
    }
    let end = if matches!(last, "" | "." | "..") && !kept.is_empty() { "/" } else { "" };
    Some(format!("/{}{end}", kept.join("/")))
}
