//! Files as runtimes write them, in a folder.
use std::path::PathBuf;

use super::*;

const ID: &str = "58a2abcda25edca2ef835ed25e8318891e1745da1bcbdc6b5d62ae023d589fbc";
const UID: &str = "3d0c9c5e-7a2b-4b1e-9f65-0a1b2c3d4e5f";

struct Host {
    root: tempfile::TempDir,
    runtimes: Runtimes,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let runtimes = Runtimes(Containers {
            podman: at("storage"),
            podman_run: at("run-storage"),
            docker: at("docker"),
            containerd: at("containerd"),
            kubelet: at("kubelet"),
        });
        Self { root, runtimes }
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.root.path().join(path.replace("<id>", ID));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text.replace("<id>", ID)).unwrap();
        path
    }

    fn ask(&self, runtime: ContainerRuntime, pod: Option<&str>) -> Told {
        self.runtimes.ask(runtime, ID, pod)
    }
}

const CONTAINERD: &str = "containerd/io.containerd.runtime.v2.task/k8s.io/<id>/config.json";

fn cri(namespace: &str, uid: &str) -> String {
    format!(
        r#"{{"ociVersion":"1.1.0","annotations":{{"io.kubernetes.cri.container-name":"app",
        "io.kubernetes.cri.image-name":"registry.test/app:1","io.kubernetes.cri.sandbox-name":"export-7",
        "io.kubernetes.cri.sandbox-namespace":"{namespace}","io.kubernetes.cri.sandbox-uid":"{uid}"}}}}"#
    )
}

#[test]
fn a_container_of_docker_has_its_name_and_image() {
    let host = Host::new();
    assert!(!host.ask(ContainerRuntime::Docker, None).complete);
    let path = "docker/containers/<id>/config.v2.json";
    host.write(
        path,
        r#"{"ID":"<id>","Name":"/web-1","Image":"sha256:x","Config":{"Image":"nginx:1","Labels":null}}"#,
    );
    let told = host.ask(ContainerRuntime::Docker, None);
    assert_eq!((told.name.as_deref(), told.image.as_deref()), (Some("web-1"), Some("nginx:1")));
    assert!(told.complete);
    host.write(path, r#"{"ID":"other","Name":"/web-1","Config":{"Image":"nginx:1"}}"#);
    assert_eq!(host.ask(ContainerRuntime::Docker, None).name, None, "the file of another container");
}

#[test]
fn podman_lists_lasting_and_passing_containers() {
    let host = Host::new();
    let other = r#"{"id":"x","names":["other"],"metadata":"{}"}"#;
    host.write("storage/overlay-containers/containers.json", &format!("[{other}]"));
    assert_eq!(host.ask(ContainerRuntime::Podman, None).name, None);
    let mine = r#"{"id":"<id>","names":["web-1"],"metadata":"{\"image-name\":\"localhost/box:1\"}"}"#;
    host.write("run-storage/vfs-containers/volatile-containers.json", &format!("[{other},{mine}]"));
    let told = host.ask(ContainerRuntime::Podman, None);
    assert_eq!((told.name.as_deref(), told.image.as_deref()), (Some("web-1"), Some("localhost/box:1")));
}

#[test]
fn a_file_that_another_could_have_written_says_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::new();
    let path = host.write(CONTAINERD, &cri("payroll", UID));
    assert_eq!(host.ask(ContainerRuntime::Containerd, Some(UID)).namespace.as_deref(), Some("payroll"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let told = host.ask(ContainerRuntime::Containerd, Some(UID));
    assert_eq!((told.name, told.namespace), (None, None));
    assert!(told.problem.unwrap().contains("can be written by others than root"));
}

#[test]
fn a_container_of_a_pod_is_named_by_namespace_pod_and_container() {
    let host = Host::new();
    host.write(CONTAINERD, &cri("payroll", UID));
    let told = host.ask(ContainerRuntime::Containerd, Some(UID));
    assert_eq!(told.name.as_deref(), Some("payroll/export-7/app"));
    assert_eq!((told.pod.as_deref(), told.account.as_deref()), (Some("export-7"), None));
    assert!(!told.complete && told.problem.unwrap().contains("no token"));
    host.write(CONTAINERD, &cri("payroll", "another"));
    assert_eq!(host.ask(ContainerRuntime::Containerd, Some(UID)).name, None, "of another pod");
}

#[test]
fn crio_tells_what_the_kubelet_labelled() {
    let host = Host::new();
    let text = r#"{"annotations":{"io.kubernetes.container.name":"app","io.kubernetes.pod.name":"export-7",
        "io.kubernetes.pod.namespace":"payroll","io.kubernetes.pod.uid":"UID",
        "io.kubernetes.cri-o.ImageName":"registry.test/app:1"}}"#;
    host.write("run-storage/overlay-containers/<id>/userdata/config.json", &text.replace("UID", UID));
    let told = host.ask(ContainerRuntime::Crio, Some(UID));
    assert_eq!(told.name.as_deref(), Some("payroll/export-7/app"));
    assert_eq!(told.image.as_deref(), Some("registry.test/app:1"));
    assert_eq!(host.ask(ContainerRuntime::Crio, None).name, None, "what is in no pod has no pod's labels");
}

#[test]
fn nerdctl_is_found_in_whatever_namespace_it_works() {
    let host = Host::new();
    let text = r#"{"annotations":{"nerdctl/name":"web","nerdctl/image-name":"nginx:1"}}"#;
    host.write("containerd/io.containerd.runtime.v2.task/default/x/config.json", text);
    assert_eq!(host.ask(ContainerRuntime::Nerdctl, None).name, None);
    host.write("containerd/io.containerd.runtime.v2.task/dev/<id>/config.json", text);
    assert_eq!(host.ask(ContainerRuntime::Nerdctl, None).name.as_deref(), Some("web"));
}

#[test]
fn what_is_no_name_is_not_taken_for_one_and_a_huge_file_is_not_read() {
    let host = Host::new();
    let path = "docker/containers/<id>/config.v2.json";
    for name in ["/a b", "/a\\nb", "/", "/a/b/c"] {
        host.write(path, &format!(r#"{{"ID":"<id>","Name":"{name}","Config":{{"Image":"x"}}}}"#));
        assert_eq!(host.ask(ContainerRuntime::Docker, None).name, None, "{name}");
    }
    let huge = format!(r#"{{"ID":"<id>","Name":"/web","Config":{{"Image":"{}"}}}}"#, "x".repeat(3 << 20));
    host.write(path, &huge);
    assert!(host.ask(ContainerRuntime::Docker, None).problem.unwrap().contains("is larger than"));
}
