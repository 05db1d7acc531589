//! Reads subject and validity out of a certificate (RFC 5280 section 4.1), to show them.
//!
//! Others are not verified by this, but by rustls alone; of our own it says when they end.

use rustls::pki_types::CertificateDer;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

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

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

/// The facts of a DER certificate; `None` when it is damaged.
pub(super) fn facts(certificate: &CertificateDer<'_>) -> Option<Facts> {
    let mut outer = Der(certificate);
    let mut signed = Der(outer.take(SEQUENCE)?);
    outer.0.is_empty().then_some(())?;
    let mut fields = Der(signed.take(SEQUENCE)?);
    if fields.0.first() == Some(&VERSION) {
        fields.take(VERSION)?;
    }
    fields.take(INTEGER)?;
    fields.take(SEQUENCE)?; // signature algorithm
    fields.take(SEQUENCE)?; // issuer
    let mut validity = Der(fields.take(SEQUENCE)?);
    let (not_before, not_after) = (validity.time()?, validity.time()?);
    let subject = subject(fields.take(SEQUENCE)?)?;
    Some(Facts { subject, not_before, not_after })
}

fn subject(name: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut sets = Der(name);
    while !sets.0.is_empty() {
        let mut attributes = Der(sets.take(SET)?);
        while !attributes.0.is_empty() {
            let mut attribute = Der(attributes.take(SEQUENCE)?);
            let kind = match attribute.take(OBJECT_IDENTIFIER)? {
                [0x55, 0x04, 3] => "CN",
                [0x55, 0x04, 6] => "C",
                [0x55, 0x04, 10] => "O",
                [0x55, 0x04, 11] => "OU",
                _ => continue,
            };
            let (_, value) = attribute.any()?;
            parts.push(format!("{kind}={}", String::from_utf8_lossy(value)));
        }
    }
    Some(parts.join(", "))
}

/// Takes elements off the front of DER (X.690); lengths of up to two bytes.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The tag and content of the next element.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match (first, rest) {
            (0x81, [length, rest @ ..]) => (usize::from(*length), rest),
            (0x82, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (0..=0x7f, rest) => (usize::from(first), rest),
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn take(&mut self, expected: u8) -> Option<&'a [u8]> {
        self.any().filter(|(tag, _)| *tag == expected).map(|(_, content)| content)
    }

    /// A Time (RFC 5280 section 4.1.2.5): `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
    fn time(&mut self) -> Option<OffsetDateTime> {
        let (tag, content) = self.any()?;
        let digits = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
        let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u8>().ok();
        let (year, at) = match tag {
            UTC_TIME => (number(0..2).map(|year| i32::from(year) + if year < 50 { 2000 } else { 1900 })?, 2),
            GENERALIZED_TIME => (digits.get(0..4)?.parse().ok()?, 4),
            _ => return None,
        };
        let pair = |index: usize| number(at + 2 * index..at + 2 * index + 2);
        let month = Month::try_from(pair(0)?).ok()?;
        let date = Date::from_calendar_date(year, month, pair(1)?).ok()?;
        let time = Time::from_hms(pair(2)?, pair(3)?, pair(4)?).ok()?;
        (digits.len() == at + 10).then(|| PrimitiveDateTime::new(date, time).assume_utc())
    }
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
