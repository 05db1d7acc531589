//! Records, chosen and random, and journals of them.

use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::Arc;

use proptest::option::of;
use proptest::prelude::*;
use proxy_journal::{
    Access, Blame, Bound, CaChange, Capture, CaptureEnd, Container, Decision, Detach, Footing, Known,
    Kubernetes, Outcome, Part, Person, PolicyLoad, PolicyResult, Prepared, Record, Recovered,
    RemovedCredential, Rule, SecretChange, SecretStep, SegmentStart, Start, Stop, Target, Timestamp, Trace,
    Verdict, Workload, Writer,
};
use uuid::Uuid;

/// So many seconds after the evening of 24 November 2026.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_795_550_400_000_000 + seconds * 1_000_000)
}

pub(crate) fn stop(reason: &str) -> Record {
    Record::Stop(Stop { reason: reason.to_owned() })
}

pub(crate) fn decision(id: Uuid) -> Decision {
    Decision {
        id,
        workload: Workload { pid: 4242, exe: "/opt/bots/invoice-bot".into(), ..Workload::default() }.into(),
        identity: Some("invoice-bot".into()),
        dst: ([198, 51, 100, 7], 443).into(),
        proxy: None,
        scheme: Some("https".into()),
        api: Some("stripe".into()),
        host: Some("api.stripe.com".into()),
        port: Some(443),
        method: Some("GET".into()),
        path: Some("/v1/invoices".into()),
        has_query: true,
        verdict: Verdict::Allow,
        observed: false,
        rule: Some(Rule {
            file: "policies/invoice-bot.toml".into(),
            line: 9,
            text: "GET /v1/invoices/**".into(),
        }),
        reason: "allowed by the role stripe-invoice-reader".into(),
        credential: Some("stripe-restricted".into()),
        mistrust: None,
        capture: None,
        ech: false,
        refusal: None,
        basis: None,
        fingerprints: Vec::new(),
        generation: 3,
    }
}

pub(crate) fn allowed(id: Uuid) -> Record {
    Record::Decision(Arc::new(decision(id)))
}

pub(crate) fn denied(id: Uuid) -> Record {
    Record::Decision(Arc::new(Decision {
        identity: None,
        method: Some("POST".into()),
        path: Some("/v1/\u{1b}[2J".into()),
        verdict: Verdict::Deny,
        rule: None,
        reason: "no identity matches this process".into(),
        credential: None,
        ..decision(id)
    }))
}

/// The bytes of a journal of these records.
pub(crate) fn journal(records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new()));
    for (second, record) in records.iter().enumerate() {
        writer.append(record, at(u64::try_from(second).unwrap())).unwrap();
    }
    writer.into_segment().into_inner()
}

/// The bytes of the two segments of one journal that nobody signs.
pub(crate) fn two_segments(one: &[Record], two: &[Record]) -> [Vec<u8>; 2] {
    let mut writer = Writer::new(Cursor::new(Vec::new()));
    for record in one {
        writer.append(record, at(0)).unwrap();
    }
    let start = segment_start(2);
    let first = Prepared::new(&Record::Segment(start), at(1)).unwrap();
    let old = writer.rotate(Cursor::new(Vec::new()), &first).unwrap();
    for record in two {
        writer.append(record, at(2)).unwrap();
    }
    [old.into_inner(), writer.into_segment().into_inner()]
}

pub(crate) fn segment_start(number: u32) -> SegmentStart {
    let (reason, boot_id) = ("size".to_owned(), "a".to_owned());
    SegmentStart { number, journal: None, key: None, reason, boot_id, open: Vec::new() }
}

/// Its lines, each with its newline.
pub(crate) fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn id() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

/// Text as an attacker would choose it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z/.]{0,20}",
        Just("\",\"hash\":\"0\"}\n{\"v\":1".to_owned()),
        Just("\u{1b}[31m\u{9b}2J\u{202e}\u{e0041}\0\r\n".to_owned()),
    ]
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<SocketAddr>().prop_map(|address| match address {
        // Flow labels are no part of an address in the journal.
        SocketAddr::V6(v6) => SocketAddr::new((*v6.ip()).into(), v6.port()),
        v4 @ SocketAddr::V4(_) => v4,
    })
}

fn workload() -> BoxedStrategy<Workload> {
    (
        (any::<u32>(), any::<u64>(), text(), any::<u64>()),
        (of(text()), of(text()), text(), any::<u32>()),
        (of(text()), of(any::<u64>()), of(container()), proptest::collection::vec(text(), 0..3)),
    )
        .prop_map(|(process, place, more)| {
            let ((pid, number, exe, cgroup), (cgroup_path, unit, comm, uid)) = (process, place);
            let (invocation, mntns, container, ancestors) = more;
            Workload {
                pid,
                start_time_ns: number,
                exe,
                exe_dev: number,
                exe_ino: number,
                uid,
                gid: uid,
                cgroup,
                cgroup_path,
                script: unit.clone(),
                unit,
                netns: cgroup,
                foreign: false,
                comm,
                invocation,
                mntns,
                container,
                known: mntns.map(|number| Known {
                    exe: [Footing::Own, Footing::Shared, Footing::Others][usize::from(number % 3 == 0)],
                    paths: Vec::new(),
                    sha256: ancestors.first().cloned(),
                    environment: ancestors.clone(),
                    traced: uid % 2 == 0,
                    script: ancestors.last().cloned(),
                    script_shared: uid % 3 == 0,
                    script_sha256: None,
                }),
                ancestors,
            }
        })
        .boxed()
}

fn container() -> BoxedStrategy<Container> {
    let pod = (text(), of(text()), of(text()), of(text())).prop_map(|(pod_uid, namespace, pod, account)| {
        Kubernetes { pod_uid, namespace, pod, service_account: account }
    });
    (text(), of(text()), of(text()), of(text()), of(pod.boxed()))
        .prop_map(|(id, name, image, claimed_by, kubernetes)| Container {
            runtime: "podman".into(),
            id,
            name,
            image,
            claimed_by,
            kubernetes,
        })
        .boxed()
}

fn any_decision() -> impl Strategy<Value = Record> {
    let rule = (text(), any::<u32>(), text()).prop_map(|(file, line, text)| Rule { file, line, text });
    let request = (of(text()), of(text()), of(text()), of(text()), of(any::<u16>()), any::<bool>());
    (id(), workload(), of(text()), address(), request, of(rule), text(), any::<bool>()).prop_map(
        |(id, workload, identity, dst, (api, host, method, path, port, flag), rule, reason, allow)| {
            Record::Decision(Arc::new(Decision {
                id,
                workload: workload.into(),
                identity: identity.clone(),
                dst,
                proxy: flag.then_some(dst),
                scheme: api.clone(),
                api,
                host,
                port,
                method,
                path,
                has_query: flag,
                verdict: if allow { Verdict::Allow } else { Verdict::Deny },
                observed: allow && flag,
                rule,
                reason,
                credential: identity,
                mistrust: None,
                capture: None,
                ech: false,
                refusal: None,
                basis: None,
                fingerprints: Vec::new(),
                generation: 1,
            }))
        },
    )
}

fn any_trace() -> impl Strategy<Value = Record> {
    let access = prop::sample::select(vec![Access::Attach, Access::Inspect, Access::Traceme]);
    (workload(), workload(), of(text()), access, text()).prop_map(
        |(workload, other, identity, access, reason)| {
            let target = Target {
                pid: other.pid,
                start_time_ns: other.start_time_ns,
                exe: other.cgroup_path.clone(),
                cgroup: other.cgroup,
                cgroup_path: other.cgroup_path,
                unit: other.unit,
            };
            Record::Trace(Arc::new(Trace { workload, identity, access, target, reason, generation: 1 }))
        },
    )
}

fn captures(id: Uuid, number: u64) -> Vec<Capture> {
    let capture = |(part, end): (Part, CaptureEnd)| Capture {
        part,
        file: proxy_journal::kept::record_name(7, id, part),
        end,
        bytes: (end != CaptureEnd::Killed).then_some(number),
        size: number / 3,
        sha256: "00ff".repeat(16),
    };
    let ends = [(Part::Request, CaptureEnd::Whole), (Part::Response, CaptureEnd::Killed)];
    ends.into_iter().take(usize::try_from(number % 3).unwrap()).map(capture).collect()
}

fn any_outcome() -> impl Strategy<Value = Record> {
    let blame =
        prop::sample::select(vec![Blame::Client, Blame::Upstream, Blame::Policy, Blame::Host, Blame::Us]);
    (
        id(),
        of(any::<u16>()),
        any::<u64>(),
        of(any::<u64>()),
        of(address()),
        of(text()),
        of(blame),
        any::<bool>(),
        prop::collection::vec((text(), text()), 0..3),
    )
        .prop_map(|(id, status, number, ttfb_us, upstream, error, blame, interrupted, removed)| {
            let removed =
                removed.into_iter().map(|(place, fingerprint)| RemovedCredential { place, fingerprint });
            Record::Outcome(Outcome {
                id,
                status,
                bytes_sent: number,
                bytes_received: number / 2,
                duration_us: number,
                ttfb_us,
                upstream,
                proxied: error.clone(),
                error,
                blame,
                interrupted,
                removed: removed.collect(),
                reflected: interrupted,
                repeated: interrupted,
                answered: interrupted,
                captures: captures(id, number),
            })
        })
}

/// Any record.
pub(crate) fn record() -> impl Strategy<Value = Record> {
    let start =
        (text(), text(), any::<u32>(), of(any::<u64>())).prop_map(|(version, boot_id, pid, generation)| {
            Record::Start(Start {
                version,
                boot_id,
                pid,
                policy_generation: generation,
                policy_digest: None,
                identity_keys: Default::default(),
                observes: pid % 2 == 1,
            })
        });
    let policy =
        (any::<u64>(), text(), prop::collection::vec(text(), 0..3)).prop_map(|(number, digest, errors)| {
            let result = if errors.is_empty() { PolicyResult::Loaded } else { PolicyResult::Refused };
            Record::Policy(PolicyLoad {
                generation: number,
                digest,
                identities: number,
                result,
                errors,
                identity_keys: [("bot".to_owned(), "0123456789abcdef".to_owned())].into(),
            })
        });
    prop_oneof![
        4 => any_decision(),
        4 => any_outcome(),
        1 => any_trace(),
        1 => start,
        1 => policy,
        1 => text().prop_map(|reason| stop(&reason)),
        1 => any::<u64>().prop_map(|n| Record::Recovered(Recovered { dropped_bytes: n, lost_bytes: n / 2, closed: n })),
        1 => detach(),
        1 => (of(text()), text(), any::<u64>(), text()).prop_map(|(identity, counter, n, effect)| {
            Record::Bound(Bound { identity, counter, count: n, total: n, effect })
        }),
        1 => secret(),
        1 => ca(),
    ]
}

fn ca() -> impl Strategy<Value = Record> {
    let (roots, former) = (prop::collection::vec(text(), 0..3), prop::collection::vec(any::<u32>(), 0..3));
    (any::<u32>(), text(), any::<u64>(), roots, former, of(any::<u32>())).prop_map(
        |(generation, reason, hosts, roots, former, uid)| {
            let by = uid.map(|uid| Person { uid, pid: uid, login_uid: None, sudo_uid: Some(uid) });
            Record::Ca(CaChange { generation, reason, hosts, roots, former, by })
        },
    )
}

fn secret() -> impl Strategy<Value = Record> {
    let change = prop::sample::select(vec![
        SecretStep::Set,
        SecretStep::Removed,
        SecretStep::Rotated,
        SecretStep::Ended,
        SecretStep::Discarded,
        SecretStep::Failed,
    ]);
    let tried = prop::collection::vec(text(), 0..3);
    (text(), change, of(any::<u64>()), tried, of(any::<u32>()), of(text())).prop_map(
        |(secret, change, version, tried, uid, error)| {
            let by = uid.map(|uid| Person { uid, pid: uid, login_uid: None, sudo_uid: Some(uid) });
            Record::Secret(SecretChange { secret, change, version, tried, by, error })
        },
    )
}

fn detach() -> impl Strategy<Value = Record> {
    let programs = prop::collection::vec(text(), 0..3);
    (any::<u32>(), prop::option::of(any::<u32>()), text(), programs, prop::option::of(text())).prop_map(
        |(uid, other, pin, programs, error)| {
            let by = Person { uid, pid: uid, login_uid: other, sudo_uid: other };
            Record::Detach(Detach { by, pin, programs, error })
        },
    )
}

/// So many records, at most.
pub(crate) fn records(most: usize) -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(record(), 0..=most)
}
