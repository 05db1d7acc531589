//! Bytes as other spellings have them, in memory that is wiped: percent-encoding, JSON strings, forms, base64.
//!
//! Each buffer has its largest possible size from the start: one that grew would leave a copy behind in freed memory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::secret::Secret;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// As in a path or a query: all but the unreserved characters is escaped (RFC 3986 §2.1, §2.3).
pub(super) fn percent(bytes: &[u8]) -> Secret {
    escaped(3 * bytes.len(), bytes, |byte, out| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
        byte => out.extend([b'%', hex(byte >> 4), hex(byte)]),
    })
}

/// As within a JSON string (RFC 8259 §7). The bytes must be UTF-8 where they are not ASCII.
pub(super) fn json(bytes: &[u8]) -> Secret {
    escaped(6 * bytes.len(), bytes, |byte, out| match byte {
        b'"' | b'\\' => out.extend([b'\\', byte]),
        0..=0x1f | 0x7f => out.extend([b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte)]),
        byte => out.push(byte),
    })
}

/// As base64 with padding (RFC 4648 §4).
pub(super) fn base64(bytes: &[u8]) -> Secret {
    let mut out = Zeroizing::new(vec![0; bytes.len().div_ceil(3) * 4]);
    // It fits: that is its length.
    let _ = STANDARD.encode_slice(bytes, &mut out);
    Secret::from(out)
}

/// What base64 with or without padding says.
pub(super) fn unbase64(bytes: &[u8]) -> Option<Secret> {
    let padding = bytes.iter().rev().take_while(|byte| **byte == b'=').count();
    let bytes = bytes.get(..bytes.len() - padding.min(2))?;
    let mut out = Zeroizing::new(vec![0; bytes.len() * 3 / 4 + 3]);
    let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
    let length = engine.decode_slice(bytes, &mut out).ok()?;
    out.truncate(length);
    Some(Secret::from(out))
}

fn escaped(most: usize, bytes: &[u8], each: impl Fn(u8, &mut Vec<u8>)) -> Secret {
    let mut out = Vec::with_capacity(most);
    bytes.iter().for_each(|byte| each(*byte, &mut out));
    Secret::new(out)
}

fn hex(nibble: u8) -> u8 {
    HEX.get(usize::from(nibble & 15)).copied().unwrap_or(b'0')
}

/// What percent-encoding says, for names: `+` is a space, and what is not understood stays as it is.
pub(super) fn unpercent(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        let escaped = (*first == b'%').then(|| Some((digit(more.first())?, digit(more.get(1))?))).flatten();
        match (escaped, *first) {
            (Some((high, low)), _) => {
                out.push(high << 4 | low);
                rest = more.get(2..).unwrap_or_default();
            }
            (None, b'+') => out.push(b' '),
            (None, byte) => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_escaped_says_what_it_was(bytes: Vec<u8>, text: String) {
            prop_assert_eq!(unpercent(percent(&bytes).expose()), bytes.clone());
            prop_assert!(percent(&bytes).expose().iter().all(u8::is_ascii_graphic));
            let quoted = [b"\"", json(text.as_bytes()).expose(), b"\""].concat();
            prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), text);
            let encoded = base64(&bytes);
            let expected = STANDARD.encode(&bytes);
            prop_assert_eq!(encoded.expose(), expected.as_bytes());
            let back = unbase64(encoded.expose()).unwrap();
            prop_assert_eq!(back.expose(), &bytes[..]);
        }
    }

    #[test]
    fn every_control_character_is_escaped_in_json() {
        let text: String = (0..0x80_u8).map(char::from).collect();
        let quoted = [b"\"", json(text.as_bytes()).expose(), b"\""].concat();
        assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), text);
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unpercent(b"%4bey%2"), b"Key%2");
        assert_eq!(unpercent(b"a+%zz%"), b"a %zz%");
        assert!(unbase64(b"?").is_none());
    }
}
