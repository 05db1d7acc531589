//! The service account of a pod, from the tokens that the kubelet puts into its volumes.
//!
//! Only the claims of a token are read, and nothing else of it is kept. Its signature is not checked, since the cluster's
//! keys are not here; what makes it believed is where it is: in a folder that only root comes to, which is named by the uid
//! of the pod. But whoever writes a pod may project a text of his own to the same place. So the claims must be of this pod,
//! of the namespace that the runtime says, and all of them of one account: then he can claim no more than what he may
//! choose anyway, an account of his own namespace.
use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::read::{self, Owner};

/// Longest token that is read.
const MOST_BYTES: u64 = 64 << 10;

/// How many volumes of a pod are looked at; a pod with more has no account.
const MOST_VOLUMES: usize = 64;

#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Debug, Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Named,
    serviceaccount: Named,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    uid: String,
}

/// The account of the pod with this uid in this namespace.
///
/// # Errors
/// Why it is not known, in words that hold nothing of a token.
pub(super) fn account(kubelet: &Path, uid: &str, namespace: &str) -> Result<String, String> {
    let volumes = kubelet.join("pods").join(uid).join("volumes/kubernetes.io~projected");
    let mut found: Option<String> = None;
    let listed =
        std::fs::read_dir(&volumes).map_err(|_| "the pod has no token of a service account".to_owned())?;
    for (index, volume) in listed.flatten().enumerate() {
        if index >= MOST_VOLUMES {
            return Err("the pod has too many volumes".into());
        }
        let path = volume.path().join("token");
        let token = match read::bytes(&path, Owner::Anybody, MOST_BYTES) {
            Ok(token) => token,
            Err(read::Unread::Missing(_)) => continue,
            Err(why) => return Err(why.to_string()),
        };
        let shown = path.display();
        let claims =
            claims(&token).ok_or_else(|| format!("{shown} is no token of a service account"))?.kubernetes;
        if claims.pod.uid != uid {
            return Err(format!("{shown} is a token of another pod"));
        }
        if claims.namespace != namespace {
            return Err(format!("{shown} is of another namespace than the runtime says"));
        }
        match &found {
            Some(account) if *account != claims.serviceaccount.name => {
                return Err("the pod has tokens of several service accounts".into());
            }
            _ => found = Some(claims.serviceaccount.name),
        }
    }
    found.ok_or_else(|| "the pod has no token of a service account".into())
}

/// The claims of a JWT (RFC 7519): the middle one of three parts.
fn claims(token: &[u8]) -> Option<Claims> {
    let mut parts = token.trim_ascii().split(|byte| *byte == b'.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    serde_json::from_slice(&payload).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    const UID: &str = "3d0c9c5e-7a2b-4b1e-9f65-0a1b2c3d4e5f";

    fn token(namespace: &str, pod: &str, account: &str) -> String {
        let claims = format!(
            r#"{{"aud":["x"],"exp":1,"kubernetes.io":{{"namespace":"{namespace}","node":{{"name":"n"}},
            "pod":{{"name":"p","uid":"{pod}"}},"serviceaccount":{{"name":"{account}","uid":"u"}}}},"sub":"s"}}"#
        );
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    /// As the kubelet's atomic writer lays a volume out.
    fn put(kubelet: &Path, volume: &str, token: &str) {
        let volume = kubelet.join("pods").join(UID).join("volumes/kubernetes.io~projected").join(volume);
        let data = volume.join("..2026_11_25");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o1777)).unwrap();
        std::fs::write(data.join("token"), token).unwrap();
        std::fs::set_permissions(data.join("token"), std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(data.join("token"), Some(65532), None).unwrap();
        symlink("..2026_11_25", volume.join("..data")).unwrap();
        symlink("..data/token", volume.join("token")).unwrap();
    }

    #[test]
    fn the_account_is_what_all_tokens_of_the_pod_say() {
        let kubelet = tempfile::tempdir().unwrap();
        assert!(account(kubelet.path(), UID, "payroll").unwrap_err().contains("no token"));
        put(kubelet.path(), "kube-api-access-x", &token("payroll", UID, "exporter"));
        put(kubelet.path(), "vault", &token("payroll", UID, "exporter"));
        assert_eq!(account(kubelet.path(), UID, "payroll").as_deref(), Ok("exporter"));
        put(kubelet.path(), "own", &token("payroll", UID, "admin"));
        assert!(account(kubelet.path(), UID, "payroll").unwrap_err().contains("several"));
    }

    #[test]
    fn a_text_that_somebody_projected_into_his_pod_is_no_account_of_another_namespace() {
        let fakes = [
            (token("payroll", UID, "exporter"), "another namespace"),
            (token("mine", "00000000-0000-0000-0000-000000000000", "exporter"), "another pod"),
            ("no.token".to_owned(), "no token of"),
            (format!("{}.x", token("mine", UID, "a")), "no token of"),
        ];
        for (text, why) in fakes {
            let kubelet = tempfile::tempdir().unwrap();
            put(kubelet.path(), "own", &text);
            let told = account(kubelet.path(), UID, "mine").unwrap_err();
            assert!(told.contains(why) && !told.contains(&text), "{told}");
        }
    }
}
