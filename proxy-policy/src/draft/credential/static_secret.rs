//! `kind = "static"`: a secret as it is.

use super::{check_keys, reference};
use crate::credential::StaticCredential;
use crate::read::{Reader, Section};

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<StaticCredential> {
    check_keys(section, &["secret"], reader);
    let secret = reader.required(section, "secret", "name where the secret is: secret = \"vault:NAME\"");
    let secret = secret.and_then(|text| reader.parse(&text, reference::parse))?.value;
    Some(StaticCredential { secret })
}
