//! Who a workload of the journal would be by another policy: who it is by the code that decides, or not said.

use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::Arc;

use http::Method;
use proptest::prelude::*;
use proxy_common::{ENVIRONMENT_LONG, ENVIRONMENT_TRACED};
use proxy_policy::{CallKind, CallPath, ContainerRuntime, Host, Moment, Scheme, SourceFile, compile};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::app::recall::{Settings, Who};
use crate::app::replay::{Replayed, replay, to_judge};
use crate::authorize::{Answer, Facts, LivePolicy, Look, Subject, Unidentified, authorize, entry};
use crate::base::addr::OriginalDst;
use crate::workload::container::{Container, Maker};
use crate::workload::identify::Matcher;
use crate::workload::runtime::Told;
use crate::workload::{Workload, files};

const SETTINGS: Settings<'static> = Settings { unidentified: Unidentified::Deny, ports: &[80, 443] };
const NOW: Moment = Moment(1_800_000_000);
/// Its files are the bots'.
const USER: u32 = 1000;
const ID: &str = "58a2abcda25edca2ef835ed25e8318891e1745da1bcbdc6b5d62ae023d589fbc";

/// Files that are executed, and ways to them.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode =
            |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        mode(".", 0o755);
        for name in ["bot", "other", "loose"] {
            fs::write(at(name), name).unwrap();
        }
        mode("loose", 0o777);
        symlink(at("bot"), at("link")).unwrap();
        fs::create_dir(at("hard")).unwrap();
        fs::hard_link(at("bot"), at("hard/bot")).unwrap();
        fs::create_dir(at("open")).unwrap();
        mode("open", 0o1777);
        fs::write(at("open/own"), "own").unwrap();
        chown(at("open/own"), Some(USER), None).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn live(&self, identities: &[Vec<String>]) -> Arc<LivePolicy> {
        self.compiled(identities).unwrap_or_else(|| panic!("{identities:?}"))
    }

    /// `None`: two identities can never be told apart, and such a policy is refused.
    fn compiled(&self, identities: &[Vec<String>]) -> Option<Arc<LivePolicy>> {
        let root = self.path().to_str().unwrap();
        let sha256 = |name: &str| -> String {
            Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let mut all = vec![SourceFile::new(
            "apis/a.toml".to_owned(),
            "[api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\naddresses = [\"192.0.2.0/24\"]\n"
                .to_owned(),
        )];
        for (at, conditions) in identities.iter().enumerate() {
            let text = conditions.join("\n").replace("{root}", root);
            let text = text.replace("{bot}", &sha256("bot")).replace("{other}", &sha256("other"));
            // Each may do something else.
            let grants = ["GET", "POST", "*"][at % 3];
            let text =
                format!("[identity]\n{text}\n[[grant]]\napi = \"plain\"\nallow = [\"{grants} /**\"]\n");
            all.push(SourceFile::new(format!("policies/bot{at}.toml"), text));
        }
        Some(Arc::new(to_judge(compile(&all).set?)))
    }
}

/// A process as the daemon meets it.
#[derive(Clone, Debug)]
struct Process {
    exe: &'static str,
    uid: u32,
    gid: u32,
    unit: Option<&'static str>,
    container: Option<(Maker, &'static str)>,
    environment: u32,
}

impl Process {
    fn workload(&self, scene: &Scene) -> Workload {
        let path = scene.path().join(self.exe);
        let file = files::named_by(&path).unwrap();
        let container = self.container.map(|(maker, name)| {
            let told = Told {
                name: Some(name.to_owned()),
                namespace: Some("payroll".to_owned()),
                account: Some("exporter".to_owned()),
                ..Told::default()
            };
            Arc::new(Container::recorded(ContainerRuntime::Docker, ID.to_owned(), maker, told))
        });
        Workload {
            pid: 7,
            start_time_ns: 1,
            exe: Some(path.display().to_string()),
            exe_dev: file.dev,
            exe_ino: file.ino,
            environment: self.environment,
            uid: self.uid,
            gid: self.gid,
            unit: self.unit.map(str::to_owned),
            cgroup: self.unit.map(|unit| format!("/system.slice/{unit}")),
            container,
            ..Workload::default()
        }
    }
}

fn pick<T: Clone + std::fmt::Debug + 'static>(from: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(from.to_vec())
}

fn process() -> impl Strategy<Value = Process> {
    let containers =
        [None, None, Some((Maker::Root, "web")), Some((Maker::Root, "db")), Some((Maker::User(USER), "web"))];
    (
        pick(&["bot", "bot", "other", "loose", "open/own", "hard/bot"]),
        pick(&[USER, USER, 0]),
        pick(&[5, 0]),
        pick(&[None, Some("bot.service"), Some("x.service")]),
        pick(&containers),
        pick(&[0, 0, 0, 1, ENVIRONMENT_LONG, ENVIRONMENT_TRACED]),
    )
        .prop_map(|(exe, uid, gid, unit, container, environment)| Process {
            exe,
            uid,
            gid,
            unit,
            container,
            environment,
        })
}

/// The conditions of one identity.
fn conditions() -> impl Strategy<Value = Vec<String>> {
    let exe = pick(&[
        "exe = '{root}/bot'",
        "exe = '{root}/bot'",
        "exe = '{root}/other'",
        "exe = '{root}/link'",
        "exe = '{root}/hard/bot'",
        "exe = '{root}/*'",
        "exe = '{root}/**'",
        "exe = '{root}/loose'",
        "exe = '{root}/open/own'",
        "exe = '{root}/gone'",
    ]);
    let more = pick(&[
        "user = '1000'",
        "user = 'root'",
        "user = 'nobody-of-this-name'",
        "group = '5'",
        "unit = 'bot.service'",
        "unit = '*.service'",
        "cgroup = '/system.slice/*'",
        "container = 'docker:web'",
        "container = 'docker:*'",
        "kubernetes = 'payroll/*'",
        "sha256 = '{bot}'",
        "sha256 = '{other}'",
        "clean_environment = true",
        "clean_environment = false",
    ]);
    (exe, prop::collection::btree_set(more, 0..3)).prop_map(|(exe, more)| {
        let key = |line: &str| line.split(' ').next().unwrap().to_owned();
        let mut all = vec![exe.to_owned()];
        for line in more {
            if all.iter().all(|it| key(it) != key(line)) {
                all.push(line.to_owned());
            }
        }
        all
    })
}

fn policy() -> impl Strategy<Value = Vec<Vec<String>>> {
    prop::collection::vec(conditions(), 1..4)
}

/// Who it is by the code that decides, and what the journal gets of a call of it.
fn called(live: &Arc<LivePolicy>, workload: &Arc<Workload>) -> (Identified, Decision) {
    let found = Matcher::default().find(workload, live.set(), 1).identified;
    let subject = Subject::new(Arc::clone(workload), Arc::clone(live), found.clone());
    let facts = Facts {
        scheme: Scheme::Http,
        host: Cow::Owned(Host::parse("plain.test").unwrap()),
        port: 80,
        address: Some("192.0.2.1".parse().unwrap()),
        method: &Method::GET,
        path: CallPath::normalize("/a").unwrap(),
        query: None,
        kind: CallKind::Plain,
    };
    let asked = facts.asked(OriginalDst("192.0.2.1:80".parse().unwrap()), None);
    let entry = match authorize(&subject, &facts, Unidentified::Deny, NOW, Look::Nothing) {
        Ok(Answer::Permit(permit)) => entry::permitted(&subject, &asked, &permit).to_decision().unwrap(),
        Err(refusal) => entry::refused(&subject, &asked, &refusal),
        Ok(other) => panic!("{other:?}"),
    };
    let text = serde_json::to_string(&entry).unwrap();
    (found, serde_json::from_str(&text).unwrap())
}

/// Without the words for why there is none.
fn names(live: &LivePolicy, identified: &Identified) -> Vec<String> {
    match identified {
        Identified::One(id) => vec![live.set().identity(*id).unwrap().name.clone()],
        Identified::None(_) => Vec::new(),
        Identified::Ambiguous(names) => names.clone(),
    }
}

fn anew(
    before: &LivePolicy,
    after: &LivePolicy,
    decision: &Decision,
    recaller: &Recaller,
) -> Result<Vec<String>, String> {
    let identities = Identities::new(&keys(before.set()), after.set());
    Ok(names(after, &identities.identify(after.set(), decision, recaller)?))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// By the policy of then the workload is who it was; by another one it is who it is by that one, or that is not said.
    #[test]
    fn a_recorded_workload_is_who_it_is_by_the_code_that_decides_or_it_is_not_said(
        before in policy(),
        after in policy(),
        processes in prop::collection::vec(process(), 1..6),
    ) {
        let scene = Scene::new();
        let (before, after) = (scene.compiled(&before), scene.compiled(&after));
        prop_assume!(before.is_some() && after.is_some());
        let (before, after) = (before.unwrap(), after.unwrap());
        let recaller = Recaller::default();
        for process in processes {
            let workload = Arc::new(process.workload(&scene));
            let (found, decision) = called(&before, &workload);
            let again = anew(&before, &before, &decision, &recaller);
            prop_assert_eq!(again, Ok(names(&before, &found)), "{:?}", process);
            let same = Identities::new(&keys(before.set()), before.set());
            let replayed = replay(&before, &decision, SETTINGS, NOW, Who::Anew(&same, &recaller));
            prop_assert_eq!(replayed, Replayed::Same { other_limits: false });

            let (truth, decided) = called(&after, &workload);
            match anew(&before, &after, &decision, &recaller) {
                // Of several, those that are certain are enough for none of them to be it.
                Ok(several) if several.len() > 1 => {
                    let truth = names(&after, &truth);
                    prop_assert!(several.iter().all(|it| truth.contains(it)), "{:?} of {:?}", several, truth);
                }
                Ok(found) => {
                    prop_assert_eq!(found, names(&after, &truth), "{:?} {:?}", process, decision.workload);
                }
                Err(why) => prop_assert!(
                    ["exe", "sha256", "user"].iter().any(|of| why.contains(&format!("hangs on {of}, "))),
                    "what is recorded is said: {}", why
                ),
            }
            let other = Identities::new(&keys(before.set()), after.set());
            match replay(&after, &decision, SETTINGS, NOW, Who::Anew(&other, &recaller)) {
                Replayed::Same { .. } => prop_assert_eq!(decided.verdict, decision.verdict),
                Replayed::Otherwise(it) => prop_assert_eq!(it.now.identity, decided.identity),
                Replayed::Unknown(why) => prop_assert!(why.contains("not recorded"), "{}", why),
                Replayed::NotAsked => prop_assert!(false, "a policy was asked"),
            }
        }
    }
}

const BOT: Process =
    Process { exe: "bot", uid: USER, gid: 5, unit: Some("bot.service"), container: None, environment: 0 };

fn one(conditions: &[&str]) -> Vec<Vec<String>> {
    vec![conditions.iter().map(|it| (*it).to_owned()).collect()]
}

/// What another `[identity]` than `exe = "{root}/bot"` comes to.
fn with(process: &Process, conditions: &[&str]) -> Result<usize, String> {
    let scene = Scene::new();
    let before = scene.live(&one(&["exe = '{root}/bot'"]));
    let after = scene.live(&one(conditions));
    let (_, decision) = called(&before, &Arc::new(process.workload(&scene)));
    Ok(anew(&before, &after, &decision, &Recaller::default())?.len())
}

#[test]
fn what_is_recorded_of_a_workload_answers_another_identity() {
    for (conditions, expected) in [
        (&["exe = '{root}/bot'", "user = '1000'"][..], 1),
        (&["exe = '{root}/bot'", "user = 'root'"], 0),
        (&["exe = '{root}/bot'", "unit = 'bot.service'"], 1),
        (&["exe = '{root}/bot'", "unit = 'other.service'"], 0),
        (&["exe = '{root}/bot'", "clean_environment = true"], 1),
        (&["exe = '{root}/b*'"], 1),
        (&["exe = '{root}/other'"], 0),
        (&["user = '1000'"], 1),
        (&["container = 'docker:*'"], 0),
        // Never asked for, and not needed to know that it is another user's.
        (&["sha256 = '{bot}'", "user = 'root'"], 0),
    ] {
        assert_eq!(with(&BOT, conditions), Ok(expected), "{conditions:?}");
    }
    let preloaded = Process { environment: 1, ..BOT };
    assert_eq!(with(&preloaded, &["exe = '{root}/bot'", "clean_environment = true"]), Ok(0));
    let traced = Process { environment: ENVIRONMENT_TRACED, ..BOT };
    assert_eq!(with(&traced, &["exe = '{root}/b*'"]), Ok(0), "it is nobody");
    let writable = Process { exe: "loose", ..BOT };
    assert_eq!(with(&writable, &["exe = '{root}/loose'"]), Ok(0), "others could have written it");
    let own = Process { exe: "open/own", ..BOT };
    assert_eq!(with(&own, &["exe = '{root}/open/own'"]), Ok(0), "anybody can put files there");
    assert_eq!(with(&own, &["exe = '{root}/open/own'", "user = '1000'"]), Ok(1));
}

#[test]
fn what_is_not_recorded_of_a_workload_is_not_guessed() {
    for (conditions, hangs_on) in [
        (&["exe = '{root}/link'"][..], "exe"),
        (&["exe = '{root}/hard/bot'"], "exe"),
        (&["exe = '{root}/bot'", "sha256 = '{bot}'"], "sha256"),
        (&["exe = '{root}/bot'", "user = 'nobody-of-this-name'"], "user"),
    ] {
        let told = with(&BOT, conditions);
        assert!(
            matches!(&told, Err(why) if why.contains(&format!("bot0 hangs on {hangs_on}, "))),
            "{told:?}"
        );
    }
}

#[test]
fn a_path_that_identities_name_is_recorded_and_answers_others_that_name_it() {
    let scene = Scene::new();
    let before = scene.live(&one(&["exe = '{root}/link'"]));
    let pinned = scene.live(&one(&["exe = '{root}/link'", "user = '1000'"]));
    let other = scene.live(&one(&["exe = '{root}/link'", "user = '1001'"]));
    let gone = Workload { exe: None, ..BOT.workload(&scene) };
    for workload in [BOT.workload(&scene), gone] {
        let (found, decision) = called(&before, &Arc::new(workload));
        assert!(matches!(found, Identified::One(_)), "{found:?}");
        let after = |live: &LivePolicy| anew(&before, live, &decision, &Recaller::default());
        assert_eq!(after(&pinned).map(|it| it.len()), Ok(1));
        assert_eq!(after(&other).map(|it| it.len()), Ok(0));
        let told = after(&scene.live(&one(&["exe = '{root}/hard/bot'"])));
        assert!(matches!(&told, Err(why) if why.contains("hangs on exe, ")), "{told:?}");
    }
}

#[test]
fn a_digest_that_somebody_asked_for_is_recorded_and_answers_others() {
    let scene = Scene::new();
    let before = scene.live(&one(&["exe = '{root}/bot'", "sha256 = '{other}'"]));
    let (found, decision) = called(&before, &Arc::new(BOT.workload(&scene)));
    assert!(matches!(found, Identified::None(_)));
    let after =
        |conditions: &[&str]| anew(&before, &scene.live(&one(conditions)), &decision, &Recaller::default());
    assert_eq!(after(&["sha256 = '{bot}'"]).map(|it| it.len()), Ok(1));
    assert_eq!(after(&["sha256 = '{other}'", "unit = 'bot.service'"]).map(|it| it.len()), Ok(0));
}

#[test]
fn a_record_of_an_older_version_does_not_say_what_was_at_its_paths() {
    let scene = Scene::new();
    let before = scene.live(&one(&["exe = '{root}/bot'"]));
    let (_, decision) = called(&before, &Arc::new(BOT.workload(&scene)));
    let older = proxy_journal::Workload { known: None, ..(*decision.workload).clone() };
    let decision = Decision { workload: older.into(), ..decision };
    let after = scene.live(&one(&["exe = '{root}/b*'"]));
    let told = anew(&before, &after, &decision, &Recaller::default());
    assert!(matches!(&told, Err(why) if why.contains("hangs on exe, ")), "{told:?}");
    assert_eq!(anew(&before, &before, &decision, &Recaller::default()).map(|it| it.len()), Ok(1));
}

#[test]
fn more_identities_than_a_record_holds_have_no_keys() {
    let text =
        |at: usize| SourceFile::new(format!("policies/b{at}.toml"), format!("[identity]\nuser = '{at}'\n"));
    let set = |count: usize| compile(&(0..count).map(text).collect::<Vec<_>>()).set.unwrap();
    assert_eq!(keys(&set(3)).len(), 3);
    let many = keys(&set(MOST));
    let spelled = serde_json::to_string(&many).unwrap();
    assert!(many.len() == MOST && spelled.len() < proxy_journal::MAX_LINE / 2, "{}", spelled.len());
    assert!(keys(&set(MOST + 1)).is_empty());
}
