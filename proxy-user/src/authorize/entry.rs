//! A decision in the spelling of the journal.

use std::borrow::Cow;

use proxy_journal::{Access, Allowed, Basis, Decision, Target, Trace, Verdict};
use proxy_policy::{Api, Scheme};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::asked::Asked;
use super::passage::Passage;
use super::permit::Permit;
use super::refusal::Refusal;
use super::subject::Subject;
use crate::workload::container::{Container, Maker};
use crate::workload::{Identified, Workload};

/// A request that goes on. Nothing of it is copied.
#[must_use]
pub fn permitted<'a>(subject: &'a Subject, asked: &Asked<'a>, permit: &'a Permit) -> Allowed<'a> {
    let live = permit.live();
    let several = match subject.identified() {
        Identified::Ambiguous(names) => names.as_slice(),
        _ => &[],
    };
    Allowed {
        id: Uuid::now_v7(),
        workload: told(subject),
        identity: subject.identity().map(|identity| identity.name.as_str()),
        dst: asked.dst.0,
        proxy: asked.proxy.map(|proxy| proxy.0),
        scheme: asked.scheme,
        api: permit.api().and_then(|id| live.api(id)).map(|api| api.name.as_str()),
        host: asked.host,
        port: asked.port,
        method: asked.method,
        path: asked.path,
        has_query: asked.has_query,
        observed: permit.is_observed(),
        why: permit.why(),
        credential: permit.credential().and_then(|id| live.credential(id)).map(|known| known.name.as_str()),
        basis: permit.basis(),
        several,
        fingerprints: Vec::new(),
        capture: permit.capture(),
        generation: subject.live().generation(),
    }
}

/// A connection that goes through.
#[must_use]
pub fn passing(subject: &Subject, asked: &Asked<'_>, passage: &Passage) -> Decision {
    let observed = passage.is_observed();
    Decision {
        rule: passage.rule().cloned(),
        observed,
        ..entry(subject, asked, Verdict::Allow, passage.reason(), Some(passage.basis()))
    }
}

/// A request or a connection that is refused.
#[must_use]
pub fn refused(subject: &Subject, asked: &Asked<'_>, refusal: &Refusal) -> Decision {
    Decision {
        rule: refusal.rule.clone(),
        refusal: Some(refusal.kind.slug().into()),
        ..entry(subject, asked, Verdict::Deny, refusal.reason(), refusal.basis.as_deref())
    }
}

/// A process that was kept from tracing another.
#[must_use]
pub fn traced(subject: &Subject, access: Access, target: Target, reason: &str) -> Trace {
    Trace {
        workload: spelled_out(subject.workload()),
        identity: subject.identity().map(|identity| identity.name.clone()),
        access,
        target,
        reason: reason.to_owned(),
        generation: subject.live().generation(),
    }
}

/// The API that the host belongs to.
fn called<'s>(subject: &'s Subject, asked: &Asked<'_>) -> Option<&'s Api> {
    let (scheme, host, port) = (asked.scheme?, asked.host?, asked.port?);
    let scheme = if scheme == "http" { Scheme::Http } else { Scheme::Https };
    subject.live().set().api_for(scheme, host, port)
}

fn entry(
    subject: &Subject,
    asked: &Asked<'_>,
    verdict: Verdict,
    reason: &str,
    basis: Option<&Basis>,
) -> Decision {
    let path = asked.path.map(|path| shortened(path, verdict));
    let several = || match subject.identified() {
        Identified::Ambiguous(names) => names.clone(),
        _ => Vec::new(),
    };
    let method = asked.method.map(|method| method_of(method, verdict));
    let is_cut =
        (path.map(str::len), method.map(str::len)) != (asked.path.map(str::len), asked.method.map(str::len));
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Decision {
        id: Uuid::now_v7(),
        workload: spelled_out(subject.workload()).into(),
        identity: subject.identity().map(|identity| identity.name.clone()),
        dst: asked.dst.0,
        proxy: asked.proxy.map(|proxy| proxy.0),
        scheme: owned(asked.scheme),
        api: called(subject, asked).map(|api| api.name.clone()),
        host: owned(asked.host),
        port: asked.port,
        method: owned(method),
        path: owned(path),
        has_query: asked.has_query,
        verdict,
        observed: false,
        rule: None,
        reason: shortened(reason, verdict).to_owned(),
        credential: None,
        mistrust: None,
        capture: None,
        ech: asked.ech,
        refusal: None,
        fingerprints: Vec::new(),
        basis: basis.map(|basis| Box::new(Basis { path_cut: is_cut, several: several(), ..basis.clone() })),
        generation: subject.live().generation(),
    }
}

/// A workload as the journal tells it: spelled for its first call, and kept for those after it.
fn told(subject: &Subject) -> Cow<'_, RawValue> {
    if let Some(told) = subject.told.get() {
        return Cow::Borrowed(told);
    }
    let workload = subject.workload();
    let is_settled = workload.script.get().is_some()
        && workload.ancestors.get().is_some()
        && workload.container.as_deref().is_none_or(Container::is_settled);
    let spell = || proxy_journal::told(&spelled_out(workload));
    match is_settled {
        true => Cow::Borrowed(&**subject.told.get_or_init(|| workload.evidence.told(spell))),
        false => Cow::Owned(spell()),
    }
}

fn spelled_out(workload: &Workload) -> proxy_journal::Workload {
    proxy_journal::Workload {
        pid: workload.pid,
        start_time_ns: workload.start_time_ns,
        exe: workload.exe.clone().unwrap_or_default(),
        exe_dev: workload.exe_dev,
        exe_ino: workload.exe_ino,
        uid: workload.uid,
        gid: workload.gid,
        cgroup: workload.cgroup_id,
        cgroup_path: workload.cgroup.clone(),
        unit: workload.unit.clone(),
        netns: workload.netns,
        foreign: workload.foreign,
        comm: workload.comm.clone(),
        invocation: workload.invocation.clone(),
        mntns: Some(workload.mntns).filter(|inode| *inode != 0),
        container: workload.container.as_deref().map(container),
        script: workload.script.get().cloned().flatten(),
        ancestors: workload.ancestors.get().cloned().unwrap_or_default(),
        known: workload.evidence.get().as_deref().cloned(),
    }
}

/// What is known of a container by now. Does not wait.
#[must_use]
pub fn container(known: &Container) -> proxy_journal::Container {
    let told = known.told();
    proxy_journal::Container {
        runtime: known.runtime.as_str().to_owned(),
        id: known.id.clone(),
        name: told.name.clone(),
        image: told.image.clone(),
        claimed_by: match known.maker {
            Maker::Root => None,
            Maker::User(uid) => Some(format!("uid {uid}")),
            Maker::Anybody => Some("anybody".to_owned()),
        },
        // A runtime can say of which namespace it is where the path does not have the pod.
        kubernetes: (known.pod.is_some() || told.namespace.is_some()).then(|| proxy_journal::Kubernetes {
            pod_uid: known.pod.clone().unwrap_or_default(),
            namespace: told.namespace.clone(),
            pod: told.pod.clone(),
            service_account: told.account.clone(),
        }),
    }
}

/// What was refused cost its sender nothing, so it may not fill the journal: long texts are cut. What was allowed is
/// recorded whole.
/// Over HTTP/2 it may be as long as all headers together.
fn method_of(method: &str, verdict: Verdict) -> &str {
    const MAX_REFUSED: usize = 64;
    match verdict {
        Verdict::Allow => method,
        Verdict::Deny => method.get(..method.floor_char_boundary(MAX_REFUSED)).unwrap_or(method),
    }
}

fn shortened(text: &str, verdict: Verdict) -> &str {
    const MAX_REFUSED: usize = 2048;
    match verdict {
        Verdict::Allow => text,
        Verdict::Deny => text.get(..text.floor_char_boundary(MAX_REFUSED)).unwrap_or(text),
    }
}
