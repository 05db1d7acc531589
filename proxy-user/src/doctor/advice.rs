//! What is the matter with a process, and the one command that mends it.

use std::path::Path;

use super::readers::{Patch, Place, Reader};
use super::runtime::Runtime;
use super::snapshot::Snapshot;
use super::{Holds, Patient, Refused, Store, Verdict};

/// Where `vouchsafe trust install` puts what others may read.
const TRUST_DIR: &str = "/etc/vouchsafe/trust";

/// How a client that nothing on the disk changes is let through.
const PASS: &str =
    "let it through undecrypted: `intercept = false` in its grant for this API (docs/policy.md)";

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
        let lacks = |(_, store): &&(Reader, Store)| matches!(store.holds, Holds::None | Holds::Some);
        let lacking: Vec<_> = looked.iter().filter(lacks).collect();
        if !lacking.is_empty() {
            return case.lacks(&lacking);
        }
        if !seen.is_whole {
            let why =
                "it ended, or may not be looked at, before it was seen which variables it has".to_owned();
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
            return Self { verdict: Verdict::Unknown, why, mend: Some(case.install(&[(reader, store)])) };
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
    fn lacks(&self, lacking: &[&(Reader, Store)]) -> Advice {
        let is_compiled =
            |reader: &Reader| reader.sources.iter().all(|source| source.place == Place::CompiledIn);
        if lacking.iter().all(|(reader, _)| is_compiled(reader) && !reader.obeys_variables) {
            let why = "its roots are compiled in, and it takes no others".to_owned();
            return Advice { verdict: Verdict::CompiledIn, why, mend: Some(PASS.to_owned()) };
        }
        if lacking.iter().all(|(reader, _)| reader.obeys_variables)
            && self.seen.is_whole
            && self.has_drop_in()
        {
            let unit = self.patient.unit.as_deref().unwrap_or_default();
            let why =
                format!("the settings of {unit} name this host's CA, but the process started without them");
            return Advice { verdict: Verdict::Restart, why, mend: Some(self.restart()) };
        }
        let why = told(lacking);
        if lacking.iter().all(|(_, store)| store.holds == Holds::Some) {
            let mend = Some("vouchsafe trust refresh".to_owned());
            let why = format!("{why}, or not all of it");
            return Advice { verdict: Verdict::Lacks, why, mend };
        }
        let lacking: Vec<_> = lacking.iter().map(|(reader, store)| (reader, store)).collect();
        let (verdict, why) = match self.seen.is_whole {
            true => (Verdict::Lacks, why),
            false => {
                (Verdict::Unknown, format!("{why}, unless variables led it elsewhere, which were not seen"))
            }
        };
        Advice { verdict, why, mend: Some(self.install(&lacking)) }
    }

    /// The one command for all places without our roots.
    fn install(&self, lacking: &[(&Reader, &Store)]) -> String {
        if self.patient.contained || self.seen.files.are_foreign {
            return format!(
                "give its container {TRUST_DIR} (read-only), and the variables that `vouchsafe trust env` prints"
            );
        }
        // A variable of somebody's choice goes on to name its file.
        let asks = |(reader, store): &(&Reader, &Store)| {
            reader.obeys_variables && store.variable.is_none() && reader.patch != Patch::System
        };
        let unit = self.unit();
        let by_unit = unit.as_ref().filter(|_| lacking.iter().any(asks));
        if unit.is_none() && lacking.iter().any(|(reader, _)| reader.patch == Patch::Nothing) {
            return self.by_variables();
        }
        let mut stores: Vec<String> = by_unit.iter().map(|unit| format!(" --unit {unit}")).collect();
        for (reader, store) in lacking {
            if by_unit.is_some() && reader.obeys_variables && store.variable.is_none() {
                continue;
            }
            let store = match &reader.patch {
                Patch::System => " --system".to_owned(),
                Patch::File(path) => format!(" --file {}", quoted(path)),
                Patch::Java(home) => format!(" --java-home {}", quoted(home)),
                Patch::Nss(folder) => format!(" --nss {}", quoted(folder)),
                Patch::Nothing => continue,
            };
            if !stores.contains(&store) {
                stores.push(store);
            }
        }
        let stores = match stores.as_slice() {
            [only] if only == " --system" => String::new(),
            stores => stores.concat(),
        };
        let command = format!("vouchsafe trust install{stores}");
        match unit {
            Some(unit) if by_unit.is_some() || self.runtime.kind.reads_once() => {
                format!("{command} && systemctl restart {unit}")
            }
            _ => command,
        }
    }

    /// All variables that any runtime knows.
    fn by_variables(&self) -> String {
        match self.unit() {
            Some(unit) => format!("vouchsafe trust install --unit {unit} && systemctl restart {unit}"),
            None => "eval \"$(vouchsafe trust env)\" where it is started, and start it again".to_owned(),
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
        let Some(unit) = self.patient.unit.as_deref().filter(|unit| !unit.contains('/')) else {
            return false;
        };
        let folder = Path::new("/etc/systemd/system").join(format!("{unit}.d"));
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().take(64);
        files.into_iter().any(|file| {
            let is_small = file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() < 64 << 10);
            is_small && std::fs::read_to_string(file.path()).is_ok_and(|text| text.contains(TRUST_DIR))
        })
    }
}

/// Who reads what, each place once.
fn told(lacking: &[&(Reader, Store)]) -> String {
    let mut places: Vec<(String, Vec<&str>)> = Vec::new();
    for (reader, store) in lacking {
        let by = store.variable.map(|name| format!(" ({name})")).unwrap_or_default();
        let place = format!("{}{by}", store.place);
        match places.iter_mut().find(|(known, _)| *known == place) {
            Some((_, who)) => who.push(reader.who),
            None => places.push((place, vec![reader.who])),
        }
    }
    let told = |(place, who): &(String, Vec<&str>)| format!("{}: {place}", who.join(", "));
    let places: Vec<String> = places.iter().map(told).collect();
    format!("this host's CA is not in what it reads ({})", places.join("; "))
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
