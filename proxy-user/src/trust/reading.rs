//! Certificates of others' PEM files, as bytes: for those who compare them and pass them on, and judge nothing.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{pem, x509};

/// The certificates of a PEM text as DER, in its order. Whatever else is in it, and what is damaged, is left out.
#[must_use]
pub fn certificates(text: &[u8]) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(text)
        .filter_map(Result::ok)
        .filter(|der| x509::facts(der).is_some())
        .map(|der| der.to_vec())
        .collect()
}

/// A certificate as PEM, with a final newline.
#[must_use]
pub fn to_pem(der: &[u8]) -> String {
    pem::certificate(&CertificateDer::from(der))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{Ca, CaCertificate};

    #[test]
    fn what_is_no_certificate_is_left_out_and_the_rest_is_read() {
        let state = tempfile::tempdir().unwrap();
        Ca::for_tests(state.path());
        let root = CaCertificate::all(state.path()).unwrap().remove(0);
        let (pem, der) = (root.pem(), root.der().to_vec());
        let no_certificate = to_pem(b"no certificate at all");
        let text = format!("# a comment\n{pem}words\n{no_certificate}{pem}-----BEGIN CERTIFICATE-----\n????");
        assert_eq!(certificates(text.as_bytes()), [der.clone(), der.clone()]);
        assert_eq!(to_pem(&der), pem);
        assert!(certificates(b"\xff\x00").is_empty());
    }
}
