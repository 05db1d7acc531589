//! Whether an API may be at the address that a workload chose: before a call goes there, and before a secret is in it.

use std::net::IpAddr;

use proxy_policy::{Api, Credential, Elsewhere, Insecure, PolicySet};

use super::refusal::{Kind, Refusal};

/// Holds the address against what the policy says of the API. A credential that may go over plain HTTP to loopback addresses
/// says so for them, too.
pub(super) fn check(api: &Api, credential: Option<&Credential>, address: IpAddr) -> Result<(), Elsewhere> {
    let local = credential.is_some_and(|it| it.insecure == Some(Insecure::Loopback));
    if local && address.to_canonical().is_loopback() {
        return Ok(());
    }
    api.addresses.check(address)
}

/// The refusal, with what to write into the policy.
pub(super) fn refusal(set: &PolicySet, api: &Api, elsewhere: &Elsewhere) -> Refusal {
    Refusal::new(Kind::AddressRefused, told(set, api, elsewhere))
}

/// Why, in words.
pub(super) fn told(set: &PolicySet, api: &Api, elsewhere: &Elsewhere) -> String {
    let mut told = format!("calls to {} do not go there: {elsewhere}", api.name);
    match &elsewhere.line {
        Some(line) => {
            let file = set.file_name(api.place.file).unwrap_or_default();
            let (name, at) = (&api.name, api.place.line);
            told.push_str(&format!("; if it is there, write {line} below [api.{name}] ({file}:{at})"));
            if let Some(word) = elsewhere.word() {
                told.push_str(&format!(", or \"{word}\" for all such addresses"));
            }
        }
        None => told.push_str(", and no policy permits it"),
    }
    told
}
