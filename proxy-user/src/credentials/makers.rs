//! Who makes a secret anew and ends one: programs of the operator, IAM of AWS, HashiCorp Vault or OpenBao.

use super::access_key::AccessKey;
use super::aws_call::{self, SignedBy, form, region_of};
use super::live::Tools;
use super::outcall::{IssuerAnswer, IssuerUrl};
use super::program::Program;
use super::secret::Secret;
use super::sigv4::Keys;
use super::source_files::without_line_end;
use super::sts_answers::{aws_access_key, aws_error};
use crate::config::{Maker, Rotation};

/// The version of the API of IAM.
const IAM_VERSION: (&str, &[u8]) = ("Version", b"2010-05-08");

/// Which one is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was made, and did not become the current one.
    Next,
    /// It was the current one.
    Previous,
}

/// Makes a successor of the current one.
///
/// # Errors
/// There is none; what went wrong, and what to do. Nothing of a secret.
pub(super) async fn make(rotation: &Rotation, current: &Secret, tools: &Tools) -> Result<Secret, String> {
    match &rotation.maker {
        Maker::Programs { make, .. } => {
            let printed = run(make, rotation, current).await?;
            Ok(Secret::new(without_line_end(printed.expose()).to_vec()))
        }
        Maker::Aws { url } => {
            let keys = AccessKey::read(current.expose())?;
            let fields = [("Action", &b"CreateAccessKey"[..]), IAM_VERSION];
            let answer = iam(url, &fields, keys, tools).await?;
            if !answer.status.is_success() {
                let advice = match aws_error(answer.body.expose()) {
                    Some("LimitExceeded") => {
                        "its user has two access keys already, and may have no more; delete the one that nobody uses"
                    }
                    Some("AccessDenied") => {
                        "allow its user iam:CreateAccessKey and iam:DeleteAccessKey for itself"
                    }
                    _ => "check the access key, and the clock of this host",
                };
                let told = aws_call::told(answer.status, &answer.body);
                return Err(format!("{url} answered {told} to CreateAccessKey; {advice}"));
            }
            let made = aws_access_key(answer.body.expose());
            Ok(made
                .map_err(|what| format!("{url} was asked for an access key: {what}; see its user's"))?
                .text())
        }
        Maker::Hashicorp { role_name } => {
            let login = tools.sources.hashicorp_login().map_err(|error| error.to_string())?;
            login.new_secret_id(role_name).await
        }
    }
}

/// Whether who gives it out takes it; `None`: whoever calls with it finds out.
pub(super) async fn is_taken(
    rotation: &Rotation,
    made: &Secret,
    tools: &Tools,
) -> Option<Result<&'static str, String>> {
    let Maker::Hashicorp { .. } = &rotation.maker else { return None };
    let taken = async {
        let login = tools.sources.hashicorp_login().map_err(|error| error.to_string())?;
        login.takes_secret_id(made).await.map(|()| "[hashicorp]")
    };
    Some(taken.await)
}

/// Whether a refusal of a new one may only mean that the API does not know it yet.
pub(super) fn is_slow(rotation: &Rotation) -> bool {
    // "As a service, IAM is eventually consistent": some seconds, as a rule.
    matches!(rotation.maker, Maker::Aws { .. })
}

/// Whether ending one of them ends the other: they may be spelled in two ways.
pub(super) fn is_same(rotation: &Rotation, one: &Secret, other: &Secret) -> bool {
    let key = |it: &Secret| AccessKey::read(it.expose()).ok().map(|key| key.id);
    let is_key = matches!(rotation.maker, Maker::Aws { .. });
    without_line_end(one.expose()) == without_line_end(other.expose())
        || is_key && key(one).zip(key(other)).is_some_and(|(one, other)| one == other)
}

/// Ends one. Ending it twice is no error.
///
/// # Errors
/// It may go on; why, and what to do. Nothing of a secret.
pub(super) async fn end(
    rotation: &Rotation,
    which: Ended,
    it: &Secret,
    current: Option<&Secret>,
    tools: &Tools,
) -> Result<(), String> {
    match &rotation.maker {
        Maker::Programs { revoke: None, .. } => Ok(()),
        Maker::Programs { revoke: Some(command), .. } => run(command, rotation, it).await.map(drop),
        Maker::Aws { url } => {
            let key = AccessKey::read(it.expose())?;
            let id = key.id.clone();
            let by_current = match current {
                Some(current) => AccessKey::read(current.expose()).map_err(str::to_owned),
                None => Err(format!("there is no access key in the store that could end {id}; delete it")),
            };
            match which {
                // A new one may not be known yet, and cannot end itself.
                Ended::Next => delete(url, &id, by_current?, "NoSuchEntity", tools).await.map(drop),
                // The one before ends itself, whoever the current one is of. That it is not known may mean that somebody made it
                // inactive: it is there, and could be made active again.
                Ended::Previous => {
                    match (delete(url, &id, key, "InvalidClientTokenId", tools).await?, current) {
                        (Deleted::Gone, Some(_)) => {
                            delete(url, &id, by_current?, "NoSuchEntity", tools).await.map(drop)
                        }
                        _ => Ok(()),
                    }
                }
            }
        }
        Maker::Hashicorp { role_name } => {
            let login = tools.sources.hashicorp_login().map_err(|error| error.to_string())?;
            login.destroy_secret_id(role_name, it).await
        }
    }
}

/// What became of an access key that was to be deleted.
enum Deleted {
    Now,
    /// It was not there.
    Gone,
}

/// Has an access key deleted. `gone` is the code by which its signer is told that there is none.
async fn delete(
    url: &str,
    id: &str,
    signer: AccessKey,
    gone: &str,
    tools: &Tools,
) -> Result<Deleted, String> {
    let fields = [("Action", &b"DeleteAccessKey"[..]), IAM_VERSION, ("AccessKeyId", id.as_bytes())];
    let answer = iam(url, &fields, signer, tools).await?;
    match answer.status.is_success() {
        true => Ok(Deleted::Now),
        false if aws_error(answer.body.expose()) == Some(gone) => Ok(Deleted::Gone),
        false => {
            let told = aws_call::told(answer.status, &answer.body);
            Err(format!(
                "{url} answered {told} to DeleteAccessKey of {id}; allow its user iam:DeleteAccessKey for itself, or delete it"
            ))
        }
    }
}

async fn iam(
    url: &str,
    fields: &[(&str, &[u8])],
    keys: AccessKey,
    tools: &Tools,
) -> Result<IssuerAnswer, String> {
    let url: IssuerUrl = url.parse().map_err(|error| format!("the url of the rotation {error}"))?;
    let region = region_of(&url, "iam");
    let keys = Keys::from(keys);
    let signed_by = SignedBy { keys, region: &region, service: "iam" };
    aws_call::call(&tools.outcall, &url, form(fields), Some(signed_by)).await
}

async fn run(command: &[String], rotation: &Rotation, input: &Secret) -> Result<Secret, String> {
    let Maker::Programs { user, env, .. } = &rotation.maker else {
        return Err("it is not made by programs".to_owned());
    };
    let program = Program::new(command).passing(env).within(rotation.timeout).running_as(user.as_deref());
    let printed = program.run(Some(Secret::new(input.expose().to_vec()))).await;
    printed.map_err(|error| error.to_string())
}
