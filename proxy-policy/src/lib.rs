//! Policy files in, decisions out. Pure: no sockets, no clock, no file system.
//!
//! [`compile`] turns the texts of all files into a [`PolicySet`], or says everything that is wrong with them at once.
//! [`PolicySet::api_for`] finds the API of a host, [`CallPath::normalize`] brings a path into the one spelling that is
//! matched and forwarded, and [`PolicySet::decide`] decides.
//!
//! How a call is decided: all operations that the identity's grants name for the API count together. If a deny matches,
//! the call is denied; otherwise, if an allow matches, it is allowed; otherwise it is denied. If several grants allow
//! it, the first in the order of the file gives the credential. A grant counts while its conditions hold; its allows until
//! its end. [`Call::now`] says when it is, and [`Call::facts`] what conditions look at: without it, a decision that hangs on
//! one says [`Reason::FactsNeeded`] or [`Reason::BodyNeeded`], which are denies.
//!
//! Patterns, in operations and in conditions:
//!
//! | pattern | matches |
//! | --- | --- |
//! | `*` as a whole segment | one segment, not empty |
//! | `*` in a segment (`acme-*`) | any characters of that segment, also none |
//! | `{name}` as a whole segment, in an operation | one segment, not empty, that conditions can look at |
//! | `**` as a whole segment, anywhere | any number of segments, also none: `/a/**` matches `/a`, `/a/` and `/a/b/c` |
//! | anything else | itself, in the letters that it is written in |
//!
//! Paths are compared decoded: `/a%2Bb` and `/a+b` are the same to a pattern. A deny is wider than an allow with the same
//! text: it also matches the method in other letters, and the path with or without a slash at its end, without the parameters of
//! its segments (`;a=1`), and in other letters: there are servers that read them so.
//!
//! [`PolicySet::consider`] says the same of every rule, one by one; [`PolicySet::table`] what the whole set means, and
//! [`Plan`] what changes between two tables.
//!
//! Hosts: an exact name wins over a wildcard; `*.example.com` stands for exactly one label before `example.com`.

// Words: where something stands, what is wrong with it.
mod diagnostic;
mod place;
mod size;
mod source;
mod suggest;

// Spellings and patterns.
mod glob;
mod host;
mod path;

// What a policy is made of.
mod address;
mod conditions;
mod limit;
mod container;
mod credential;
mod inject;
mod model;
mod network;
mod operation;
mod token_endpoint;
mod until;
mod when;

// From files to parts: each file on its own.
mod draft;
mod read;
mod rehearsal;

// From parts to a set: all files together.
mod hosts;
mod link;
mod names;
mod lint;
mod overlap;

// The set and its answers.
mod compile;
mod decide;
mod explain;
mod memory;
mod index;
mod plan;
mod schema;
mod set;
mod table;

pub use address::{AddressKind, Addresses, Elsewhere, stands_for};
pub use compile::{Compiled, CompiledTests, check, compile, compile_with_tests, typed_secrets};
pub use conditions::{Conditions, ExePattern, Pattern};
pub use container::{ContainerPattern, ContainerRuntime, KubernetesPattern, is_container_id};
pub use credential::{
    AwsCredential, AwsKeyId, AwsKeys, AwsRole, ClaimText, ClaimValue, Credential, CredentialKind,
    ExecCredential, GithubAppCredential, GithubLevel, HmacCredential, HmacEncoding, HmacHash, HmacPart,
    HmacText, Insecure, JwtAlgorithm, JwtCredential, JwtKey, JwtPer, JwtSigner, MtlsCredential, OauthClient,
    OauthClientKey, OauthCredential, OauthExchange, OauthGrant, OauthToken, Probe, SecretRef,
    StaticCredential, Store, Variable,
};
pub use decide::{Call, CallKind, Decision, Explanation, Reason, RuleRef, Verdict};
pub use diagnostic::{Diagnostic, Severity};
pub use explain::{Considered, Effect, Outcome};
pub use host::{Host, HostError};
pub use inject::{Inject, InjectPlace, Placeholder, PlaceholderParts};
pub use limit::{Bound, Limit, Limits, Period};
pub use memory::{Answer, Memory, Recalled};
pub use model::{
    Api, ApiHost, ApiId, CredentialId, Grant, Identity, IdentityId, Limited, Mask, Mode, NetworkGrant,
    RuleId, Scheme, Summary, Unmatched, When, WholeGrant,
};
pub use network::{NetworkRule, Peers, RuleError, Transport};
pub use operation::Operation;
pub use path::{CallPath, PathError};
pub use place::{FileId, Place, Spanned};
pub use plan::{Change, ChangeKind, IdentityChange, Plan};
pub use rehearsal::{Attributes, Besides, Expect, Rehearsal, Spoken, TEST_SUFFIX};
pub use schema::SCHEMA;
pub use set::PolicySet;
pub use size::parse_size;
pub use source::SourceFile;
pub use table::{ApiRow, CredentialRow, GrantRow, IdentityRows, Table};
pub use token_endpoint::TokenEndpoint;
pub use until::{Moment, Until};
pub use when::{Body, BodyFault, BodyState, Condition, Facts, Fault, Source};
