//! The units that keep the stores current: `vouchsafe-trust.path`, which ships with us, and what it watches beyond that.

use std::path::Path;

use super::error::StoreError;
use super::manifest::Manifest;
use super::step::Step;
use super::tools::{self, Run};
use super::variables::{owned, reload};
use super::{Context, Look, Target};

const UNIT: &str = "vouchsafe-trust.path";
/// Where packages put units (systemd.unit(5)).
const PACKAGED: [&str; 3] =
    ["/usr/lib/systemd/system", "/usr/local/lib/systemd/system", "/lib/systemd/system"];
/// What the packaged unit watches by itself.
const STATE: &str = "/var/lib/vouchsafe";

const HEADER: &str =
    "# Written by `vouchsafe trust`, which writes it anew: what it has changed beside the system's store.";

/// Whether the packaged unit is here, and systemd runs.
fn is_packaged(context: &Context<'_>) -> bool {
    context.systemd && PACKAGED.iter().any(|folder| Path::new(folder).join(UNIT).exists())
}

/// The drop-in, if there is anything that the packaged unit does not watch.
fn drop_in(manifest: &Manifest, state: &Path) -> Option<String> {
    let mut paths: Vec<String> = Vec::new();
    if state != Path::new(STATE) {
        paths.push(state.join("ca/ca.pem").display().to_string());
    }
    for entry in &manifest.stores {
        match &entry.target {
            Target::File { path } | Target::Java { path } | Target::HashDir { path } => {
                paths.push(path.display().to_string());
                paths.push(entry.place.display().to_string());
            }
            // Its own work rewrites it at any time.
            Target::Nss { .. } | Target::System | Target::Bundle | Target::Unit { .. } => {}
        }
    }
    paths.sort_unstable();
    paths.dedup();
    // `%` begins a specifier in a path of a unit.
    let lines: String =
        paths.iter().map(|path| format!("PathChanged={}\n", path.replace('%', "%%"))).collect();
    (!lines.is_empty()).then(|| format!("{HEADER}\n[Path]\n{lines}"))
}

/// What is to be done so that the units watch what is in the manifest; nothing where they are not installed.
pub(super) fn look(manifest: &Manifest, state: &Path, context: &Context<'_>) -> Result<Look, StoreError> {
    let path = context.units.join(format!("{UNIT}.d")).join("50-recorded.conf");
    if !is_packaged(context) {
        return Ok(Look::at(&path));
    }
    let wanted = drop_in(manifest, state).filter(|_| !manifest.stores.is_empty());
    let ends = wanted.is_none();
    let mut look = owned(&path, HEADER, wanted, "what was changed beside the system's store")?;
    if let Some(folder) = path.parent().filter(|_| ends && !look.steps.is_empty()) {
        look.steps.push(Step::DeleteFolder { path: folder.to_owned() });
    }
    let enabled = context.units.join("multi-user.target.wants").join(UNIT).exists();
    if !look.steps.is_empty() {
        let restart: &[&str] =
            if enabled && !manifest.stores.is_empty() { &["try-restart", UNIT] } else { &[] };
        look.steps.extend(reload(context, restart));
    }
    let change = match (enabled, manifest.stores.is_empty()) {
        (false, false) => Some("enable"),
        (true, true) => Some("disable"),
        _ => None,
    };
    if let (Some(change), Some(systemctl)) = (change, tools::find("systemctl")) {
        let mut run = Run::new(&systemctl, [change, "--now", UNIT]);
        let other = if change == "enable" { "disable" } else { "enable" };
        run.undo = Some(Box::new(Run::new(&systemctl, [other, "--now", UNIT])));
        look.steps.push(Step::Run(run));
    }
    Ok(look)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Entry;
    use super::*;

    #[test]
    fn what_was_changed_is_watched_under_both_its_names() {
        let mut manifest = Manifest::default();
        let mut add = |target: Target, place: &str| {
            let entry =
                Entry { target: target.clone(), place: place.into(), put: Default::default(), made: vec![] };
            manifest.set(&target, Some(entry));
        };
        add(Target::System, "/usr/local/share/ca-certificates");
        assert!(drop_in(&Manifest::default(), Path::new(STATE)).is_none());
        add(Target::File { path: "/v/current/cacert.pem".into() }, "/v/100%/cacert.pem");
        add(Target::Nss { path: "/home/a/.pki/nssdb".into() }, "/home/a/.pki/nssdb");
        let text = drop_in(&manifest, Path::new("/srv/vouchsafe")).unwrap();
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "[Path]",
                "PathChanged=/srv/vouchsafe/ca/ca.pem",
                "PathChanged=/v/100%%/cacert.pem",
                "PathChanged=/v/current/cacert.pem"
            ]
        );
    }
}
