//! Builds the parts in order, starts them, reloads, drains.

mod authority;
mod behind;
mod bounds;
pub mod daemon;
mod descriptors;
mod drain;
mod handler;
mod identifier;
mod issuer;
pub mod journal;
mod listeners;
mod namespaces;
mod network;
mod observer;
pub mod policies;
mod probe;
pub mod recall;
pub mod replay;
pub mod rehearse;
pub mod reidentify;
mod reload;
mod rotation;
mod supervisor;
mod traces;
mod who;
mod witness;
