//! What is the matter with a process, and the one command that mends it.

use std::path::Path;

use super::readers::{Patch, Place, Reader};
use super::runtime::Runtime;
use super::snapshot::Snapshot;
use super::{Holds, Patient, Refused, Store, Verdict};

/// Where `vouchsafe trust install` puts what others may read.
const TRUST_DIR: &str = "/etc/vouchsafe/trust";

/// How a client that nothing on the disk changes is let through.
const PASS: &str = "let it through undecrypted: `intercept = false` in its grant for this API (docs/policy.md)";

/// See [`super::Diagnosis`].
pub(super) struct Advice {
    pub(super) verdict: Verdict,
    pub(super) why: String,
    pub(super) mend: Option<String>,
}

impl Advice {
    /// Judges by what was seen in each place.
    pub(super) fn of(
        patient: &Patient,
        runtime: &Runtime,
        seen: &Snapshot,
        looked: &[(Reader, Store)],
        refused: Option<Refused>,
    ) -> Self {
        let case = Case { patient, runtime, seen };
        let lacking = looked.iter().find(|(_, store)| matches!(store.holds, Holds::None | Holds::Some));
        if let Some((reader, store)) = lacking {
            return case.lacks(reader, store);
        }
        if !seen.is_whole {
            let why = "it ended, or may not be looked at, before it was known which variables it has".to_owned();
            let mend = match case.unit() {
                Some(_) => case.by_variables(),
                None => "vouchsafe trust install".to_owned(),
            };
            return Self { verdict: Verdict::Unknown, why, mend: Some(mend) };
        }
        if let Some((_, store)) = looked.iter().find(|(_, store)| store.too_new) {
            let why = format!("{} has this host's CA, but got it after the process had started", store.place);
            return Self { verdict: Verdict::Restart, why, mend: Some(case.restart()) };
        }
        let unknown = looked.iter().find_map(|(reader, store)| match &store.holds {
            Holds::Unknown(why) => Some((reader, store, why)),
            _ => None,
        });
        if let Some((reader, store, why)) = unknown {
            let why = format!("{} reads {}: {why}", reader.who, store.place);
            return Self { verdict: Verdict::Unknown, why, mend: Some(case.mend(reader, store)) };
        }
        let places = looked.iter().map(|(_, store)| store.place.as_str()).collect::<Vec<_>>().join(", ");
        match refused {
            Some(Refused::Said) => {
                let why = format!(
                    "what it reads has this host's CA ({places}), so it takes only certain certificates (pinning), or \
                     has roots of its own"
                );
                Self { verdict: Verdict::Pinned, why, mend: Some(PASS.to_owned()) }
            }
            _ => Self {
                verdict: Verdict::Trusts,
                why: format!("what it reads has this host's CA: {places}"),
                mend: None,
            },
        }
    }
}

struct Case<'a> {
    patient: &'a Patient,
    runtime: &'a Runtime,
    seen: &'a Snapshot,
}

impl Case<'_> {
    fn lacks(&self, reader: &Reader, store: &Store) -> Advice {
        let by = store.variable.map(|name| format!(" ({name})")).unwrap_or_default();
        let compiled = reader.sources.iter().all(|source| source.place == Place::CompiledIn);
        if compiled && !reader.obeys_variables {
            let why = format!("{} has its roots compiled in, and takes no others", reader.who);
            return Advice { verdict: Verdict::CompiledIn, why, mend: Some(PASS.to_owned()) };
        }
        if reader.obeys_variables && self.seen.is_whole && self.has_drop_in() {
            let unit = self.patient.unit.as_deref().unwrap_or_default();
            let why = format!("the settings of {unit} name this host's CA, but the process started without them");
            return Advice { verdict: Verdict::Restart, why, mend: Some(self.restart()) };
        }
        let what = match store.holds {
            Holds::Some => "which has only some of this host's roots",
            _ => "which does not have this host's CA",
        };
        let why = match compiled {
            true => format!("{} trusts only roots that are compiled in until it is told of others", reader.who),
            false => format!("{} reads {}{by}, {what}", reader.who, store.place),
        };
        let mend = match store.holds {
            Holds::Some => "vouchsafe trust refresh".to_owned(),
            _ => self.mend(reader, store),
        };
        Advice { verdict: Verdict::Lacks, why, mend: Some(mend) }
    }

    /// The command for a place without our roots.
    fn mend(&self, reader: &Reader, store: &Store) -> String {
        if self.patient.contained || self.seen.files.are_foreign {
            return format!(
                "give its container {TRUST_DIR} (read-only), and the variables that `vouchsafe trust env` prints"
            );
        }
        let is_named = store.variable.is_some();
        match &reader.patch {
            Patch::System => self.again("vouchsafe trust install".to_owned()),
            // A variable of somebody's choice goes on to name that file.
            Patch::File(path) if is_named || !reader.obeys_variables || self.patient.unit.is_none() => {
                self.again(format!("vouchsafe trust install --file {}", quoted(path)))
            }
            Patch::File(_) => self.by_variables(),
            Patch::Java(home) => self.again(format!("vouchsafe trust install --java-home {}", quoted(home))),
            Patch::Nss(folder) => self.again(format!("vouchsafe trust install --nss {}", quoted(folder))),
            Patch::Nothing if reader.obeys_variables => self.by_variables(),
            Patch::Nothing => PASS.to_owned(),
        }
    }

    /// All variables that any runtime knows.
    fn by_variables(&self) -> String {
        match self.unit() {
            Some(unit) => format!("vouchsafe trust install --unit {unit} && systemctl restart {unit}"),
            None => "eval \"$(vouchsafe trust env)\" where it is started, and start it again".to_owned(),
        }
    }

    /// A command, and the restart where what it changes is read only once.
    fn again(&self, command: String) -> String {
        match self.unit() {
            Some(unit) if self.runtime.kind.reads_once() => format!("{command} && systemctl restart {unit}"),
            _ => command,
        }
    }

    fn restart(&self) -> String {
        match self.unit() {
            Some(unit) => format!("systemctl restart {unit}"),
            None => format!("start process {} again", self.patient.pid),
        }
    }

    /// The unit, if it is one that is started by its settings.
    fn unit(&self) -> Option<String> {
        let unit = self.patient.unit.as_deref()?;
        unit.ends_with(".service").then(|| quoted(Path::new(unit)))
    }

    /// Whether the unit has settings that name what we installed.
    fn has_drop_in(&self) -> bool {
        let Some(unit) = self.patient.unit.as_deref().filter(|unit| !unit.contains('/')) else { return false };
        let folder = Path::new("/etc/systemd/system").join(format!("{unit}.d"));
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().take(64);
        files.into_iter().any(|file| {
            let is_small = file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() < 64 << 10);
            is_small && std::fs::read_to_string(file.path()).is_ok_and(|text| text.contains(TRUST_DIR))
        })
    }
}

/// A word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-@:+,=\\".contains(&byte);
    if text.bytes().all(|byte| plain(byte) && byte != b'\\') {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
