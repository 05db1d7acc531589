//! What the programs decided in the kernel: told to the journal, and answered where they ask.
use std::{
    collections::HashMap,
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_common::{
    EVENT_ALLOWED, EVENT_ASK, EVENT_FAMILY, EVENT_NETNS, EVENT_PROTOCOL, EVENT_PROXY, EVENT_REFUSED,
    EVENT_SOCKET, EVENT_TUNNEL, EVENT_UNVETTED, Event,
};
use proxy_journal::Record;

use super::{namespaces::Namespaces, traces};
use crate::{
    authorize::{Asked, Caller, Kind, Refusal, Subject, authorize_network, entry},
    base::{addr::OriginalDst, clock},
    connection::{RefusedBy, Services},
    kernel::Events,
    workload::{Identified, Workloads},
};

/// The same refusal of the same workload is recorded once in this time; the others are counted.
const REPEATED_WITHIN: Duration = Duration::from_secs(10);

/// How many refusals are remembered for that; beyond, all are forgotten.
const MOST_REMEMBERED: usize = 4096;

/// What makes two events the same.
#[derive(PartialEq, Eq, Hash)]
struct Sameness {
    exe: (u32, u64),
    uid: u32,
    cgroup_id: u64,
    dst: ([u8; 16], u16),
    kind: u16,
    protocol: u32,
}

/// Takes the programs' events one by one, for as long as there are any.
pub(super) async fn observe(
    mut events: Events,
    services: Arc<Services>,
    workloads: Arc<Workloads>,
    namespaces: Arc<Namespaces>,
) {
    let mut seen = HashMap::new();
    loop {
        let event = match events.next().await {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(%error, "what the kernel refuses is not recorded any more");
                return;
            }
        };
        if event.kind == EVENT_NETNS {
            namespaces.serve(event.capture.netns_cookie, event.capture.tgid);
            continue;
        }
        let repeated = is_repeated(&mut seen, &event);
        // An answer is always given: the same process may ask again because its standing was forgotten.
        if repeated && event.kind != EVENT_ASK {
            services.counters.count_merged();
            continue;
        }
        if traces::is_one(&event) {
            traces::record(&event, &services, &workloads).await;
            continue;
        }
        take(&event, repeated, &services, &workloads, &namespaces).await;
    }
}

fn is_repeated(seen: &mut HashMap<Sameness, Instant>, event: &Event) -> bool {
    let who = &event.capture;
    let sameness = Sameness {
        exe: (who.exe_dev, who.exe_ino),
        uid: who.uid,
        cgroup_id: who.cgroup_id,
        dst: (event.dst_addr, event.dst_port),
        kind: event.kind,
        protocol: event.protocol,
    };
    let now = Instant::now();
    if seen.get(&sameness).is_some_and(|at| now.duration_since(*at) < REPEATED_WITHIN) {
        return true;
    }
    if seen.len() >= MOST_REMEMBERED {
        seen.clear();
    }
    seen.insert(sameness, now);
    false
}

async fn take(
    event: &Event,
    repeated: bool,
    services: &Services,
    workloads: &Workloads,
    namespaces: &Namespaces,
) {
    let workload = workloads.of(&event.capture, event.capture.netns_cookie != namespaces.home());
    let subject = if event.kind == EVENT_UNVETTED {
        // A packet has no process: whoever sends it may not be the one that runs now.
        let why = "of a packet only the cgroup and the user of its socket are known".to_owned();
        Arc::new(Subject::new(workload, services.policy.live(), Identified::None(why.into())))
    } else {
        // This tells the kernel, too.
        let caller = Caller::identify(workload, &services.policy, &*services.identifier).await;
        caller.current(&services.policy, &*services.identifier).await
    };
    let protocol = match event.kind {
        EVENT_TUNNEL => "tunnel".to_owned(),
        EVENT_FAMILY => format!("family-{}", event.protocol),
        _ => protocol_name(event.protocol),
    };
    let dst = OriginalDst((Ipv6Addr::from(event.dst_addr).to_canonical(), event.dst_port).into());
    let asked = Asked::of(dst, &protocol, None);
    let permitted = authorize_network(
        &subject,
        u8::try_from(event.protocol).unwrap_or(0),
        dst,
        services.settings.unidentified,
        clock::now(),
    );
    let refusal = match (event.kind, permitted) {
        (EVENT_ALLOWED, Ok(passage)) => {
            services.counters.tally(&subject).count_allowed();
            let decision = entry::passing(&subject, &asked, &passage);
            if let Err(error) = services.recorder.note(Record::Connection(Arc::new(decision))) {
                tracing::error!(%error, "a connection that the kernel let through cannot be recorded");
            }
            return;
        }
        // What comes next passes.
        (EVENT_ASK, Ok(_)) => {
            tracing::debug!(workload = subject.workload().label(), %dst, "refused once, until the kernel knew who it is");
            return;
        }
        (EVENT_REFUSED, Ok(_)) | (EVENT_ALLOWED, Err(_)) => {
            Refusal::new(Kind::NotGranted, "decided in the kernel by the policy that was live a moment ago")
        }
        (EVENT_PROTOCOL, _) => Refusal::new(
            Kind::UnknownProtocol,
            format!("{protocol} to port {} is never let through: only TCP to it is mediated", dst.port()),
        ),
        // The other event of the same refusal is the one that is recorded.
        (EVENT_ASK, _) if event.dst_port == 0 => return,
        (EVENT_ASK | EVENT_REFUSED, Err(refusal)) => refusal,
        (EVENT_SOCKET | EVENT_FAMILY, _) => Refusal::new(
            Kind::UnknownProtocol,
            format!("a socket for {protocol} was not given: such traffic cannot be mediated"),
        ),
        (EVENT_TUNNEL, _) => Refusal::new(
            Kind::UnknownProtocol,
            "a tunnel device was not given: packets from it come from no socket and cannot be mediated",
        ),
        (EVENT_UNVETTED, _) => Refusal::new(
            Kind::UnknownProtocol,
            "packets were dropped: their socket is older than vouchsafe, or came around its hooks, or a source route or \
             device would have led them elsewhere",
        ),
        (EVENT_PROXY, _) => Refusal::new(Kind::Misdirected, "the proxy's own address was asked for directly"),
        // A ring buffer that an older kernel side wrote.
        _ => return,
    };
    if repeated {
        return services.counters.count_merged();
    }
    services.refused(&subject, RefusedBy::Kernel, || entry::refused(&subject, &asked, &refusal));
}

/// The name of a protocol (protocols(5)), for people.
fn protocol_name(protocol: u32) -> String {
    match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        33 => "dccp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        136 => "udplite".to_owned(),
        255 => "raw".to_owned(),
        other => format!("ip-{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_recorded_once_and_another_one_by_itself() {
        let mut seen = HashMap::new();
        let event = Event { dst_port: 53, kind: EVENT_REFUSED, protocol: 17, ..Event::default() };
        assert!(!is_repeated(&mut seen, &event));
        assert!(is_repeated(&mut seen, &event));
        assert!(!is_repeated(&mut seen, &Event { dst_port: 54, ..event }));
        assert!(!is_repeated(&mut seen, &Event { protocol: 6, ..event }));
        let mut other = event;
        other.capture.uid = 7;
        assert!(!is_repeated(&mut seen, &other));
    }
}
