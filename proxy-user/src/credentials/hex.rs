//! Lower-case hexadecimal for key files and for values in the store: one spelling for each byte string.

use zeroize::Zeroizing;

const DIGITS: [u8; 16] = *b"0123456789abcdef";

/// Two digits for each byte. The buffer is made at its final size, so that no copy stays behind, and is wiped.
pub(super) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().saturating_mul(2)));
    for byte in bytes {
        for digit in [byte >> 4, byte & 0x0f] {
            text.push(char::from(DIGITS.get(usize::from(digit)).copied().unwrap_or(b'0')));
        }
    }
    text
}

/// The bytes that `text` spells, or `None` when it has an odd length or anything but `0-9a-f`.
pub(super) fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        bytes.push(digit(*high)? << 4 | digit(*low)?);
    }
    Some(bytes)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(encode(&all).as_bytes()).unwrap().as_slice(), all);
    }

    #[test]
    fn odd_lengths_upper_case_and_other_characters_are_refused() {
        for text in ["a", "AB", "g0", "0 ", "é"] {
            assert!(decode(text.as_bytes()).is_none(), "{text}");
        }
    }
}
