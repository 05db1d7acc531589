//! Writes and reads PEM (RFC 7468). What is read may be a private key, of which no copies are left behind.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// One certificate as PEM, with a final newline.
pub(super) fn certificate(der: &CertificateDer<'_>) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for at in 0..4 {
                let index = (bits >> (18 - 6 * at)) & 0x3f;
                let digit = ALPHABET.get(index as usize).filter(|_| at <= group.len());
                let _ = text.write_char(digit.map_or('=', |digit| char::from(*digit)));
            }
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// The labels and bodies of the blocks of a text, up to the first that is damaged.
pub(super) fn blocks(text: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = std::str::from_utf8(text).unwrap_or_default();
    std::iter::from_fn(move || {
        let (label, body, after) = block(rest)?;
        rest = after;
        Some((label, body))
    })
}

/// The label and the body of the next block, and what stands behind it.
fn block(text: &str) -> Option<(&str, &str, &str)> {
    let (_, after) = text.split_once("-----BEGIN ")?;
    let (label, after) = after.split_once("-----")?;
    let (body, after) = after.split_once("-----END ")?;
    let (closing, after) = after.split_once("-----")?;
    (closing == label).then_some((label, body, after))
}

/// The bytes of a body. Buffers have their final sizes from the start: one that grew would leave copies behind in freed
/// memory.
pub(super) fn decode(body: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut digits = Zeroizing::new(Vec::with_capacity(body.len()));
    digits.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; digits.len() / 4 * 3 + 3]);
    let length = BASE64_STANDARD.decode_slice(&*digits, &mut der).ok()?;
    der.truncate(length);
    Some(der)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject as _;

    #[test]
    fn what_is_written_reads_back_whatever_its_length() {
        for length in 1..200_u8 {
            let der =
                CertificateDer::from((0..length).map(|byte| byte.wrapping_mul(151)).collect::<Vec<u8>>());
            assert_eq!(CertificateDer::from_pem_slice(certificate(&der).as_bytes()).unwrap(), der);
        }
    }
}
