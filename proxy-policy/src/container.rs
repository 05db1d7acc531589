//! Containers and pods that an identity asks for: `podman:web-*`, `payroll/exporter`.

use crate::conditions::Pattern;
use crate::diagnostic::{Problem, quote};
use crate::suggest;

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerRuntime {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// containerd, for Kubernetes.
    Containerd,
    /// CRI-O.
    Crio,
    /// containerd, by nerdctl.
    Nerdctl,
}

impl ContainerRuntime {
    /// All.
    pub const ALL: [Self; 5] = [Self::Docker, Self::Podman, Self::Containerd, Self::Crio, Self::Nerdctl];

    /// As in policy files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Nerdctl => "nerdctl",
        }
    }
}

/// Whether a text is the full id of a container: 64 hexadecimal digits in lower case.
#[must_use]
pub fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A container: its runtime, and its id or a pattern for its name. The name of a container of a pod is
/// `namespace/pod/container`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPattern {
    text: String,
    runtime: ContainerRuntime,
    which: Which,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    /// `*`
    Any,
    /// 64 hexadecimal digits.
    Id(String),
    /// Anything else.
    Name(Pattern),
}

impl ContainerPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let example = "write \"podman:web-*\", \"docker:\" and 64 hexadecimal digits, or \
                       \"containerd:namespace/pod/container\"";
        let Some((runtime, which)) = text.split_once(':') else {
            return Err(Problem::new(format!("the container {} names no runtime", quote(text)), example));
        };
        let Some(runtime) = ContainerRuntime::ALL.into_iter().find(|known| known.as_str() == runtime) else {
            let names = ContainerRuntime::ALL.map(ContainerRuntime::as_str);
            let help = suggest::nearest(runtime, names).map_or_else(
                || format!("write one of {}", names.join(", ")),
                |meant| format!("did you mean \"{meant}:{which}\"?"),
            );
            return Err(Problem::new(format!("{} is no runtime of containers", quote(runtime)), help));
        };
        let which = match which {
            "*" => Which::Any,
            id if is_container_id(id) => Which::Id(id.to_owned()),
            // As an id it would never match, and who writes one means an id.
            id if id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                let help =
                    "write all 64 digits in lower case, as `podman ps --no-trunc` shows them, or a name";
                return Err(Problem::new(format!("{} is a part of an id", quote(id)), help));
            }
            name => Which::Name(Self::name(name).map_err(|what| {
                Problem::new(format!("the name of the container {} {what}", quote(text)), example)
            })?),
        };
        Ok(Self { text: text.to_owned(), runtime, which })
    }

    fn name(text: &str) -> Result<Pattern, &'static str> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err("is empty, or a part of it is");
        }
        if !matches!(parts.len(), 1 | 3) {
            return Err("is neither a name nor namespace/pod/container");
        }
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '*' | '/');
        if !text.chars().all(known) {
            return Err("has characters that no container's name has");
        }
        if text.contains("**") {
            return Err("has a **, which is not known here: * stays between slashes");
        }
        Pattern::parse(text).map_err(|_| "is no pattern")
    }

    /// Whether it matches. A container whose name is not known matches `*` and its id.
    #[must_use]
    pub fn matches(&self, runtime: ContainerRuntime, id: &str, name: Option<&str>) -> bool {
        self.runtime == runtime
            && match &self.which {
                Which::Any => true,
                Which::Id(wanted) => wanted == id,
                Which::Name(pattern) => name.is_some_and(|name| pattern.matches(name)),
            }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.runtime == other.runtime
            && match (&self.which, &other.which) {
                (Which::Any, _) => true,
                (Which::Id(mine), Which::Id(theirs)) => mine == theirs,
                (Which::Name(mine), Which::Name(theirs)) => mine.covers(theirs),
                _ => false,
            }
    }
}

/// A service account of Kubernetes: `namespace/name`, with `*` in either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesPattern(Pattern);

impl KubernetesPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |what: &str| {
            let help = "write namespace/serviceaccount, such as \"payroll/exporter\" or \"payroll/*\"";
            Problem::new(format!("the service account {} {what}", quote(text)), help)
        };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) {
            return Err(bad("is not a namespace and a name"));
        }
        let known =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '*' | '/');
        if !text.chars().all(known) || text.contains("**") {
            return Err(bad("has characters that no name of Kubernetes has"));
        }
        Pattern::parse(text).map(Self).map_err(|_| bad("is no pattern"))
    }

    /// Whether it matches. An account that is not known is matched by `namespace/*` only.
    #[must_use]
    pub fn matches(&self, namespace: &str, account: Option<&str>) -> bool {
        let any = self.as_str().ends_with("/*");
        match account {
            Some(account) => self.0.matches(&format!("{namespace}/{account}")),
            None => any && self.0.matches(&format!("{namespace}/-")),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.0.covers(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn container(text: &str) -> ContainerPattern {
        ContainerPattern::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_matched_within_its_runtime_and_between_slashes() {
        let web = container("podman:web-*");
        assert!(web.matches(ContainerRuntime::Podman, ID, Some("web-1")));
        assert!(!web.matches(ContainerRuntime::Docker, ID, Some("web-1")));
        assert!(!web.matches(ContainerRuntime::Podman, ID, Some("db")));
        assert!(!web.matches(ContainerRuntime::Podman, ID, None), "not known yet");
        assert!(!web.matches(ContainerRuntime::Podman, ID, Some("web-1/x/y")));
        let app = container("containerd:payroll/export-*/app");
        assert!(app.matches(ContainerRuntime::Containerd, ID, Some("payroll/export-7/app")));
        assert!(!app.matches(ContainerRuntime::Containerd, ID, Some("other/export-7/app")));
        assert!(!container("containerd:app").matches(ContainerRuntime::Containerd, ID, Some("ns/pod/app")));
    }

    #[test]
    fn an_id_is_no_name_and_a_name_is_no_id() {
        let one = container(&format!("docker:{ID}"));
        assert!(one.matches(ContainerRuntime::Docker, ID, None));
        assert!(!one.matches(ContainerRuntime::Docker, &ID.replace('0', "1"), Some(ID)), "a name like an id");
        assert!(container("docker:*").matches(ContainerRuntime::Docker, ID, None));
        assert!(ContainerPattern::parse(&format!("docker:{}", &ID[..12])).is_err(), "a short id");
        assert!(ContainerPattern::parse(&format!("docker:{}", ID.to_uppercase())).is_err());
    }

    #[test]
    fn what_is_no_container_is_refused_with_what_to_write() {
        for text in [
            "web",
            "podman:",
            "lxc:web",
            "podman:a b",
            "podman:a/b",
            "podman:a//b",
            "podman:**",
            "podman:wéb",
            "",
        ] {
            assert!(ContainerPattern::parse(text).is_err(), "{text}");
        }
        assert_eq!(ContainerPattern::parse("podmann:web").unwrap_err().help, "did you mean \"podman:web\"?");
    }

    #[test]
    fn a_service_account_is_known_or_any() {
        let one = KubernetesPattern::parse("payroll/exporter").unwrap();
        assert!(one.matches("payroll", Some("exporter")));
        assert!(!one.matches("payroll", None) && !one.matches("payroll", Some("other")));
        assert!(!one.matches("other", Some("exporter")));
        let any = KubernetesPattern::parse("payroll/*").unwrap();
        assert!(any.matches("payroll", None) && any.matches("payroll", Some("x")) && !any.matches("x", None));
        assert!(!KubernetesPattern::parse("payroll/a*").unwrap().matches("payroll", None));
        for text in ["payroll", "payroll/", "/x", "a/b/c", "system:serviceaccount:a:b", "A/b", "a/**"] {
            assert!(KubernetesPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn any_covers_a_name_and_an_id_and_these_do_not_cover_each_other() {
        let id = format!("podman:{ID}");
        let covers = |a: &str, b: &str| container(a).covers(&container(b));
        assert!(
            covers("podman:*", "podman:web")
                && covers("podman:*", &id)
                && covers("podman:w*", "podman:web-1")
        );
        assert!(!covers("podman:web", "podman:*") && !covers(&id, "podman:web") && !covers("podman:w*", &id));
        assert!(!covers("docker:*", "podman:web"));
        let account = |text: &str| KubernetesPattern::parse(text).unwrap();
        assert!(account("a/*").covers(&account("a/b")) && !account("a/b").covers(&account("a/*")));
    }
}
