//! What a person reads of a process.
use super::*;
use crate::control::status::Treatment;

fn condition(condition: &str, wanted: &str, found: &str, why: Option<&str>) -> ConditionReport {
    ConditionReport {
        condition: condition.into(),
        holds: why.is_none(),
        wanted: wanted.into(),
        found: found.into(),
        why: why.map(str::to_owned),
    }
}

fn report() -> WhoReport {
    let process = ProcessReport {
        pid: 4711,
        started: "2026-01-02T03:04:05Z".into(),
        start_time_ns: 1,
        exe: Some("/opt/bots/invoice-bot".into()),
        exe_device: "254:1".into(),
        exe_inode: 99,
        uid: 998,
        user: Some("billing".into()),
        gid: 4343,
        group: None,
        cgroup: Some("/system.slice/invoice.service".into()),
        unit: Some("invoice.service".into()),
        boot: "b".into(),
        invocation: Some("0123456789abcdef0123456789abcdef".into()),
        container: None,
        container_problem: None,
        ancestors: vec!["/usr/bin/sh".into(), "/usr/sbin/cron".into()],
        netns: 11,
        netns_is_the_daemons: true,
        mntns: 12,
        governed: true,
        not_governed: None,
        identity: Some("invoice-bot".into()),
        ambiguous: Vec::new(),
        reason: None,
        identities: vec![
            IdentityReport {
                name: "invoice-bot".into(),
                holds: true,
                conditions: vec![
                    condition("exe", "/opt/bots/invoice-bot", "/opt/bots/invoice-bot", None),
                    condition("user", "billing", "uid 998", None),
                ],
            },
            IdentityReport {
                name: "other".into(),
                holds: false,
                conditions: vec![condition("user", "root", "uid 998", Some("it must run as user root"))],
            },
        ],
    };
    WhoReport {
        generation: 3,
        unidentified: Treatment::Deny,
        unit: None,
        processes: vec![process],
        omitted: 0,
        not_shown: Vec::new(),
    }
}

#[test]
fn the_page_shows_the_workload_its_identity_and_each_condition() {
    let expected = "\
process     4711, started 2026-01-02T03:04:05Z
executable  /opt/bots/invoice-bot (device 254:1, inode 99)
user        billing (uid 998), group gid 4343 (without a name)
cgroup      /system.slice/invoice.service
unit        invoice.service
invocation  0123456789abcdef0123456789abcdef
started by  /usr/bin/sh < /usr/sbin/cron
namespaces  network 11 (the daemon's), mount 12
identity    invoice-bot (policy generation 3)

  invoice-bot holds
    yes  exe     /opt/bots/invoice-bot
    yes  user    billing: is uid 998

  other does not hold
    no   user    root: is uid 998
                 it must run as user root
";
    assert_eq!(page(&report()), expected);
}

#[test]
fn a_container_is_shown_with_its_pod_and_with_what_is_not_known_of_it() {
    let mut report = report();
    let process = &mut report.processes[0];
    process.container = Some(proxy_journal::Container {
        runtime: "containerd".into(),
        id: "58a2".into(),
        name: Some("payroll/export-7/app".into()),
        image: Some("registry.test/app:1".into()),
        claimed_by: None,
        kubernetes: Some(proxy_journal::Kubernetes {
            pod_uid: "3d0c".into(),
            namespace: Some("payroll".into()),
            pod: Some("export-7".into()),
            service_account: None,
        }),
    });
    process.container_problem = Some("the pod has no token of a service account".into());
    let text = page(&report);
    let expected = "\
container   containerd payroll/export-7/app (58a2)
image       registry.test/app:1
pod         payroll/export-7 (3d0c), service account ?
            the pod has no token of a service account
";
    assert!(text.contains(expected), "{text}");
    let container = report.processes[0].container.as_mut().unwrap();
    (container.name, container.claimed_by) = (None, Some("uid 1000".into()));
    let text = page(&report);
    assert!(text.contains("containerd a name that is not known (58a2)\n"), "{text}");
    assert!(text.contains("could be made by uid 1000, so no `container` matches\n"), "{text}");
}

#[test]
fn none_several_and_not_governed_are_told_apart() {
    let mut report = report();
    let process = &mut report.processes[0];
    process.identity = None;
    process.reason = Some("no policy knows it".into());
    process.not_governed = Some("elsewhere".into());
    process.netns = 0;
    let text = page(&report);
    for part in [
        "network unknown, mount 12\n",
        "governed    no: elsewhere\n",
        "generation 3): no policy knows it\n",
        "no identity: deny\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let process = &mut report.processes[0];
    (process.reason, process.ambiguous) = (None, vec!["one".into(), "two".into()]);
    let text = page(&report);
    assert!(text.contains("none (policy generation 3): more than one: one, two\n"), "{text}");
}

#[test]
fn what_is_left_out_of_a_unit_is_said() {
    let mut report = report();
    (report.unit, report.omitted) = (Some("a.service".into()), 7);
    report.not_shown = vec!["process 9 has ended".into()];
    let text = page(&report);
    assert!(text.contains("7 more processes of a.service are not shown, only the first 1;"), "{text}");
    assert!(text.contains("not shown  process 9 has ended\n"), "{text}");
}

#[test]
fn names_of_files_cannot_move_the_terminal() {
    let mut report = report();
    report.processes[0].exe = Some("/tmp/\x1b[2Jx".into());
    assert!(page(&report).contains(r"/tmp/\u{1b}[2Jx"));
}

#[test]
fn without_a_daemon_it_says_so_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let code = run(&WhoArgs { target: "1".into(), json: false }, &socket).unwrap();
    assert_eq!(code, ExitCode::from(3));
    assert!(not_running(&socket).contains("systemctl start vouchsafe"));
}
