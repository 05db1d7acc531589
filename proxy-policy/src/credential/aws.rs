//! `kind = "aws"`: calls signed with AWS Signature Version 4.

use std::time::Duration;

use super::claims::{ClaimText, Variable};
use super::{SecretRef, Store};

/// How calls to AWS, and to what takes its signatures, are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AwsCredential {
    /// Whose keys sign, or stand for those of the role.
    pub keys: AwsKeys,
    /// The region that is signed for; `None`: the one that the client signed for, or that of the host.
    pub region: Option<String>,
    /// The service that is signed for; `None`: the one that the client signed for, or that of the host.
    pub service: Option<String>,
    /// The role whose temporary keys sign.
    pub role: Option<AwsRole>,
}

/// What AWS knows the host, or the identity, by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwsKeys {
    /// A pair of keys.
    Pair {
        /// The public part.
        id: AwsKeyId,
        /// The secret part.
        secret: SecretRef,
        /// What temporary keys have besides.
        session_token: Option<SecretRef>,
    },
    /// A pair of keys in one text, so that both change together: as JSON, as AWS prints it.
    Whole(SecretRef),
    /// A token about the identity, for which the role is given (`AssumeRoleWithWebIdentity`).
    WebIdentity(SecretRef),
}

/// The public part of a pair of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AwsKeyId {
    /// As it stands in the policy.
    Text(String),
    /// Where it is, so that it changes together with the secret part.
    At(SecretRef),
}

/// A role that is assumed (`AssumeRole` of the Security Token Service).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AwsRole {
    /// Its name, `arn:aws:iam::123456789012:role/NAME`.
    pub arn: String,
    /// As whom AWS records the calls.
    pub session_name: ClaimText,
    /// What the owner of the role wants to see.
    pub external_id: Option<String>,
    /// For how long its keys are asked for.
    pub duration: Duration,
    /// Where they are asked for.
    pub sts_url: String,
}

impl AwsCredential {
    /// Whether what signs is for one identity alone.
    #[must_use]
    pub fn is_for_identity(&self) -> bool {
        let by_token = matches!(&self.keys, AwsKeys::WebIdentity(token) if token.store() == Store::Issuer);
        let names = |role: &AwsRole| role.session_name.variables().any(|it| it == Variable::Identity);
        by_token || self.role.as_ref().is_some_and(names)
    }

    /// The secrets that it needs.
    #[must_use]
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match &self.keys {
            AwsKeys::Pair { id, secret, session_token } => {
                let id = match id {
                    AwsKeyId::At(reference) => Some(reference),
                    AwsKeyId::Text(_) => None,
                };
                // The secret first: its version is told.
                std::iter::once(secret).chain(id).chain(session_token).collect()
            }
            AwsKeys::WebIdentity(token) if token.store() == Store::Issuer => Vec::new(),
            AwsKeys::WebIdentity(it) | AwsKeys::Whole(it) => vec![it],
        }
    }
}
