//! The limits of one policy, found by position: nothing is looked up by name for a call.
use std::sync::Arc;

use proxy_policy::{Api, ApiHost, IdentityId, PolicySet};

use super::scope::{Registry, Scope};

type Limited = Option<Arc<Scope>>;

/// All limits of a policy.
#[derive(Debug, Default)]
pub struct LiveLimits {
    /// By identity: its own, and by grant.
    identities: Vec<(Limited, Vec<Vec<Arc<Scope>>>)>,
    /// By API: its own, and by host.
    apis: Vec<(Limited, Vec<Limited>)>,
}

impl LiveLimits {
    /// Those of a set. What was used of limits that stay the same is still used.
    #[must_use]
    pub fn of(set: &PolicySet, registry: &Registry) -> Self {
        let identities = set.identities().map(|identity| {
            let name = &identity.name;
            let own =
                registry.scope(&format!("identity/{name}"), format!("identity {name}"), &identity.limits);
            let grants = identity.grants.iter().map(|grant| {
                let limited = grant.limits.iter();
                limited.filter_map(|it| registry.scope(&it.key, it.whose.clone(), &it.limits)).collect()
            });
            (own, grants.collect())
        });
        let apis = set.apis().map(|api| {
            let name = &api.name;
            let own = registry.scope(&format!("api/{name}"), format!("API {name}"), &api.limits);
            let hosts = api.hosts.iter().map(|host| {
                let (key, whose) = (format!("host/{name}/{}", host.value), format!("host {}", host.value));
                registry.scope(&key, whose, &api.host_limits)
            });
            (own, hosts.collect())
        });
        Self { identities: identities.collect(), apis: apis.collect() }
    }

    /// Those that hold for a call. Allocates nothing when there are none.
    #[must_use]
    pub fn of_call(
        &self,
        identity: IdentityId,
        grant: Option<usize>,
        api: &Api,
        host: &str,
        port: u16,
    ) -> Vec<Arc<Scope>> {
        let mut scopes = Vec::new();
        if let Some((own, grants)) = self.identities.get(position(identity.0)) {
            scopes.extend(own.iter().cloned());
            scopes.extend(grant.and_then(|grant| grants.get(grant)).into_iter().flatten().cloned());
        }
        if let Some((own, hosts)) = self.apis.get(position(api.id.0)) {
            scopes.extend(own.iter().cloned());
            if hosts.iter().any(Option::is_some) {
                // An exact name wins over a wildcard.
                let find = |wildcard: bool| {
                    let is_it =
                        |known: &ApiHost| known.is_wildcard() == wildcard && is_host(known, host, port);
                    api.hosts.iter().position(|known| is_it(known))
                };
                let at = find(false).or_else(|| find(true));
                scopes.extend(at.and_then(|at| hosts.get(at)).and_then(Option::as_ref).cloned());
            }
        }
        scopes
    }
}

fn position(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

/// Whether this entry of an API stands for a host.
fn is_host(known: &ApiHost, host: &str, port: u16) -> bool {
    known.port() == port
        && match known.is_wildcard() {
            false => known.name() == host,
            true => host
                .strip_suffix(known.name())
                .and_then(|label| label.strip_suffix('.'))
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
        }
}
