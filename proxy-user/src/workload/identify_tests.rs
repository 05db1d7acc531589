//! What decides is what explains: one answer, with the conditions that led to it.
use std::{fs, sync::Arc};

use proxy_policy::{PolicySet, SourceFile, compile};

use super::*;
use crate::workload::{
    container::{self, Container, Maker},
    files,
    runtime::Runtimes,
};

/// A file that a workload executes, and the workload.
struct Scene {
    dir: tempfile::TempDir,
    workload: Workload,
    matcher: Matcher,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("bot");
        fs::write(&exe, "a bot").unwrap();
        let file = files::named_by(&exe).unwrap();
        let workload = Workload {
            pid: 7,
            start_time_ns: 1,
            exe: Some(exe.display().to_string()),
            exe_dev: file.dev,
            exe_ino: file.ino,
            uid: 4242,
            gid: 4343,
            cgroup: Some("/system.slice/bot.service".into()),
            unit: Some("bot.service".into()),
            ..Workload::default()
        };
        Self { dir, workload, matcher: Matcher::default() }
    }

    fn set(&self, identities: &[(&str, &str)]) -> PolicySet {
        let root = self.dir.path().to_str().unwrap();
        let files: Vec<SourceFile> = identities
            .iter()
            .map(|(name, conditions)| {
                let text = format!("[identity]\n{}\n", conditions.replace("{root}", root));
                SourceFile::new(format!("policies/{name}.toml"), text)
            })
            .collect();
        compile(&files).set.unwrap()
    }
}

const ID: &str = "58a2abcda25edca2ef835ed25e8318891e1745da1bcbdc6b5d62ae023d589fbc";
const POD: &str = "3d0c9c5e-7a2b-4b1e-9f65-0a1b2c3d4e5f";

/// A container of containerd in a pod, with what its runtime and the kubelet wrote in the folder of the scene.
fn in_a_pod(scene: &Scene, maker: Maker) -> Workload {
    let at = |name: &str| scene.dir.path().join(name);
    let bundle = at("containerd/io.containerd.runtime.v2.task/k8s.io").join(ID);
    fs::create_dir_all(&bundle).unwrap();
    let annotations = format!(
        r#"{{"annotations":{{"io.kubernetes.cri.container-name":"app","io.kubernetes.cri.sandbox-name":"export-7",
        "io.kubernetes.cri.sandbox-namespace":"payroll","io.kubernetes.cri.sandbox-uid":"{POD}"}}}}"#
    );
    fs::write(bundle.join("config.json"), annotations).unwrap();
    let containers = crate::config::Containers {
        containerd: at("containerd"),
        kubelet: at("kubelet"),
        ..crate::config::Containers::default()
    };
    let path = format!("/kubepods/pod{POD}/{ID}");
    let named = container::named(&path).unwrap();
    let container = Container::new(&named, maker, Arc::new(Runtimes(containers)));
    Workload { container: Some(Arc::new(container)), ..scene.workload.clone() }
}

#[test]
fn a_container_is_who_its_runtime_says_and_a_pod_without_a_token_has_only_its_namespace() {
    let scene = Scene::new();
    let set = scene.set(&[
        ("app", "container = \"containerd:payroll/export-*/app\"\nkubernetes = \"payroll/*\""),
        ("by-account", "kubernetes = \"payroll/exporter\""),
        ("other", "container = \"containerd:payroll/export-*/db\"\nexe = \"{root}/bot\""),
        ("docker", "container = \"docker:*\""),
    ]);
    let workload = in_a_pod(&scene, Maker::Root);
    let (identified, judged) = scene.matcher.explain(&workload, &set);
    let found: Vec<_> = judged.iter().map(|judged| (judged.identity.name.as_str(), signs(judged))).collect();
    let expected = [
        ("app", vec!["+container", "+kubernetes"]),
        ("by-account", vec!["-kubernetes"]),
        ("docker", vec!["-container"]),
        ("other", vec!["+exe", "-container"]),
    ];
    assert_eq!(found, expected.map(|(name, signs)| (name, signs.into_iter().map(str::to_owned).collect())));
    assert!(matches!(identified, Identified::One(id) if set.identity(id).unwrap().name == "app"));
    assert_eq!(identified, scene.matcher.find(&workload, &set, 1).identified);
    let why = judged[1].checks[0].miss.as_ref().unwrap();
    assert!(
        why.why.ends_with("account that is not known (the pod has no token of a service account)"),
        "{why:?}"
    );
    assert!(workload.container.unwrap().is_unsettled(), "the token may come");
}

#[test]
fn a_container_that_a_user_could_have_made_up_is_no_container_of_a_policy() {
    let scene = Scene::new();
    let by_id = format!("container = \"containerd:{ID}\"");
    let set = scene.set(&[("id", by_id.as_str()), ("pod", "kubernetes = \"payroll/*\"")]);
    for maker in [Maker::User(4242), Maker::Anybody] {
        let (identified, judged) = scene.matcher.explain(&in_a_pod(&scene, maker), &set);
        assert!(matches!(identified, Identified::None(_)), "{maker:?}: {judged:?}");
        assert!(judged.iter().all(|judged| !judged.holds()), "{maker:?}: {judged:?}");
    }
    let workload = in_a_pod(&scene, Maker::Root);
    assert!(
        matches!(scene.matcher.find(&workload, &set, 1).identified, Identified::Ambiguous(_)),
        "both hold for root's"
    );
    let none = scene.matcher.explain(&scene.workload, &set).1;
    assert_eq!(none[0].checks[0].found, "no container");
}

/// `+` holds, `-` does not, with its name.
fn signs(judged: &Judged<'_>) -> Vec<String> {
    let sign = |check: &Check| if check.miss.is_none() { '+' } else { '-' };
    judged.checks.iter().map(|check| format!("{}{}", sign(check), check.condition.as_str())).collect()
}

#[test]
fn an_explanation_has_every_condition_and_the_answer_that_decides() {
    let scene = Scene::new();
    let set = scene.set(&[
        (
            "bot",
            "exe = \"{root}/bot\"\nuser = \"4242\"\nunit = \"bot.service\"\ncgroup = \"/system.slice/**\"",
        ),
        ("near", "exe = \"{root}/b*\"\nuser = \"1\"\ngroup = \"4343\"\nunit = \"other.service\""),
        ("far", "exe = \"/usr/bin/far\"\ngroup = \"1\""),
    ]);
    let (identified, judged) = scene.matcher.explain(&scene.workload, &set);
    assert_eq!(identified, scene.matcher.find(&scene.workload, &set, 1).identified);
    let found: Vec<_> = judged.iter().map(|judged| (judged.identity.name.as_str(), signs(judged))).collect();
    let expected = [
        ("bot", vec!["+exe", "+user", "+unit", "+cgroup"]),
        ("far", vec!["-exe", "-group"]),
        ("near", vec!["+exe", "-user", "+group", "-unit"]),
    ];
    assert_eq!(found, expected.map(|(name, signs)| (name, signs.into_iter().map(str::to_owned).collect())));
    assert!(matches!(identified, Identified::One(id) if set.identity(id).unwrap().name == "bot"));
}

#[test]
fn a_condition_tells_what_was_wanted_and_what_it_is() {
    let scene = Scene::new();
    let set = scene.set(&[("bot", "unit = \"other.service\"\nuser = \"root\"")]);
    let (identified, judged) = scene.matcher.explain(&scene.workload, &set);
    let told: Vec<_> =
        judged[0].checks.iter().map(|check| (check.wanted.as_str(), check.found.as_str())).collect();
    assert_eq!(told, [("root", "uid 4242"), ("other.service", "bot.service")]);
    // No executable is wanted, so there is nothing that it would nearly be.
    assert!(matches!(identified, Identified::None(why) if why.to_string().starts_with("no policy knows")));
}

#[test]
fn the_reason_is_the_first_miss_of_an_identity_whose_executable_it_is_also_when_all_is_explained() {
    let scene = Scene::new();
    let set = scene.set(&[("bot", "exe = \"{root}/bot\"\nuser = \"1\"\nunit = \"other.service\"")]);
    let (explained, _) = scene.matcher.explain(&scene.workload, &set);
    assert_eq!(explained, scene.matcher.find(&scene.workload, &set, 1).identified);
    let Identified::None(why) = explained else { panic!("{explained:?}") };
    assert!(why.to_string().ends_with("is not bot: it must run as user 1, and runs as uid 4242"), "{why}");
    assert_eq!(why.for_the_workload(), None, "what the policy wants is nothing for a workload to hear");
}

#[test]
fn several_identities_that_hold_are_named_and_none_is_chosen() {
    let scene = Scene::new();
    let set = scene.set(&[("one", "exe = \"{root}/bot\""), ("two", "user = \"4242\"")]);
    let (explained, judged) = scene.matcher.explain(&scene.workload, &set);
    assert_eq!(explained, Identified::Ambiguous(vec!["one".into(), "two".into()]));
    assert!(judged.iter().all(Judged::holds));
    assert_eq!(explained, scene.matcher.find(&scene.workload, &set, 1).identified);
}

#[test]
fn a_process_without_a_start_time_is_nobody_whatever_holds() {
    let mut scene = Scene::new();
    scene.workload.start_time_ns = 0;
    let set = scene.set(&[("bot", "user = \"4242\"")]);
    let (explained, judged) = scene.matcher.explain(&scene.workload, &set);
    assert!(judged[0].holds());
    assert!(
        matches!(&explained, Identified::None(why) if why.to_string().contains("when the process started"))
    );
    assert_eq!(explained, scene.matcher.find(&scene.workload, &set, 1).identified);
}

#[test]
fn an_executable_that_others_can_write_is_no_identity_and_only_that_is_told_to_the_workload() {
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::new();
    let set = scene.set(&[("bot", "exe = \"{root}/bot\"")]);
    let exe = scene.dir.path().join("bot");
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o777)).unwrap();
    let Identified::None(why) = scene.matcher.find(&scene.workload, &set, 1).identified else {
        panic!("it has one")
    };
    let told = format!(
        "{} can be written by everybody (mode 777); only root and the user that it runs as may be able to",
        exe.display()
    );
    assert_eq!(why.to_string(), format!("{} is not bot: {told}", scene.workload.label()));
    assert_eq!(why.for_the_workload(), Some(told.as_str()));

    // Who is known by what no file says is not asked for his file.
    let set = scene.set(&[("unit", "unit = \"bot.service\"")]);
    assert!(matches!(scene.matcher.find(&scene.workload, &set, 2).identified, Identified::One(_)));
}

#[test]
fn a_process_that_others_could_trace_is_nobody_by_any_condition() {
    let mut scene = Scene::new();
    let set = scene.set(&[("bot", "unit = \"bot.service\"")]);
    assert!(matches!(scene.matcher.find(&scene.workload, &set, 1).identified, Identified::One(_)));
    scene.workload.environment = ENVIRONMENT_TRACED;
    let Identified::None(why) = scene.matcher.find(&scene.workload, &set, 1).identified else {
        panic!("an identity")
    };
    assert!(why.for_the_workload().unwrap().contains("others than root traced it"), "{why}");
}

#[test]
fn an_answer_is_not_remembered_for_the_same_program_with_another_environment() {
    let mut scene = Scene::new();
    let set = scene.set(&[("bot", "exe = \"{root}/bot\"\nclean_environment = true")]);
    let found = scene.matcher.find(&scene.workload, &set, 1).identified;
    assert_eq!(scene.matcher.remembered(&scene.workload, 1), Some(found));
    // It executes itself anew: process, start and file stay.
    scene.workload.environment = 1;
    assert_eq!(scene.matcher.remembered(&scene.workload, 1), None);
}
