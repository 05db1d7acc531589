//! What runtimes say of their containers: name, image, pod; from the files that they keep as root.
//!
//! Best effort: a runtime that keeps its files elsewhere is told in `[containers]` of `vouchsafe.toml`. What a file does not
//! say is not known, and nothing is believed of a file that others than root could have written.
mod pod;
mod read;

use std::{collections::HashMap, fs, path::Path};

use proxy_policy::ContainerRuntime;
use serde::Deserialize;

use crate::config::Containers;
use read::Unread;

/// Longest file of one container that is read.
const MOST_OF_ONE: u64 = 2 << 20;

/// Longest list of all containers that is read.
const MOST_OF_ALL: u64 = 16 << 20;

/// The drivers of Podman's storage: each has a folder of its own.
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];

/// How many of containerd's namespaces are looked through.
const MOST_NAMESPACES: usize = 64;

/// Where runtimes keep what they know.
#[derive(Debug, Default)]
pub struct Runtimes(pub Containers);

/// What is known of a container beyond its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its name; of a container in a pod `namespace/pod/container`.
    pub name: Option<String>,
    /// The image that it was made from, as it was asked for.
    pub image: Option<String>,
    /// The namespace of its pod.
    pub namespace: Option<String>,
    /// The name of its pod.
    pub pod: Option<String>,
    /// The service account of its pod.
    pub account: Option<String>,
    /// Nothing more can become known.
    pub complete: bool,
    /// Why something is not known, in words.
    pub problem: Option<String>,
}

/// A bundle of the Open Container Initiative, as far as it says who it is.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Bundle {
    fn get(&self, key: &str) -> Option<String> {
        self.annotations.get(key).and_then(|value| word(value))
    }
}

/// `containers.json` of Podman's storage.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    metadata: String,
}

/// What Podman keeps with it, as JSON in a text.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct StoredMetadata {
    image_name: String,
}

/// `config.v2.json` of Docker.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerContainer {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    config: DockerConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    image: String,
    labels: Option<HashMap<String, String>>,
}

impl Runtimes {
    /// Looks a container up. Blocks on the disk.
    pub(super) fn ask(&self, runtime: ContainerRuntime, id: &str, pod: Option<&str>) -> Told {
        let found = match runtime {
            ContainerRuntime::Podman => self.podman(id),
            ContainerRuntime::Docker => self.docker(id, pod),
            ContainerRuntime::Containerd => self.containerd(id, pod),
            ContainerRuntime::Crio => self.crio(id, pod),
            ContainerRuntime::Nerdctl => self.nerdctl(id),
        };
        let mut told = match found {
            Ok(told) => told,
            Err(why) => Told { problem: Some(why.to_string()), ..Told::default() },
        };
        if let (Some(uid), Some(namespace)) = (pod, &told.namespace) {
            match pod::account(&self.0.kubelet, uid, namespace) {
                Ok(account) => told.account = word(&account),
                Err(why) => told.problem = Some(why),
            }
        }
        told.complete = told.name.is_some() && (pod.is_none() || told.account.is_some());
        told
    }

    fn podman(&self, id: &str) -> Result<Told, Unread> {
        // What only lives until the next boot is listed apart.
        let lists = ["containers.json", "volatile-containers.json"];
        let mut missing = Unread::Missing(self.0.podman.clone());
        for (root, driver) in [&self.0.podman, &self.0.podman_run]
            .into_iter()
            .flat_map(|root| DRIVERS.map(|driver| (root, driver)))
        {
            for list in lists {
                let path = root.join(format!("{driver}-containers")).join(list);
                let stored: Vec<Stored> = match read::json(&path, MOST_OF_ALL) {
                    Ok(stored) => stored,
                    Err(Unread::Missing(_)) => continue,
                    Err(why) => {
                        missing = why;
                        continue;
                    }
                };
                if let Some(found) = stored.into_iter().find(|stored| stored.id == id) {
                    let metadata: StoredMetadata = serde_json::from_str(&found.metadata).unwrap_or_default();
                    let name = found.names.first().and_then(|name| word(name));
                    return Ok(Told { name, image: line(&metadata.image_name), ..Told::default() });
                }
            }
        }
        Err(missing)
    }

    fn docker(&self, id: &str, pod: Option<&str>) -> Result<Told, Unread> {
        let path = self.0.docker.join("containers").join(id).join("config.v2.json");
        let found: DockerContainer = read::json(&path, MOST_OF_ONE)?;
        if found.id != id {
            return Err(Unread::Format(path));
        }
        let image = line(&found.config.image);
        let Some(uid) = pod else {
            let name = word(found.name.strip_prefix('/').unwrap_or(&found.name));
            return Ok(Told { name, image, ..Told::default() });
        };
        let labels = Bundle { annotations: found.config.labels.unwrap_or_default() };
        kubelets(&labels, uid, image).ok_or(Unread::Format(path))
    }

    fn containerd(&self, id: &str, pod: Option<&str>) -> Result<Told, Unread> {
        let path = self.tasks().join("k8s.io").join(id).join("config.json");
        let bundle: Bundle = read::json(&path, MOST_OF_ONE)?;
        // These are set last by containerd, after what a pod's annotations may pass through.
        let get = |key: &str| bundle.get(&format!("io.kubernetes.cri.{key}"));
        let image = bundle.annotations.get("io.kubernetes.cri.image-name").and_then(|image| line(image));
        // Older ones do not tell the uid; then the id of the container has to do, which is as unique.
        if get("sandbox-uid").as_deref().is_some_and(|uid| Some(uid) != pod) {
            return Err(Unread::Format(path));
        }
        Ok(in_pod(get("sandbox-namespace"), get("sandbox-name"), get("container-name"), image))
    }

    fn crio(&self, id: &str, pod: Option<&str>) -> Result<Told, Unread> {
        let mut last = Unread::Missing(self.0.podman_run.clone());
        for (root, driver) in [&self.0.podman_run, &self.0.podman]
            .into_iter()
            .flat_map(|root| DRIVERS.map(|driver| (root, driver)))
        {
            let path = root.join(format!("{driver}-containers")).join(id).join("userdata/config.json");
            match read::json::<Bundle>(&path, MOST_OF_ONE) {
                Ok(bundle) => {
                    let image =
                        bundle.annotations.get("io.kubernetes.cri-o.ImageName").and_then(|name| line(name));
                    // CRI-O writes the kubelet's labels last, after what a pod brings.
                    return kubelets(&bundle, pod.unwrap_or_default(), image).ok_or(Unread::Format(path));
                }
                Err(Unread::Missing(_)) => {}
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    fn nerdctl(&self, id: &str) -> Result<Told, Unread> {
        let tasks = self.tasks();
        let spaces = fs::read_dir(&tasks).map_err(|_| Unread::Missing(tasks.clone()))?;
        for space in spaces.flatten().take(MOST_NAMESPACES) {
            let path = space.path().join(id).join("config.json");
            match read::json::<Bundle>(&path, MOST_OF_ONE) {
                Ok(bundle) => {
                    let image = bundle.annotations.get("nerdctl/image-name").and_then(|image| line(image));
                    return Ok(Told { name: bundle.get("nerdctl/name"), image, ..Told::default() });
                }
                Err(Unread::Missing(_)) => {}
                Err(why) => return Err(why),
            }
        }
        Err(Unread::Missing(tasks))
    }

    fn tasks(&self) -> std::path::PathBuf {
        self.0.containerd.join(Path::new("io.containerd.runtime.v2.task"))
    }
}

/// What the kubelet's labels say, when they are of this pod.
fn kubelets(labels: &Bundle, uid: &str, image: Option<String>) -> Option<Told> {
    let get = |key: &str| labels.get(&format!("io.kubernetes.{key}"));
    (get("pod.uid").as_deref() == Some(uid))
        .then(|| in_pod(get("pod.namespace"), get("pod.name"), get("container.name"), image))
}

fn in_pod(
    namespace: Option<String>,
    pod: Option<String>,
    container: Option<String>,
    image: Option<String>,
) -> Told {
    let name = match (&namespace, &pod, &container) {
        (Some(namespace), Some(pod), Some(container)) => Some(format!("{namespace}/{pod}/{container}")),
        _ => None,
    };
    Told { name, image, namespace, pod, ..Told::default() }
}

/// A name as runtimes and Kubernetes give them; anything else is none.
fn word(text: &str) -> Option<String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (!text.is_empty() && text.len() <= 253 && text.bytes().all(known)).then(|| text.to_owned())
}

/// A text on one line, for people.
fn line(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= 512 && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
