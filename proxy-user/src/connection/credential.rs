//! The credential that a permitted call demands: at hand, or obtained first.

use std::time::{Duration, Instant};

use proxy_policy::{CredentialId, Scheme};

use crate::authorize::{Kind, Permit, Refusal, Subject};
use crate::base::clock;
use crate::credentials::{Ask, AskedBy, Attachment, CredentialError, bound_to};
use crate::forward::error::chain;

/// What goes into the call, and how long it took to obtain.
///
/// # Errors
/// There is none: the call is refused, and whoever issues it or has it is named.
pub(super) async fn attachment(
    subject: &Subject,
    permit: &Permit,
    id: CredentialId,
    host: &str,
) -> Result<(Attachment, Duration), Refusal> {
    let refused = |error: CredentialError| Refusal {
        rule: permit.rule().cloned(),
        ..Refusal::new(Kind::CredentialUnavailable, error.client_text()).with_internal(chain(&error))
    };
    let live = permit.live();
    let api = permit.api().and_then(|id| live.api(id));
    let at_work = live.credential(id).zip(live.live_credential(id));
    let (Some((credential, at_work)), Some(api), Some(identity)) = (at_work, api, subject.identity()) else {
        let detail = "the credential of the grant is not at work on this host";
        return Err(Refusal::new(Kind::CredentialUnavailable, detail));
    };
    bound_to(credential, api.id, &api.name).map_err(refused)?;
    if api.scheme == Scheme::Http && subject.workload().foreign {
        // Where it is sent is the daemon's loopback, and the bot means its own.
        let detail = format!(
            "the credential {} goes over plain HTTP to a loopback address of this host alone, and the call is from another \
             network namespace, where the same address is another place",
            credential.name
        );
        let rule = permit.rule().cloned();
        return Err(Refusal { rule, ..Refusal::new(Kind::CredentialUnavailable, detail) });
    }
    let inject = live.inject(api.id);
    let by = subject.workload();
    let workload = AskedBy { uid: by.uid, gid: by.gid, unit: by.unit.as_deref() };
    let ask = Ask { identity: &identity.name, api: &api.name, host, workload, inject };
    let (provided, took) = match at_work.ready(&ask) {
        Some(ready) => (ready, Duration::ZERO),
        None => {
            let asked = Instant::now();
            (at_work.provide(&ask).await, asked.elapsed())
        }
    };
    let attachment = provided.map_err(refused)?;
    at_work.note_use(&identity.name, u64::try_from(clock::now().0).unwrap_or_default());
    Ok((attachment, took))
}
