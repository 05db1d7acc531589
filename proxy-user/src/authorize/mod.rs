//! May this workload make this call? The answer is a value: a [`Permit`], a [`Passage`] or a [`Refusal`].
//!
//! In the order of use: the [`policy`] that is live, the [`subject`] (workload and identity under one generation of
//! it), the [`callers`] that a new policy finds, what is [`asked`], what the answer is based on ([`basis`]), the answer ([`authorize`], [`authorize_passage`]), and its spelling for the journal
//! ([`entry`]).
//!
//! Invariant: nothing is forwarded without a [`Permit`] or a [`Passage`], and only this module makes them.
//! Invariant: a workload without exactly one identity never gets a [`Permit`] for an API.

pub mod asked;
pub mod basis;
pub mod callers;
mod elsewhere;
pub mod passage;
pub mod entry;
pub mod permit;
pub mod policy;
pub mod refusal;
pub mod subject;

#[cfg(test)]
mod elsewhere_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use asked::{Asked, Facts, Seen, SeenBody};
pub use basis::Look;
pub use callers::Callers;
pub use passage::{
    Passage, authorize_network, authorize_passage, authorize_whole, recall_network, refuse_by_name,
};
pub use permit::{Answer, Permit, authorize, consider, told};
pub use policy::{LivePolicy, PolicyStore};
pub use refusal::{Kind, Over, Refusal};
pub use subject::{Caller, Identifier, Subject};

/// What happens to connections of workloads that no policy knows to hosts that no API names. A setting of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unidentified {
    /// They are refused.
    #[default]
    Deny,
    /// They go through undecrypted and unchanged, never with a credential.
    Pass,
}
