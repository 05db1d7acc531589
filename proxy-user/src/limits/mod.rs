//! How much may be called: rates, calls at once, quotas; and what upstreams ask for by `Retry-After`.
//!
//! Invariant: a call that is refused takes nothing. All limits that apply hold at once: what one of them gave is given back
//! when another refuses.

mod admit;
pub mod backoff;
pub mod gcra;
pub mod ledger;
pub mod quota;
mod live;
mod scope;

pub use self::{
    admit::{Admission, Exceeded, Pass, seconds},
    backoff::{Backoff, Whose},
    ledger::{Ledger, LedgerError},
    live::LiveLimits,
    scope::{Registry, Scope},
};
