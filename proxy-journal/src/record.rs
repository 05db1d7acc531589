//! What the journal says: one typed record for each kind of event.
//!
//! Nothing here holds a secret, the value of a header or a query string, and nothing may be added that does: the journal
//! is read by people who must not see them.
//!
//! A reader of an older version meets kinds and fields that it does not know. Fields it skips; a kind, or a value, that
//! it does not know makes [`crate::Content::Other`], which still verifies and can be shown.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::basis::{Basis, Fingerprint};
use crate::capture::Capture;
use crate::signed::{Checkpoint, KeyChange, Retired, SegmentStart};
use crate::workload::Workload;

/// One record, told apart on disk by its `"kind"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The daemon began to write here.
    Start(Start),
    /// The daemon ended on purpose.
    Stop(Stop),
    /// A policy set was loaded or refused.
    Policy(PolicyLoad),
    /// A call or a connection was decided; written before the decision takes effect. Shared, because sinks and the
    /// outcome look at it after it was written.
    Decision(Arc<Decision>),
    /// The kernel let a connection, or the datagrams of a socket, past the proxy, by a network rule; nothing follows.
    Connection(Arc<Decision>),
    /// A process was kept from tracing another (`protect`); nothing follows.
    Trace(Arc<Trace>),
    /// An allowed call ended.
    Outcome(Outcome),
    /// The end of the journal was repaired after a kill.
    Recovered(Recovered),
    /// Somebody takes the kernel side off, on purpose. Written before it is done.
    Detach(Detach),
    /// A table of the kernel side was full and something was lost or refused for it, or an identity was refused too often.
    Bound(Bound),
    /// A secret of the daemon's own store became another one, or ended.
    Secret(SecretChange),
    /// There is a new generation of the CA.
    Ca(CaChange),
    /// Another key signs from here on.
    Key(Box<KeyChange>),
    /// The records of the segment so far, signed.
    Checkpoint(Box<Checkpoint>),
    /// A segment begins.
    Segment(SegmentStart),
    /// The oldest segments are removed.
    Retired(Retired),
}

/// The daemon began to write. The chain goes on over it: `prev` and `seq` continue those of the last run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Start {
    /// Version of the daemon.
    pub version: String,
    /// `/proc/sys/kernel/random/boot_id`: times since boot in this run (`start_time_ns`) belong to this boot.
    pub boot_id: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Generation of the policy set that is live, when one is already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_generation: Option<u64>,
    /// Digest of its files, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_digest: Option<String>,
    /// What its identities ask, as in [`PolicyLoad`].
    #[serde(default, skip_serializing_if = "IdentityKeys::is_empty")]
    pub identity_keys: IdentityKeys,
    /// Nothing is denied by policy in this run (`mode = "observe"`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observes: bool,
}

/// The daemon ended on purpose. A run without it was killed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stop {
    /// Why, in words: `SIGTERM`, `upgrade`.
    pub reason: String,
}

/// Each identity of a policy, and a key that stands for all that it asks of a workload, in 16 hexadecimal digits.
pub type IdentityKeys = BTreeMap<String, String>;

/// A policy set was loaded or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLoad {
    /// Generation that the set has, or would have had.
    pub generation: u64,
    /// Digest of the files of the set, in hexadecimal.
    pub digest: String,
    /// How many identities it names.
    pub identities: u64,
    /// Whether it is live now.
    pub result: PolicyResult,
    /// Every error with its place, when it was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What its identities ask: those with the same key, in whatever policy, are met by the same workloads. Empty when there are too many.
    #[serde(default, skip_serializing_if = "IdentityKeys::is_empty")]
    pub identity_keys: IdentityKeys,
}

/// Whether a policy set went live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyResult {
    /// It is live.
    Loaded,
    /// It has errors; the old one goes on.
    Refused,
}

/// One decision. A refused connection, which never came to a request, has neither `method` nor `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Names the call; its outcome has the same.
    pub id: Uuid,
    /// Who called, as the kernel saw it.
    pub workload: Arc<Workload>,
    /// The identity that the policy gives to the workload; absent when it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Address and port that the workload connected to; or, with `proxy`, where the host is that it asked for. Without a meaning but for
    /// the port (`0.0.0.0`) where the host was not looked up.
    pub dst: SocketAddr,
    /// The proxy that it connected to and asked for that (by `CONNECT`, or by a target in absolute form), which was never called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SocketAddr>,
    /// `http`, `https`, or another as recognized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Name of the API that the host belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Host that was called, as decided on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port of that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The handshake of a connection that is not looked into has another one encrypted inside (ECH, RFC 9849), or pretends to, as browsers
    /// do: `host` is the name outside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ech: bool,
    /// Request method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Path after normalization, never with its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether there was a query string, which is not recorded.
    pub has_query: bool,
    /// What was decided.
    pub verdict: Verdict,
    /// Whether it goes on only because its identity or grant has `mode = "observe"`; `reason` says why it would be denied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
    /// The rule that decided; absent when no rule matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// Why, in words for a person.
    pub reason: String,
    /// Name of the credential that is attached, never its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The client refused our certificate: what is the matter with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mistrust: Option<Box<Mistrust>>,
    /// Of what was refused: the word for it that the client got, `not-granted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Cow<'static, str>>,
    /// What it was decided on besides; absent where no policy was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Box<Basis>>,
    /// Values of the request that this host was told to tell apart (`fingerprint_query`, `fingerprint_headers`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<Fingerprint>,
    /// So many bytes of each body are kept for auditors (`capture`); absent: none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<u64>,
    /// Generation of the policy set that decided.
    pub generation: u64,
}

/// A client that does not trust the CA of this host. What it is about its process shows of itself: advice, no evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistrust {
    /// It said so, by an alert; else it only went away after the handshake without asking for anything, as clients do that verify
    /// then, and as others do now and then.
    pub certain: bool,
    /// What it was recognized as: `Python 3.11`, `Node.js`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// `lacks`, `restart`, `compiled_in`, `pinned`, `trusts` (what it reads has the CA), `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do: a command, but for a few things that none can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The call goes on; an outcome follows.
    Allow,
    /// The call is refused; nothing follows.
    Deny,
}

/// A process was kept from tracing another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Who asked, as the kernel saw it.
    pub workload: Workload,
    /// The identity that the policy gives to it; absent when it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What it asked for.
    pub access: Access,
    /// The other process.
    pub target: Target,
    /// Why, in words for a person.
    pub reason: String,
    /// Generation of the policy set that was live.
    pub generation: u64,
}

/// What one process asked the kernel to let it do with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Stop it, or read or write its memory, registers or descriptors: `ptrace`, `/proc/PID/mem`, `process_vm_readv` and
    /// `process_vm_writev`, `pidfd_getfd`.
    Attach,
    /// Look into it by a system call that reveals less: `perf_event_open`, `kcmp`, `move_pages`.
    Inspect,
    /// Be traced by it: `PTRACE_TRACEME`.
    Traceme,
}

/// A process that another one is about, by what was known of it when that was decided.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Target {
    /// Process id (thread group) in the host's namespace.
    pub pid: u32,
    /// Start of the process in nanoseconds since boot.
    pub start_time_ns: u64,
    /// Path of the executable, when it could still be told: a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Id of the control group (version 2).
    pub cgroup: u64,
    /// Path of the control group below its mount, when it could still be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<String>,
    /// Unit of systemd that the control group belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// Where in the policy files the rule stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// File, relative to the directory of the policy set.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// The rule as it is written there.
    pub text: String,
}

/// How an allowed call ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The `id` of the decision.
    pub id: Uuid,
    /// Status that the client received, when it received one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes of the request's body sent to the upstream.
    pub bytes_sent: u64,
    /// Bytes of the response's body received from the upstream.
    pub bytes_received: u64,
    /// From the decision to the end, in microseconds.
    pub duration_us: u64,
    /// From the decision to the first byte of the response, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttfb_us: Option<u64>,
    /// Address that was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketAddr>,
    /// Host and port that it, a proxy of the site (`[upstream] proxy`), was asked to connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxied: Option<String>,
    /// What went wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who is to blame for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<Blame>,
    /// The daemon was stopped in mid-call: how the call ended is not known.
    pub interrupted: bool,
    /// Credentials that the client brought and that were taken out before the call was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedCredential>,
    /// The upstream sent the credential back, and it was covered before the client got it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reflected: bool,
    /// It was sent once more: the upstream did not take a credential that had become another meanwhile, or a connection ended that had
    /// the request and did not answer it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// The proxy answered it itself, as the token endpoint of its API: nothing was sent, and no upstream dialled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answered: bool,
    /// The bodies that are kept for auditors. An empty one is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<Capture>,
}

/// A credential that a client brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedCredential {
    /// The part of the request, as in `header x-key`, `query token` or `cookie sid`.
    pub place: String,
    /// Tells it apart from others on this host, under a key that never leaves it: the first 12 bytes of an HMAC-SHA-256, in
    /// hexadecimal digits.
    pub fingerprint: String,
}

/// Who is to blame for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The workload.
    Client,
    /// The API's server or the way to it.
    Upstream,
    /// The policy.
    Policy,
    /// This host: its disk, memory, limits.
    Host,
    /// Vouchsafe itself.
    Us,
}

/// The end of the journal was repaired when the daemon started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recovered {
    /// Bytes of a half-written last line that were cut off.
    pub dropped_bytes: u64,
    /// Bytes that a loss of power left after the end of the chain, which are kept beside it (`lost-…`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_bytes: u64,
    /// Calls without an outcome; as many outcomes with `interrupted` follow.
    pub closed: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The kernel side is taken off: from here on nothing is mediated, until the next start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Detach {
    /// Who does it.
    pub by: Person,
    /// Where links and maps are pinned.
    pub pin: String,
    /// The programs.
    pub programs: Vec<String>,
    /// Why some of them stay; the record before this one has named them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A secret of the daemon's own store became another one, or ended; nothing of it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretChange {
    /// Its name in the store.
    pub secret: String,
    /// What became of it.
    pub change: SecretStep,
    /// The version that it has now; of one that ended, the version that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The credentials that a new one was tried with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
    /// Who said so; absent when it was due, or found at a look at the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Person>,
    /// Why it is as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What becomes of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretStep {
    /// Somebody set it.
    Set,
    /// Somebody removed it.
    Removed,
    /// A new one was made and tried, and is the current one from here on.
    Rotated,
    /// The one before the current one is not taken any more.
    Ended,
    /// A new one that did not become the current one is not taken any more.
    Discarded,
    /// It could not be made anew, or what was to end could not.
    Failed,
}

/// There is a new generation of the CA that signs what bots are shown: from here on, who holds its key can be one of its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CaChange {
    /// Its number.
    pub generation: u32,
    /// Why it was made.
    pub reason: String,
    /// How many domains and addresses it may sign for.
    pub hosts: u64,
    /// The SHA-256 of the roots that bots must trust, in hex with colons.
    pub roots: Vec<String>,
    /// The numbers of those before it that go on for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<u32>,
    /// Who said so; absent when it follows the policy, or was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Person>,
}

/// Who gave a command on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Person {
    /// User id of the process.
    pub uid: u32,
    /// Id of the process.
    pub pid: u32,
    /// User who logged in, as the kernel remembers it (`/proc/PID/loginuid`); absent when nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// User that sudo names (`SUDO_UID`): what the process says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_uid: Option<u32>,
}

/// A bound was reached: of a table of the kernel side, or of what of one identity has a record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bound {
    /// Of whom it is. Without one it is of the host as a whole; of refusals ([`Bound::REFUSALS`]) of all workloads without an identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Name of the counter, as `status` shows it.
    pub counter: String,
    /// How often since the record before; in the first record of a run: since the programs were attached.
    pub count: u64,
    /// How often since the programs were attached; of what the daemon counts: since it started.
    pub total: u64,
    /// What that means, in words.
    pub effect: String,
}

impl Bound {
    /// The counter of refusals that have no record of their own.
    pub const REFUSALS: &str = "refusals_unrecorded";

    /// Whose it is, for people; `None` when it is of the host as a whole.
    #[must_use]
    pub fn whose(&self) -> Option<&str> {
        self.identity.as_deref().or((self.counter == Self::REFUSALS).then_some("unknown"))
    }
}
