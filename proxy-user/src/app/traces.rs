//! What `protect` refused, told to the journal: who wanted to get at which process, and how.
use proxy_common::{
    EVENT_TRACE, EVENT_TRACEME, Event,
    protect::{MODE_ATTACH, start_and_cgroup},
};
use proxy_journal::{Access, Record, Target};
use std::sync::Arc;

use crate::{
    authorize::{Caller, entry},
    connection::{RefusedBy, Services},
    kernel::Cgroups,
    workload::{Workloads, process, unit},
};

/// Whether an event is about this.
pub(super) fn is_one(event: &Event) -> bool {
    matches!(event.kind, EVENT_TRACE | EVENT_TRACEME)
}

/// Records one.
pub(super) async fn record(event: &Event, services: &Services, workloads: &Workloads) {
    let workload = workloads.of(&event.capture, false);
    let caller = Caller::identify(workload, &services.policy, &*services.identifier).await;
    let subject = caller.current(&services.policy, &*services.identifier).await;
    if !services.take_record(&subject, RefusedBy::Kernel) {
        return;
    }
    let access = access(event);
    let target = target(event, workloads.cgroups());
    let trace = entry::traced(&subject, access, target, reason(access));
    if let Err(error) = services.recorder.note(Record::Trace(Arc::new(trace))) {
        tracing::error!(%error, "that a process was kept from tracing another cannot be recorded");
    }
}

fn access(event: &Event) -> Access {
    match event.kind {
        EVENT_TRACEME => Access::Traceme,
        _ if u32::from(event.dst_port) & MODE_ATTACH != 0 => Access::Attach,
        _ => Access::Inspect,
    }
}

fn reason(access: Access) -> &'static str {
    match access {
        Access::Attach | Access::Inspect => "only root may trace a governed workload or vouchsafe (protect)",
        Access::Traceme => "a governed workload may be traced by root only (protect)",
    }
}

fn target(event: &Event, cgroups: &Cgroups) -> Target {
    let (start_time_ns, cgroup) = start_and_cgroup(event.dst_addr);
    let cgroup_path = cgroups.path_of(cgroup);
    Target {
        pid: event.protocol,
        start_time_ns,
        exe: process::path_label(event.protocol, start_time_ns),
        cgroup,
        unit: cgroup_path.as_deref().and_then(|path| unit::of_cgroup(path, cgroups.unit_root())),
        cgroup_path,
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::protect::{MODE_REALCREDS, other_process};

    use super::*;

    #[test]
    fn an_event_tells_how_and_of_whom() {
        let cgroups = Cgroups::open(None, Some("/")).unwrap();
        let other = other_process(7, u64::MAX);
        let mut event = Event { kind: EVENT_TRACE, dst_addr: other, protocol: 1, ..Event::default() };
        event.dst_port = u16::try_from(MODE_REALCREDS | MODE_ATTACH).unwrap();
        assert_eq!(access(&event), Access::Attach);
        event.dst_port = u16::try_from(MODE_REALCREDS | 1).unwrap();
        assert_eq!(access(&event), Access::Inspect);
        event.kind = EVENT_TRACEME;
        assert_eq!(access(&event), Access::Traceme);
        let target = target(&event, &cgroups);
        assert_eq!((target.pid, target.start_time_ns, target.cgroup), (1, 7, u64::MAX));
        assert_eq!(target.exe, None, "process 1 started at another time");
    }
}
