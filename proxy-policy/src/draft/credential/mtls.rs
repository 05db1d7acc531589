//! `kind = "mtls"`: a client certificate on the connection to the API.

use super::{check_keys, reference};
use crate::credential::MtlsCredential;
use crate::read::{Reader, Section};

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<MtlsCredential> {
    check_keys(section, &["certificate", "key"], reader);
    let help = "name where the certificate is: certificate = \"vault:NAME\"";
    let certificate = reader.required(section, "certificate", help);
    let certificate = certificate.and_then(|text| reader.parse(&text, reference::parse)).map(|it| it.value);
    let key = match section.has("key") {
        true => reader.parsed(section, "key", reference::parse).map(|it| it.value),
        // Both in one text, so that they change together.
        false => certificate.clone(),
    };
    Some(MtlsCredential { certificate: certificate?, key: key? })
}
