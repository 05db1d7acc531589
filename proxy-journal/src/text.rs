//! Hostile text made safe to show: a path or a process name must not steer the terminal of the person who reads it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde::ser::Error as _;
use serde_json::ser::Formatter;
use serde_json::value::RawValue;

/// Whether a terminal or an editor may do something else with `c` than show it: control characters (C0, DEL, C1),
/// line separators, and characters that are invisible, look as a blank and are none, or turn the direction of the text.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}' | '\u{e0000}'..='\u{e0fff}')
        // Fillers and the empty pattern of Braille; what joins, or chooses how the one before looks; musical ones that begin and end.
        || matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}')
        || matches!(c, '\u{34f}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}')
        || matches!(c, '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}')
        // Blanks of other widths; the ordinary one is what a sentence has.
        || (c != ' ' && c.is_whitespace())
}

/// `text` with hostile characters as `\u{1b}`, for a sentence.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_if(text, is_hostile)
}

/// As [`escape`], and blanks too, for a word in a column: a path cannot pretend to be the next column.
pub fn escape_word(text: &str) -> Cow<'_, str> {
    escape_if(text, |c| is_hostile(c) || c.is_whitespace())
}

fn escape_if(text: &str, hostile: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hostile(c) {
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The beginning of `text`, at most `max` bytes of it, ending between two characters.
pub fn shorten(text: &str, max: usize) -> &str {
    // A character has at most four bytes.
    let cut = (0..4).find_map(|back| text.get(..max.checked_sub(back)?));
    if text.len() <= max { text } else { cut.unwrap_or_default() }
}

/// A line of JSON with hostile characters as `\u001b`, which inside its strings means the same.
pub fn escape_json(line: &str) -> Cow<'_, str> {
    if !line.contains(is_hostile) {
        return Cow::Borrowed(line);
    }
    let mut out = Vec::with_capacity(line.len() + 16);
    // Writing into a Vec does not fail.
    let _ = write_json_fragment(&mut out, line);
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// Spells JSON compactly, and every hostile character in a string by its `\u` escape, so that the file can be shown
/// with `cat` too. (Quotes, backslashes and C0 controls never reach this: `serde_json` escapes them itself.)
pub(crate) struct SafeJson;

impl Formatter for SafeJson {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_json_fragment(writer, fragment)
    }
}

fn write_json_fragment<W: ?Sized + io::Write>(writer: &mut W, fragment: &str) -> io::Result<()> {
    if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return writer.write_all(fragment.as_bytes());
    }
    let mut plain = fragment;
    while let Some((at, hostile)) = plain.char_indices().find(|(_, c)| is_hostile(*c)) {
        let (before, rest) = plain.split_at(at);
        writer.write_all(before.as_bytes())?;
        for unit in hostile.encode_utf16(&mut [0; 2]) {
            write!(writer, "\\u{unit:04x}")?;
        }
        plain = rest.get(hostile.len_utf8()..).unwrap_or_default();
    }
    writer.write_all(plain.as_bytes())
}

/// As it stands in a record.
pub(crate) fn spell(value: &impl Serialize) -> serde_json::Result<Box<RawValue>> {
    let mut text = Vec::with_capacity(512);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, SafeJson))?;
    RawValue::from_string(String::from_utf8(text).map_err(serde_json::Error::custom)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_that_steers_a_terminal_is_shown_and_not_obeyed() {
        assert_eq!(escape("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(escape("x\u{9b}31m\u{202e}y"), "x\\u{9b}31m\\u{202e}y");
        assert_eq!(escape("Zürich · /v1"), "Zürich · /v1");
        // They look as blanks, or as nothing.
        for c in
            ['\u{a0}', '\u{2800}', '\u{3164}', '\u{3000}', '\u{fe0f}', '\u{e0100}', '\u{34f}', '\u{2003}']
        {
            assert_eq!(escape(&format!("a{c}b")), format!("a\\u{{{:x}}}b", u32::from(c)));
        }
        assert_eq!(escape_word("/a  200"), "/a\\u{20}\\u{20}200");
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(shorten("abc", 3), "abc");
        assert_eq!(shorten("aé", 2), "a");
        assert_eq!(shorten("\u{1f980}b", 3), "");
        assert_eq!(shorten("é", 0), "");
    }

    proptest! {
        #[test]
        fn no_text_keeps_a_hostile_character(text in any::<String>()) {
            prop_assert!(!escape(&text).contains(is_hostile));
            prop_assert!(!escape_word(&text).contains(|c: char| is_hostile(c) || c.is_whitespace()));
        }

        #[test]
        fn escaped_json_is_harmless_and_means_the_same(text in any::<String>()) {
            let line = serde_json::to_string(&text).unwrap();
            let safe = escape_json(&line);
            prop_assert!(!safe.contains(is_hostile));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }
    }
}
