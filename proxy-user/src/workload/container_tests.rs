//! Paths as runtimes make them, and as others would like them to be read. Needs root, to give folders away.
use std::os::unix::fs::{PermissionsExt, chown};

use proptest::prelude::*;

use super::*;

const ID: &str = "58a2abcda25edca2ef835ed25e8318891e1745da1bcbdc6b5d62ae023d589fbc";
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const POD: &str = "3d0c9c5e-7a2b-4b1e-9f65-0a1b2c3d4e5f";

/// `ID` and `POD` in a path stand for these.
fn path(text: &str) -> String {
    text.replace("ID", ID).replace("POD_", &POD.replace('-', "_")).replace("POD", POD)
}

fn shown(text: &str) -> Option<String> {
    let path = path(text);
    let found = named(&path)?;
    assert_eq!(found.id, ID, "{text}");
    assert!(
        path.starts_with(found.folder) && found.folder.ends_with(&format!("{ID}.scope"))
            || found.folder.ends_with(ID),
        "{text}: {}",
        found.folder
    );
    Some(format!(
        "{}{}",
        found.runtime.as_str(),
        if found.pod.as_deref() == Some(POD) { " in pod" } else { "" }
    ))
}

#[test]
fn every_runtime_is_known_by_the_cgroup_that_it_makes() {
    for (path, runtime) in [
        ("/system.slice/docker-ID.scope", "docker"),
        ("/docker/ID", "docker"),
        ("/bots/docker/ID/init", "docker"),
        ("/machine.slice/libpod-ID.scope", "podman"),
        ("/machine.slice/libpod-ID.scope/container", "podman"),
        ("/machine.slice/machine-libpod_pod_x.slice/libpod-ID.scope/container", "podman"),
        ("/bots/libpod-ID", "podman"),
        ("/system.slice/web.service/libpod-payload-ID", "podman"),
        ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container", "podman"),
        ("/system.slice/nerdctl-ID.scope", "nerdctl"),
        ("/k8s.io/ID", "containerd"),
        ("/kubepods.slice/kubepods-podPOD_.slice/cri-containerd-ID.scope", "containerd in pod"),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
            "containerd in pod",
        ),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort-podPOD_.slice/cri-containerd-ID.scope",
            "containerd in pod",
        ),
        ("/kubepods/burstable/podPOD/ID", "containerd in pod"),
        ("/kubepods/podPOD/ID", "containerd in pod"),
        ("/kubepods.slice/kubepods-podPOD_.slice/crio-ID.scope", "crio in pod"),
        ("/kubepods/besteffort/podPOD/crio-ID", "crio in pod"),
        ("/kubepods.slice/kubepods-podPOD_.slice/docker-ID.scope", "docker in pod"),
    ] {
        assert_eq!(shown(path).as_deref(), Some(runtime), "{path}");
    }
}

#[test]
fn what_only_looks_like_a_container_is_none() {
    for text in [
        "/",
        "",
        "/system.slice/docker.service",
        "/system.slice/docker-ID.service",
        "/system.slice/docker-IDa.scope",
        "/system.slice/docker-58a2.scope",
        "/machine.slice/libpod-conmon-ID.scope",
        "/system.slice/crio-conmon-ID.scope",
        "/ID",
        "/bots/ID",
        "/podPOD/ID",
        "/kubepodsx/podPOD/ID",
        "/kubepods/pod../ID",
        "/kubepods.slice/kubepods-podPOD_.slice",
    ] {
        assert_eq!(named(&path(text)), None, "{text}");
    }
    assert_eq!(named(&format!("/docker/{}", ID.to_uppercase())), None);
    // The runtime is known; what stands for a pod is no pod.
    for text in ["/x-podPOD_.slice/crio-ID.scope", "/kubepods.slice/kubepods-pod__.slice/crio-ID.scope"] {
        assert_eq!(named(&path(text)).unwrap().pod, None, "{text}");
    }
}

proptest! {
    #[test]
    fn what_a_container_makes_below_itself_changes_nothing(
        inside in proptest::collection::vec("[a-z0-9._-]{1,12}|(docker|crio|libpod)-0{63}1(\\.scope)?|0{63}1|docker", 0..5),
    ) {
        for outer in ["/system.slice/docker-ID.scope", "/docker/ID", "/kubepods/podPOD/ID"] {
            let outer = path(outer);
            let below = inside.iter().fold(outer.clone(), |path, part| format!("{path}/{part}"));
            prop_assert_eq!(named(&below), named(&outer));
        }
        // Where nobody is known the first name counts, whatever it is; its folder is a part of the path.
        let free = inside.iter().fold(String::new(), |path, part| format!("{path}/{part}"));
        if let Some(found) = named(&free) {
            prop_assert_eq!(found.id, OTHER);
            let rest = free.strip_prefix(found.folder).unwrap();
            prop_assert!(rest.is_empty() || rest.starts_with('/'));
            prop_assert!(found.folder.contains(OTHER));
        }
    }

    #[test]
    fn any_text_is_read_without_harm(text in "(/|[a-z0-9-]|pod|é|\\.slice|\\.scope|kubepods){0,40}") {
        let _ = named(&text);
    }
}

#[test]
fn a_name_is_roots_only_where_nobody_else_could_make_it() {
    let mount = tempfile::tempdir().unwrap();
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let service = mount.path().join("user.slice/user@1000.service");
    fs::create_dir_all(service.join("app.slice/docker-x.scope")).unwrap();
    let of = |folder: &str| maker(mount.path(), folder).unwrap();
    let deep = "/user.slice/user@1000.service/app.slice/docker-x.scope";
    assert_eq!(of(deep), Maker::Root);
    // systemd gives a delegated cgroup to its user, who makes what he wants in it.
    chown(&service, Some(1000), Some(1000)).unwrap();
    assert_eq!(of("/user.slice/user@1000.service"), Maker::Root, "its own name is still root's choice");
    assert_eq!(of("/user.slice/user@1000.service/docker-x.scope"), Maker::User(1000));
    assert_eq!(of(deep), Maker::User(1000), "also below what root made in there");
    chown(service.join("app.slice"), Some(1001), None).unwrap();
    assert_eq!(of(deep), Maker::Anybody);
    chown(service.join("app.slice"), Some(0), None).unwrap();
    chown(&service, Some(0), Some(0)).unwrap();
    for mode in [0o775, 0o757] {
        fs::set_permissions(&service, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(of(deep), Maker::Anybody, "{mode:o}");
    }
    assert!(maker(mount.path(), "/gone/docker-x.scope").is_err());
}

#[test]
fn an_answer_never_takes_the_place_of_a_newer_or_a_whole_one() {
    let path = path("/docker/ID");
    let container = Container::new(&named(&path).unwrap(), Maker::Root, Arc::default());
    let (first, second, third) =
        (Instant::now(), Instant::now() + Duration::from_secs(1), Instant::now() + Duration::from_secs(2));
    let partly = |name: &str| Told { name: Some(name.to_owned()), ..Told::default() };
    let name = || container.told().name.clone();
    container.answered(second, partly("second"));
    container.answered(first, partly("first"));
    assert_eq!(name().as_deref(), Some("second"), "who was asked before answered later");
    container.answered(first, Told { complete: true, ..partly("whole") });
    container.answered(third, partly("third"));
    assert_eq!(name().as_deref(), Some("whole"), "nothing more can become known");
    assert!(container.is_settled());
}
