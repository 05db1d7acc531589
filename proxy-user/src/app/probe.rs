//! Tries a credential of the live policy by the call that the policy names for that.
use std::time::Instant;

use crate::{
    base::clock,
    connection::Services,
    control::{
        Failure,
        credentials::{TestOrder, TestReport},
    },
    credentials::{Ask, AskedBy},
};

/// As whose use a call is noted that nobody has a grant for.
const NOBODY: &str = "_vouchsafe";

/// Makes the call, and waits for the answer. Blocks; must not be called on a thread of the runtime.
pub(super) fn test(services: &Services, order: &TestOrder) -> Result<TestReport, Failure> {
    let live = services.policy.live();
    let set = live.set();
    let Some(credential) = set.credentials().find(|it| it.name == order.name) else {
        let message = format!("the policy that is live has no credential {:?}", order.name);
        return Err(Failure::new("credential", message, "see `vouchsafe credential list`"));
    };
    let Some(probe) = &credential.probe else {
        let message = format!("the credential {} has no probe", credential.name);
        let help = "add a call that does no harm, such as probe = \"GET https://api.example.com/v1/me\"";
        return Err(Failure::new("probe", message, help));
    };
    let identity = match &order.identity {
        Some(name) if set.identity_named(name).is_none() => {
            let message = format!("the policy that is live has no identity {name:?}");
            return Err(Failure::new("identity", message, "see `vouchsafe status`"));
        }
        Some(name) => Some(name.clone()),
        None => set
            .identities()
            .find(|it| it.grants.iter().any(|grant| grant.credential == Some(credential.id)))
            .map(|it| it.name.clone()),
    };
    let (Some(api), Some(at_work)) = (set.api(probe.api), live.live_credential(credential.id)) else {
        return Err(Failure::new("internal", "the credential is not at work", "report this"));
    };
    let ask = Ask {
        identity: identity.as_deref().unwrap_or(NOBODY),
        api: &api.name,
        host: probe.request.host.name(),
        workload: AskedBy::default(),
        inject: live.inject(api.id),
    };
    let begun = Instant::now();
    let probed = tokio::runtime::Handle::current().block_on(services.credentials.probe(at_work, probe, &ask));
    let probed = probed.map_err(|error| Failure::new("credential", error.to_string(), ""))?;
    let now_s = u64::try_from(clock::now().0).unwrap_or_default();
    at_work.note_use(ask.identity, now_s);
    tracing::info!(credential = credential.name, status = probed.status.as_u16(), "a credential was tried");
    Ok(TestReport {
        probe: probe.request.text.clone(),
        identity,
        version: probed.version,
        status: probed.status.as_u16(),
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        taken: probed.status.is_success(),
    })
}
