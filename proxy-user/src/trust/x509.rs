//! Reads subject and validity out of a certificate (RFC 5280 section 4.1), to show them, and says who signed one of ours.
//!
//! Those of others are not verified by this, but by rustls alone.

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::oid_registry::{
    OID_X509_COMMON_NAME, OID_X509_COUNTRY_NAME, OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT,
};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The subject, as `CN=…, O=…`; attributes other than CN, O, OU and C are left out.
    pub(super) subject: String,
    /// The first second of its validity.
    pub(super) not_before: OffsetDateTime,
    /// The last second of its validity.
    pub(super) not_after: OffsetDateTime,
}

/// The facts of a DER certificate; `None` when it is damaged.
pub(super) fn facts(certificate: &CertificateDer<'_>) -> Option<Facts> {
    let parsed = parsed(certificate)?;
    let validity = parsed.validity();
    Some(Facts {
        subject: subject(parsed.subject()),
        not_before: validity.not_before.to_datetime(),
        not_after: validity.not_after.to_datetime(),
    })
}

/// Whether `issuer` signed `certificate`, and is named as who did.
pub(super) fn is_signed_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let Some((certificate, issuer)) = parsed(certificate).zip(parsed(issuer)) else { return false };
    certificate.issuer() == issuer.subject()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

/// Whether both are over the same public key.
pub(super) fn have_one_key(one: &CertificateDer<'_>, other: &CertificateDer<'_>) -> bool {
    parsed(one).zip(parsed(other)).is_some_and(|(one, other)| one.public_key().raw == other.public_key().raw)
}

fn parsed<'c>(certificate: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    rest.is_empty().then_some(parsed)
}

fn subject(name: &X509Name<'_>) -> String {
    let known = [
        (OID_X509_COMMON_NAME, "CN"),
        (OID_X509_COUNTRY_NAME, "C"),
        (OID_X509_ORGANIZATION_NAME, "O"),
        (OID_X509_ORGANIZATIONAL_UNIT, "OU"),
    ];
    let part = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        let (_, kind) = known.iter().find(|(oid, _)| oid == attribute.attr_type())?;
        Some(format!("{kind}={}", String::from_utf8_lossy(attribute.as_slice())))
    };
    name.iter_attributes().filter_map(part).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(not_after: OffsetDateTime) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1999, 12, 31);
        params.not_after = not_after;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "a name");
        params.distinguished_name.push(DnType::LocalityName, "somewhere");
        params.distinguished_name.push(DnType::OrganizationName, "an owner");
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn subject_and_validity_are_read_in_both_time_formats() {
        for year in [2049, 2050] {
            let not_after = rcgen::date_time_ymd(year, 2, 28);
            let expected = Facts {
                subject: "CN=a name, O=an owner".to_owned(),
                not_before: rcgen::date_time_ymd(1999, 12, 31),
                not_after,
            };
            assert_eq!(facts(&certificate(not_after)), Some(expected));
        }
    }

    #[test]
    fn a_cut_certificate_has_no_facts_and_a_changed_one_does_not_panic() {
        let whole = certificate(rcgen::date_time_ymd(2049, 2, 28));
        for length in 0..whole.len() {
            assert_eq!(facts(&CertificateDer::from(&whole[..length])), None);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.to_vec();
                changed[at] ^= 1 << bit;
                let _ = facts(&CertificateDer::from(changed));
            }
        }
    }
}
