//! The crate as its users see it: whole folders of policy files in, diagnostics and decisions out.

#[cfg(test)]
mod allocations;
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod folders;
#[cfg(test)]
mod hostile;
