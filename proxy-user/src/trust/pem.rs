//! Writes certificates as PEM (RFC 7468).

use std::fmt::Write as _;

use rustls::pki_types::CertificateDer;

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
