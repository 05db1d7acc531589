//! `vouchsafe audit replay`: every recorded decision taken again, by a policy of today, and what it would decide otherwise.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use proxy_journal::{Content, Decision, IdentityKeys, Item, PolicyResult, Reader, Record, Source, Timestamp};
use proxy_policy::Moment;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::audit::{journal_segments, write_json};
use super::policy::folder;
use super::status::safe;
use crate::app::policies::Texts;
use crate::app::recall::{Settings, Who};
use crate::app::reidentify::Identities;
use crate::app::replay::{Otherwise, Replayed, replay, to_judge};
use crate::authorize::{LivePolicy, Unidentified};
use crate::base::{clock, duration};
use crate::config::{self, Config};
use crate::workload::recalled::Recaller;

/// How many ids stand for all calls of a line.
const EXAMPLES: usize = 3;

/// Arguments of `audit replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 everything would be decided the same, 1 something would be decided otherwise, 2 the journal or the policy cannot be \
read, 3 nothing is known to be decided otherwise, but of some calls it cannot be said.")]
pub struct ReplayArgs {
    /// The folder of the policy to decide by; by default the one that the daemon reads
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Only what was decided since then: how long ago (30m, 2h, 7d), or a moment (2026-11-24T20:00:00Z, 2026-11-24)
    #[arg(long, value_name = "DUR|TIME", value_parser = since)]
    since: Option<Moment>,
    /// Only calls of this identity; may be given several times
    #[arg(long, value_name = "NAME")]
    identity: Vec<String>,
    /// Directory of the journal; by default the daemon's
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// A moment, as people write it: how long ago, a date, or a date with a time.
fn since(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = duration::parse_long(text) {
        let ago = i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
        return Ok(Moment(clock::now().0.saturating_sub(ago)));
    }
    let day = format!("{text}T00:00:00Z");
    let parsed = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(&day, &Rfc3339));
    parsed.map(|at| Moment(at.unix_timestamp())).map_err(|_| {
        format!(
            "{text:?} is neither how long ago (30m, 2h, 7d) nor a moment (2026-11-24T20:00:00Z, 2026-11-24)"
        )
    })
}

/// A policy of then.
struct Then {
    digest: String,
    /// `None`: the journal does not say what its identities asked.
    identities: Option<Identities>,
}

/// Some calls that belong together.
#[derive(Debug, Default)]
struct Batch {
    count: u64,
    /// The first ones.
    examples: Vec<Uuid>,
}

impl Batch {
    fn add(&mut self, id: Uuid) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(id);
        }
    }

    fn ids(&self) -> String {
        self.examples.iter().map(Uuid::to_string).collect::<Vec<_>>().join(" ")
    }

    fn json(&self) -> Value {
        json!({ "count": self.count, "examples": self.examples })
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Findings {
    same: u64,
    /// By identity.
    otherwise: BTreeMap<(String, Otherwise), Batch>,
    /// By reason.
    unknown: BTreeMap<String, Batch>,
    other_limits: Batch,
    not_asked: u64,
    /// Decisions that are judged for the identity of then, because what its policy asked is not recorded.
    as_then: u64,
    /// Lines that are no records.
    unreadable: u64,
    /// By how many decisions of a policy, and its digest as far as the journal has it.
    policies: BTreeMap<Option<String>, u64>,
}

/// Reads the journal, decides, and tells.
///
/// # Errors
/// What is told cannot be written.
pub fn run(args: &ReplayArgs, load: &dyn Fn() -> anyhow::Result<Config>) -> anyhow::Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let found = match find(args, load) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("vouchsafe: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    let (findings, root, digest) = &found;
    match args.json {
        true => write_json(&findings.json(digest), &mut out)?,
        false => out.write_all(findings.page(root, digest).as_bytes())?,
    }
    out.flush()?;
    Ok(ExitCode::from(findings.code()))
}

fn find(
    args: &ReplayArgs,
    load: &dyn Fn() -> anyhow::Result<Config>,
) -> anyhow::Result<(Findings, PathBuf, String)> {
    let config = load()?;
    let root = folder::or_configured(args.policies.as_ref(), &config.policies);
    let live = Arc::new(to_judge(folder::set_of(&root)?));
    let digest = Texts::read(&root).digest;
    let dir = args.dir.clone().unwrap_or_else(|| config.journal_dir());
    let mut findings = Findings::default();
    read(&dir, args, &config, &live, &mut findings)?;
    Ok((findings, root, digest))
}

fn read(
    dir: &Path,
    args: &ReplayArgs,
    config: &Config,
    live: &Arc<LivePolicy>,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let unidentified = match config.unidentified {
        config::Unidentified::Deny => Unidentified::Deny,
        config::Unidentified::Pass => Unidentified::Pass,
    };
    let ports = config.ports();
    let settings = Settings { unidentified, ports: &ports };
    let mut policies: BTreeMap<u64, Then> = BTreeMap::new();
    let recaller = Recaller::default();
    let then = |digest: String, keys: &IdentityKeys| {
        let identities = (!keys.is_empty()).then(|| Identities::new(keys, live.set()));
        Then { digest, identities }
    };
    for (number, path) in journal_segments(dir)? {
        let source = open(dir, number, &path)?;
        for item in Reader::new(source) {
            let item = item.with_context(|| format!("{} cannot be read", path.display()))?;
            let entry = match item {
                Item::Entry(entry) => entry,
                Item::Unreadable { .. } => {
                    findings.unreadable += 1;
                    continue;
                }
                // A write under way.
                Item::Torn { .. } => continue,
            };
            match entry.content {
                // The numbers of generations begin anew.
                Content::Known(Record::Start(start)) => {
                    policies.clear();
                    let first = start.policy_generation.zip(start.policy_digest);
                    policies.extend(first.map(|(of, digest)| (of, then(digest, &start.identity_keys))));
                }
                Content::Known(Record::Policy(load)) if load.result == PolicyResult::Loaded => {
                    policies.insert(load.generation, then(load.digest, &load.identity_keys));
                }
                Content::Known(Record::Decision(decision) | Record::Connection(decision)) => {
                    let at = seconds(entry.time);
                    let wanted = args.since.is_none_or(|since| at.0 >= since.0)
                        && (args.identity.is_empty()
                            || decision.identity.as_ref().is_some_and(|it| args.identity.contains(it)));
                    if wanted {
                        let policy = policies.get(&decision.generation);
                        let digest = policy.map(|policy| policy.digest.clone());
                        *findings.policies.entry(digest).or_default() += 1;
                        let who = match policy.and_then(|policy| policy.identities.as_ref()) {
                            Some(identities) => Who::Anew(identities, &recaller),
                            None => Who::AsThen,
                        };
                        findings.add(&decision, replay(live, &decision, settings, at, who), who);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Opens a segment; one that is compressed meanwhile has another name then.
fn open(dir: &Path, number: u32, path: &Path) -> anyhow::Result<Source> {
    let error = match Source::open(path) {
        Ok(source) => return Ok(source),
        Err(error) => error,
    };
    let again = || journal_segments(dir).ok()?.into_iter().find(|(it, _)| *it == number);
    if error.kind() == io::ErrorKind::NotFound
        && let Some((_, path)) = again()
    {
        return Source::open(&path).with_context(|| format!("{} cannot be read", path.display()));
    }
    Err(error).with_context(|| format!("{} cannot be read", path.display()))
}

fn seconds(time: Timestamp) -> Moment {
    Moment(i64::try_from(time.micros() / 1_000_000).unwrap_or(i64::MAX))
}

impl Findings {
    fn add(&mut self, decision: &Decision, replayed: Replayed, who: Who<'_>) {
        let id = decision.id;
        self.as_then += u64::from(matches!(who, Who::AsThen) && replayed != Replayed::NotAsked);
        match replayed {
            Replayed::Same { other_limits } => {
                self.same += 1;
                if other_limits {
                    self.other_limits.add(id);
                }
            }
            Replayed::Otherwise(otherwise) => {
                let who = decision.identity.clone().unwrap_or_default();
                self.otherwise.entry((who, otherwise)).or_default().add(id);
            }
            Replayed::Unknown(why) => self.unknown.entry(why).or_default().add(id),
            Replayed::NotAsked => self.not_asked += 1,
        }
    }

    fn code(&self) -> u8 {
        match (self.otherwise.is_empty(), self.unknown.is_empty()) {
            (false, _) => 1,
            (true, false) => 3,
            (true, true) => 0,
        }
    }

    fn page(&self, root: &Path, digest: &str) -> String {
        use std::fmt::Write as _;
        let mut page = String::new();
        let calls = |count: u64| format!("{count} decision{}", if count == 1 { "" } else { "s" });
        let sum = |all: u64, some: &Batch| all + some.count;
        let otherwise = self.otherwise.values().fold(0, sum);
        let unknown = self.unknown.values().fold(0, sum);
        // Writing to a string does not fail.
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = writeln!(page, "{text}");
        };
        line(format_args!("by {} (digest {})", root.display(), short(digest)));
        let mut last = None;
        for ((identity, it), some) in &self.otherwise {
            if last != Some(identity) {
                let name = if identity.is_empty() { "without an identity" } else { identity };
                line(format_args!("\n{}", safe(name)));
                last = Some(identity);
            }
            line(format_args!("  {}: {}", it.change, calls(some.count)));
            for (when, told) in [("then", &it.then), ("now ", &it.now)] {
                let who = match (&told.identity, it.now.identity == it.then.identity) {
                    (_, true) => String::new(),
                    (Some(name), false) => format!("{} by ", safe(name)),
                    (None, false) => "nobody by ".to_owned(),
                };
                let credential =
                    told.credential.as_deref().map(|name| format!(", credential {}", safe(name)));
                line(format_args!("    {when} {who}{}{}", safe(&told.rule), credential.unwrap_or_default()));
            }
            line(format_args!("    such as {}", some.ids()));
        }
        if !self.unknown.is_empty() {
            line(format_args!("\ncannot be said"));
            for (why, some) in &self.unknown {
                line(format_args!("  {}: {}", calls(some.count), safe(why)));
                line(format_args!("    such as {}", some.ids()));
            }
        }
        line(format_args!(
            "\n{}: {} the same, {otherwise} otherwise, {unknown} cannot be said",
            calls(self.same + otherwise + unknown),
            self.same
        ));
        if self.other_limits.count > 0 {
            line(format_args!(
                "of these, {} would be asked for other limits than then; whether those refuse them is not judged",
                self.other_limits.count
            ));
        }
        if self.as_then > 0 {
            line(format_args!(
                "{} are judged for who called then: what the policy of then asked is not recorded",
                calls(self.as_then)
            ));
        }
        if self.not_asked > 0 {
            line(format_args!("{} more were refused before a policy was asked", self.not_asked));
        }
        if self.unreadable > 0 {
            line(format_args!("{} lines are no records: see vouchsafe audit verify", self.unreadable));
        }
        let same = self.policies.get(&Some(digest.to_owned())).copied().unwrap_or_default();
        line(format_args!("{} of them were taken by this very policy", same));
        page
    }

    fn json(&self, digest: &str) -> Value {
        let otherwise = self.otherwise.iter().map(|((identity, it), some)| {
            let told = |it: &crate::app::replay::Told| {
                json!({ "identity": it.identity, "rule": it.rule, "credential": it.credential })
            };
            json!({
                "identity": Option::from(identity).filter(|name: &&String| !name.is_empty()),
                "change": it.change,
                "then": told(&it.then),
                "now": told(&it.now),
                "count": some.count,
                "examples": some.examples,
            })
        });
        let unknown = self
            .unknown
            .iter()
            .map(|(why, some)| json!({ "why": why, "count": some.count, "examples": some.examples }));
        json!({
            "digest": digest,
            "same": self.same,
            "otherwise": otherwise.collect::<Vec<_>>(),
            "cannot_be_said": unknown.collect::<Vec<_>>(),
            "other_limits": self.other_limits.json(),
            "judged_as_then": self.as_then,
            "not_asked": self.not_asked,
            "unreadable_lines": self.unreadable,
            "by_this_policy": self.policies.get(&Option::from(digest.to_owned())).copied().unwrap_or_default(),
        })
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
