//! The crate as its users see it: whole folders of policy files in, diagnostics and decisions out.

/// The moment of every decision here, unless it matters: 2027-01-01T00:00:00Z.
#[cfg(test)]
pub(crate) const NOW: proxy_policy::Moment = proxy_policy::Moment(1_798_761_600);

#[cfg(test)]
mod allocations;
#[cfg(test)]
mod conditions;
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod folders;
#[cfg(test)]
mod hostile;
mod lint;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod tricks;
#[cfg(test)]
mod reference;
