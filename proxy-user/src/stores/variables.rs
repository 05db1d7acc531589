//! The variables by which programs are told what to trust, and the drop-in of a unit that sets them.

use std::path::Path;

use super::bundle::{BUNDLE, ROOTS, make_folders};
use super::error::StoreError;
use super::files::{Folder, Found, split};
use super::step::Step;
use super::tools::{self, Run};
use super::{Context, Look};

/// Variables that name one file, which is all that the program trusts then.
const WHOLE: [&str; 14] = [
    "SSL_CERT_FILE", // OpenSSL, and with it Python, Ruby, PHP, Perl, .NET; Go; rustls-native-certs; uv
    "CURL_CA_BUNDLE", // curl, also within others; requests
    "REQUESTS_CA_BUNDLE", // Python's requests
    "AWS_CA_BUNDLE", // AWS CLI, boto3
    "PIP_CERT",      // pip
    "HTTPLIB2_CA_CERTS", // httplib2, Google's older clients
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", // gRPC of C, Python, Ruby, Node's grpc-js
    "GIT_SSL_CAINFO", // git
    "CARGO_HTTP_CAINFO", // cargo
    "npm_config_cafile", // npm
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", // gcloud
    "PERL_LWP_SSL_CA_FILE", // Perl's LWP with a bundle of its own
    "BUNDLE_SSL_CA_CERT", // Ruby's bundler
    "HEX_CACERTS_PATH", // Elixir's hex
];

/// Variables that name a file of roots to be trusted beside those that the program brings.
const BESIDE: [&str; 2] = ["NODE_EXTRA_CA_CERTS" /* Node, Bun */, "DENO_CERT" /* Deno */];

/// The variables and their values, for copies in that folder.
#[must_use]
pub fn variables(copies: &Path) -> Vec<(&'static str, String)> {
    let file = |name| copies.join(name).display().to_string();
    let whole = WHOLE.iter().map(|name| (*name, file(BUNDLE)));
    let beside = BESIDE.iter().map(|name| (*name, file(ROOTS)));
    // What Deno trusts by itself is neither the system's store nor a file.
    whole.chain(beside).chain([("DENO_TLS_CA_STORE", "system".to_owned())]).collect()
}

const HEADER: &str = "# Written by `vouchsafe trust`, which writes it anew; `vouchsafe trust remove --unit ";

/// The drop-in of a unit.
fn drop_in(unit: &str, copies: &Path) -> String {
    let mut text = format!("{HEADER}{unit}` takes it away.\n[Service]\n");
    for (name, value) in variables(copies) {
        // systemd.syntax(7): quotes, and % for specifiers.
        let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%");
        text.push_str(&format!("Environment=\"{name}={value}\"\n"));
    }
    text
}

/// The name of a service, `.service` added where it is left out.
///
/// # Errors
/// It is no name of a service (systemd.unit(5)).
pub fn service(name: &str) -> Result<String, String> {
    let full = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let bare = full.strip_suffix(".service").unwrap_or_default();
    if bare.is_empty() || bare.starts_with('.') || full.len() > 255 || !full.chars().all(plain) {
        return Err(format!("`{}` is no name of a service, such as invoice.service", name.escape_debug()));
    }
    Ok(full)
}

/// What is there for that unit, and what is to be done.
pub(super) fn look(unit: &str, context: &Context<'_>) -> Result<Look, StoreError> {
    let path = context.units.join(format!("{unit}.d")).join("50-vouchsafe-trust.conf");
    let wanted = (!context.roots.is_empty()).then(|| drop_in(unit, context.copies));
    let mut look = owned(&path, HEADER, wanted, "what programs of the unit trust")?;
    if !look.steps.is_empty() {
        look.steps.extend(reload(context, &[]));
        look.note = Some(format!("takes effect when {unit} is restarted: systemctl restart {unit}"));
    }
    Ok(look)
}

/// A file that is ours as a whole, known by its first line. Without `wanted` it is to go.
pub(super) fn owned(
    path: &Path,
    header: &str,
    wanted: Option<String>,
    about: &str,
) -> Result<Look, StoreError> {
    let mut look = Look::at(path);
    let (parent, name) = split(path)?;
    let folder = Folder::of_system(parent)?;
    let old = folder.as_ref().map_or(Ok(None), |folder| folder.read(name))?;
    if let Some(old) = &old {
        let is_ours = matches!(old, Found::File { content, .. } if content.starts_with(header.as_bytes()));
        if !is_ours {
            look.problem = Some("is there and not written by us: move it away".to_owned());
            return Ok(look);
        }
    }
    let before = old.as_ref().map(Found::digest);
    match (wanted, before) {
        (Some(text), Some(before)) if super::files::digest(text.as_bytes()) == before => look.present = 1,
        (Some(text), before) => {
            look.extra = usize::from(before.is_some());
            if folder.is_none() {
                make_folders(parent, &mut look.steps)?;
            }
            let (path, content, about) = (path.to_owned(), text.into_bytes(), about.to_owned());
            look.steps.push(Step::Write { path, content, mode: 0o644, before, about });
        }
        (None, Some(before)) => {
            look.extra = 1;
            look.steps.push(Step::Delete { path: path.to_owned(), before, about: about.to_owned() });
        }
        (None, None) => {}
    }
    Ok(look)
}

/// The runs that make systemd read its files again, where it runs.
pub(super) fn reload(context: &Context<'_>, then: &[&str]) -> Vec<Step> {
    let systemctl = tools::find("systemctl").filter(|_| context.systemd);
    let Some(systemctl) = systemctl else { return Vec::new() };
    let mut run = Run::new(&systemctl, ["daemon-reload"]);
    run.undo = Some(Box::new(run.clone()));
    let more = (!then.is_empty()).then(|| Step::Run(Run::new(&systemctl, then.iter().copied())));
    std::iter::once(Step::Run(run)).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_services_are_taken() {
        assert_eq!(service("invoice").unwrap(), "invoice.service");
        assert_eq!(service("bot@eu-1.service").unwrap(), "bot@eu-1.service");
        let long = "x".repeat(300);
        for wrong in ["", "../x", "a/b.service", "x.socket", ".service", "a b", "a\nb", "..service", &long] {
            assert!(service(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_drop_in_gives_each_program_the_file_that_it_takes() {
        let text = drop_in("invoice.service", Path::new("/etc/vouchsafe/trust"));
        assert!(text.contains("\n[Service]\n"), "{text}");
        assert!(text.contains("\nEnvironment=\"SSL_CERT_FILE=/etc/vouchsafe/trust/bundle.pem\"\n"), "{text}");
        assert!(
            text.contains("\nEnvironment=\"NODE_EXTRA_CA_CERTS=/etc/vouchsafe/trust/roots.pem\"\n"),
            "{text}"
        );
        assert!(text.contains("\nEnvironment=\"DENO_TLS_CA_STORE=system\"\n"), "{text}");
        assert_eq!(text.matches("Environment=").count(), variables(Path::new("/x")).len());
        let odd = drop_in("a.service", Path::new("/a%b\"c"));
        assert!(odd.contains("SSL_CERT_FILE=/a%%b\\\"c/bundle.pem"), "{odd}");
    }
}
