//! The tamper-evident journal: records, chain, reader, verifier. Pure over `Read`, `Write` and `Seek`.
//!
//! In the order in which a record passes through it: it is spelled ([`record`]), prepared and appended ([`writer`]),
//! found again after a kill ([`recover()`]), read ([`reader`]), proved ([`verify`], [`check`]) and shown ([`human`]).
//! What somebody looks for ([`filter`]) is found by the indexes of closed segments ([`index`]), over all of them ([`archive`]).
//! The format on disk is described at [`writer`].

pub mod chain;
pub mod text;

pub mod basis;
pub mod timestamp;

pub mod key;
pub mod note;
pub mod signed;
pub mod tree;

pub mod capture;
pub mod workload;

pub mod record;

pub mod allowed;

mod line;
pub mod packed;
pub mod source;

pub mod segment;
pub mod writer;

pub mod reader;
pub mod verify;

pub mod sealed;

pub mod keys;
mod stitch;

pub mod follow;

pub mod recover;

pub mod kept;

pub mod check;
pub mod proof;

pub mod human;

pub use basis::{Basis, Condition, Fingerprint, Held, Question, RequestKind};
mod brief;
mod scan;

pub mod facts;
pub mod filter;

pub mod index;

pub mod archive;

pub use allowed::{Allowed, Why, told};
pub use archive::{Archive, Indexes, Place};
pub use capture::{Capture, CaptureEnd, Part};
pub use chain::{ChainHash, Head};
pub use facts::{Facts, Ruling};
pub use filter::{Filter, Pattern, StatusRange};
pub use kept::Kept;
pub use key::{PublicKey, SecretKey, Signature};
pub use keys::Keys;
pub use line::{FORMAT_VERSION, MAX_LINE};
pub use note::{NotANote, Note, SignedNote};
pub use proof::Proof;
pub use reader::{Content, Entry, Item, Reader};
pub use record::{
    Access, Blame, Bound, CaChange, Decision, Detach, IdentityKeys, Mistrust, Outcome, Person, PolicyLoad,
    PolicyResult, Record, Recovered, RemovedCredential, Rule, SecretChange, SecretStep, Start, Stop, Target,
    Trace, Verdict,
};
pub use recover::{RecoverError, Recovery, recover};
pub use segment::Segment;
pub use signed::{Checkpoint, KeyChange, Retired, SegmentStart};
pub use source::Source;
pub use timestamp::Timestamp;
pub use tree::Tree;
pub use verify::{Break, Fault, SealFault, Verification, Verifier};
pub use workload::{Container, Footing, Known, Kubernetes, NamedPath, Workload};
pub use writer::{AppendError, Appended, Prepared, Writer};
