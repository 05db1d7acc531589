//! `hashicorp:PATH#FIELD`: secrets of HashiCorp Vault or OpenBao, over its HTTP API.
//!
//! All fields of a path come from one answer. What is leased is renewed ahead of its end while it is used, and read anew when
//! it cannot be; what is not is read again every few minutes. What no reference names any more is revoked.
//!
//! Invariant: nothing is given out after its lease ended, or after the token that it was leased with is known to be taken back.
//! Invariant: when a path is refused, what was had of it ends at once; only who does not answer leaves it to its end.

pub mod answers;
mod client;
mod login;
mod secret_id;
#[cfg(test)]
pub(super) mod server;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::StatusCode;
use proxy_policy::{SecretRef, Store as Place};
use tokio::time::Instant;

use self::answers::{LeaseAnswer, Mount, SecretAnswer, Shape};
use self::client::{Call, Client, object, told, unavailable};
pub(super) use self::login::Login;
use self::login::Token;
use super::answers::LONGEST;
use super::issuer::Issuer;
use super::lease::{Lease, Leases};
use super::local::Local;
use super::outcall::Outcall;
use super::secret::Secret;
use super::source_files::without_line_end;
use super::sources::{Held, SourceError};
use crate::base::clock;
use crate::config;

/// How long a refusal is told before it is asked for again.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Until what no reference names any more is revoked: calls of the policy before may be under way with it.
const GRACE: Duration = Duration::from_secs(2);
/// How long that may take at the end of the daemon, which then gives its token back.
const REVOKE_TIME: Duration = Duration::from_secs(3);
/// How many leases are revoked at once.
const AT_ONCE: usize = 8;

/// What was read at a path.
struct Reading {
    /// As texts of secrets are; `None`: no text.
    fields: BTreeMap<String, Option<Arc<Secret>>>,
    version: u64,
    since_s: Option<u64>,
    /// With which token it is leased.
    leased_with: Option<u64>,
}

/// What was read, or why there is nothing to read.
type Read = Result<Arc<Reading>, SourceError>;

/// A lease that may still be alive.
#[derive(Clone)]
struct Leased {
    id: Arc<Secret>,
    is_renewable: bool,
    token: u64,
    /// For how long it was at first.
    first: Option<Duration>,
    ends: Instant,
}

impl Leased {
    fn is_alive(&self, now: Instant, login: &Login) -> bool {
        self.ends > now && !login.is_dead(self.token)
    }
}

/// What is kept of a path between two readings.
#[derive(Default)]
struct Kept {
    mount: Option<Mount>,
    /// The last one, if it was not refused since.
    reading: Option<Arc<Reading>>,
    /// The last version that was given out.
    version: u64,
    /// The last one is of the reading.
    leases: Vec<Leased>,
    /// No reference names it any more.
    released: bool,
}

type Path = Arc<Mutex<Kept>>;

/// The source.
pub(super) struct Hashicorp {
    reader: Arc<Reader>,
    reads: Arc<Leases<String, Read, SourceError>>,
    /// Paths that references name, and that nobody has asked for yet.
    wanted: Mutex<Vec<String>>,
}

struct Reader {
    client: Arc<Client>,
    login: Login,
    paths: Mutex<HashMap<String, Path>>,
}

impl Hashicorp {
    pub(super) fn new(
        settings: &config::Hashicorp,
        way: Outcall,
        local: Arc<Local>,
        issuer: Option<Arc<Issuer>>,
    ) -> Self {
        let client = Arc::new(Client::new(&settings.address, settings.namespace.as_deref()));
        let login = Login::new(Arc::clone(&client), settings.login.clone(), way, local, issuer);
        let reader = Arc::new(Reader { client, login, paths: Mutex::default() });
        let own = Arc::clone(&reader);
        let reads = Leases::new(move |path: String| {
            let reader = Arc::clone(&own);
            Box::pin(async move { reader.obtain(&path).await })
        });
        Self { reader, reads, wanted: Mutex::default() }
    }

    /// The secrets that its login needs.
    pub(super) fn login_secrets(&self) -> Vec<&SecretRef> {
        self.reader.login.secrets()
    }

    /// How the daemon logs in.
    pub(super) fn login(&self) -> &Login {
        &self.reader.login
    }

    /// What is at hand. Must be called inside of the runtime.
    pub(super) fn held(&self, name: &str) -> Option<Result<Held, SourceError>> {
        let (path, field) = name.split_once('#')?;
        let read = self.reads.fresh(path)?;
        match self.reader.is_gone(&read) {
            true => {
                self.reads.forget(path);
                None
            }
            false => Some(of_field(&read, path, field)),
        }
    }

    /// What is known, which is no use of it.
    pub(super) fn peek(&self, name: &str) -> Option<Result<Held, SourceError>> {
        let (path, field) = name.split_once('#')?;
        match self.reads.peek(path)? {
            Ok(read) if self.reader.is_gone(&read) => None,
            Ok(read) => Some(of_field(&read, path, field)),
            Err(error) => Some(Err(error)),
        }
    }

    /// What is there, read if it is not at hand.
    ///
    /// # Errors
    /// It is not there, may not be read, or nobody answers.
    pub(super) async fn fetch(&self, name: &str) -> Result<Held, SourceError> {
        if let Some(held) = self.held(name) {
            return held;
        }
        let (path, field) = name.split_once('#').unwrap_or((name, ""));
        of_field(&self.reads.get(path.to_owned()).await?, path, field)
    }

    /// Keeps what these references name, and gives back what no reference names any more.
    pub(super) fn prepare(&self, references: &[&SecretRef]) {
        let ours = references.iter().filter(|reference| reference.store() == Place::Hashicorp);
        let mut named: Vec<&str> = ours.filter_map(|it| Some(it.name().split_once('#')?.0)).collect();
        named.sort_unstable();
        named.dedup();
        self.reads.retain(|path| named.contains(&path.as_str()));
        self.reader.release(&named);
        let known = self.reads.keys();
        let new = named.into_iter().filter(|path| known.iter().all(|known| known != path)).map(str::to_owned);
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = new.collect();
    }

    /// Reads what was named since. Must be called inside of the runtime.
    pub(super) fn begin(&self) {
        let wanted = std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        for path in wanted {
            let reads = Arc::clone(&self.reads);
            tokio::spawn(async move {
                if let Err(error) = reads.get(path.clone()).await.and_then(|read| read) {
                    tracing::warn!("hashicorp:{path}: {error}");
                }
            });
        }
    }

    /// Reads everything again that is not leased, also what was refused. Must be called inside of the runtime.
    pub(super) fn read_again(&self) {
        if self.reader.has_refusals(&self.reads) {
            // Rights of a login are those of the moment at which it was made.
            self.reader.login.replace();
        }
        self.reads.forgive();
        for path in self.reads.keys() {
            let is_leased = self.reads.peek(path.as_str()).is_some_and(|read| {
                read.is_ok_and(|read| read.is_ok_and(|reading| reading.leased_with.is_some()))
            });
            if !is_leased {
                self.reads.renew(path);
            }
        }
    }

    /// Gives everything back that is leased, and the login. The daemon ends after this.
    pub(super) async fn end(&self) {
        self.reads.retain(|_| false);
        let leases = self.reader.leases_of(&[]);
        if tokio::time::timeout(REVOKE_TIME, self.reader.revoke(leases)).await.is_err() {
            tracing::warn!(
                "not all leases of [hashicorp] could be revoked in time: they end with the daemon's token"
            );
        }
        self.reader.login.end().await;
    }
}

fn of_field(read: &Read, path: &str, field: &str) -> Result<Held, SourceError> {
    let reading = read.as_ref().map_err(SourceError::clone)?;
    let missing = |what: &str| SourceError::Missing {
        problem: format!("{path} of [hashicorp] has {what} {field}; correct the reference, or add it there"),
    };
    match reading.fields.get(field) {
        Some(Some(secret)) if secret.is_empty() => Err(missing("nothing in its field")),
        Some(Some(secret)) => {
            Ok(Held { secret: Arc::clone(secret), version: reading.version, since_s: reading.since_s })
        }
        Some(None) => Err(missing("no text as its field")),
        None => Err(missing("no field")),
    }
}

impl Reader {
    /// Whether what was read is gone with the token that it was leased with.
    fn is_gone(&self, read: &Read) -> bool {
        let leased_with = read.as_ref().ok().and_then(|reading| reading.leased_with);
        leased_with.is_some_and(|token| self.login.is_dead(token))
    }

    fn has_refusals(&self, reads: &Leases<String, Read, SourceError>) -> bool {
        reads
            .keys()
            .iter()
            .filter_map(|path| reads.peek(path.as_str()))
            .any(|read| !matches!(read, Ok(Ok(_))))
    }

    fn path(&self, path: &str) -> Path {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(paths.entry(path.to_owned()).or_default())
    }

    /// Forgets the paths that are not named, and has their leases revoked after a moment.
    fn release(self: &Arc<Self>, named: &[&str]) {
        let leases = self.leases_of(named);
        if let (false, Ok(runtime)) = (leases.is_empty(), tokio::runtime::Handle::try_current()) {
            let this = Arc::clone(self);
            runtime.spawn(async move {
                tokio::time::sleep(GRACE).await;
                this.revoke(leases).await;
            });
        }
    }

    /// The leases of all paths that are not named, which are forgotten.
    fn leases_of(&self, named: &[&str]) -> Vec<(String, Leased)> {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let mut leases = Vec::new();
        paths.retain(|path, kept| {
            if named.contains(&path.as_str()) {
                return true;
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            // Somebody may be reading it.
            kept.released = true;
            leases.extend(kept.leases.drain(..).map(|leased| (path.clone(), leased)));
            false
        });
        leases
    }

    async fn revoke(&self, leases: Vec<(String, Leased)>) {
        let now = Instant::now();
        let alive = leases.into_iter().filter(|(_, leased)| leased.is_alive(now, &self.login));
        let revoking =
            futures_util::stream::iter(alive).for_each_concurrent(AT_ONCE, |(path, leased)| async move {
                let Some(body) = object(&[("lease_id", leased.id.expose())]).map(Arc::new) else { return };
                let told = match self.login.call_at_hand(Call::put("sys/leases/revoke", &body)).await {
                    Some(Ok(answer)) if answer.status.is_success() => {
                        tracing::debug!("the lease of hashicorp:{path} is revoked");
                        return;
                    }
                    Some(Ok(answer)) => told(&answer),
                    Some(Err(error)) => error.to_string(),
                    // With it went its leases.
                    None => return,
                };
                tracing::warn!(
                    "the lease of hashicorp:{path} could not be revoked: {told}; it ends by itself"
                );
            });
        revoking.await;
    }

    /// A path for a while: what is leased there for longer, or what is read anew.
    async fn obtain(self: &Arc<Self>, path: &str) -> Result<Lease<Read>, SourceError> {
        let kept = self.path(path);
        let (reading, leased) = {
            let now = Instant::now();
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let leased = kept.leases.last().filter(|it| it.is_renewable && it.is_alive(now, &self.login));
            (kept.reading.clone(), leased.cloned())
        };
        if let (Some(reading), Some(leased)) = (reading, leased)
            && reading.leased_with == Some(leased.token)
            && let Some(term) = self.prolonged(&kept, &leased).await?
        {
            return Ok(Lease { value: Ok(reading), lasts: term.lasts });
        }
        match self.read(path, &kept).await? {
            Ok(lease) => Ok(lease),
            Err(refused) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                // It may have been mounted anew, and what is gone is gone.
                kept.mount = None;
                kept.reading = None;
                Ok(Lease { value: Err(refused), lasts: Some(REFUSED_FOR) })
            }
        }
    }

    /// A lease that was renewed; `None`: it must be had anew.
    async fn prolonged(&self, kept: &Path, leased: &Leased) -> Result<Option<Lease<()>>, SourceError> {
        if self.login.token().await?.number != leased.token {
            // It ends with the token before.
            return Ok(None);
        }
        let Some(body) = object(&[("lease_id", leased.id.expose())]).map(Arc::new) else { return Ok(None) };
        let asked = Instant::now();
        let (token, answer) = self.login.call(|| Call::put("sys/leases/renew", &body)).await?;
        if answer.status != StatusCode::OK || token.number != leased.token {
            return Ok(None);
        }
        let term = answers::renewed_lease(answer.body.expose())
            .map_err(|what| unavailable(format!("{}: {what}", self.client.address())))?;
        if answers::is_short(term.lasts, leased.first) {
            return Ok(None);
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = kept.leases.last_mut() {
            last.ends = asked + term.lasts.unwrap_or(LONGEST);
            last.is_renewable = term.is_renewable;
        }
        Ok(Some(Lease { value: (), lasts: within(term.lasts, &token, asked) }))
    }

    /// Reads a path; the inner error is a refusal.
    async fn read(
        self: &Arc<Self>,
        path: &str,
        kept: &Path,
    ) -> Result<Result<Lease<Read>, SourceError>, SourceError> {
        let known = kept.lock().unwrap_or_else(PoisonError::into_inner).mount.clone();
        let mount = match known {
            Some(mount) => Some(mount),
            None => self.mount(path).await?,
        };
        if is_of_the_server(path, mount.as_ref()) {
            let problem = format!(
                "{}: {path} may be of the server itself and of who logs in, below a namespace; no secret is read there",
                self.client.address()
            );
            return Ok(Err(SourceError::Missing { problem }));
        }
        let (at, shape) = place(path, mount.as_ref());
        let asked = Instant::now();
        let (token, answer) = self.login.call(|| Call::get(&at)).await?;
        let (address, body) = (self.client.address(), answer.body.expose());
        let refused = match answer.status {
            StatusCode::OK => match answers::secret(body, shape) {
                Ok(answer) => {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).mount = mount;
                    return Ok(Ok(self.taken(path, kept, answer, &token, asked)));
                }
                Err(what) => unavailable(format!("{address}: {at}: {what}")),
            },
            StatusCode::NOT_FOUND | StatusCode::NO_CONTENT => {
                let what = match answers::is_deleted(body) {
                    true => "its current version was deleted: undelete it, or write another one",
                    false => "there is nothing; correct the reference, or write it there",
                };
                SourceError::Missing { problem: format!("{address}: {at}: {what}") }
            }
            StatusCode::FORBIDDEN => unavailable(format!(
                "{address}: {at} may not be read with the daemon's login: allow `read` of it in the login's policy there, \
                 then run `vouchsafe reload`"
            )),
            _ => {
                let told = told(&answer);
                unavailable(format!(
                    "{address} answered {told} to the read of {at}; check the reference, and its log"
                ))
            }
        };
        Ok(Err(refused))
    }

    /// Which engine a path is in; `None`: that is not told to us.
    async fn mount(&self, path: &str) -> Result<Option<Mount>, SourceError> {
        let at = format!("sys/internal/ui/mounts/{path}");
        let (_, answer) = self.login.call(|| Call::get(&at)).await?;
        match answer.status {
            StatusCode::OK => Ok(answers::mount(answer.body.expose()).ok()),
            _ => Ok(None),
        }
    }

    /// Keeps what was read. What is as it was stays the same secret: what was made of it goes on.
    fn taken(
        self: &Arc<Self>,
        path: &str,
        kept: &Path,
        answer: SecretAnswer,
        token: &Token,
        asked: Instant,
    ) -> Lease<Read> {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.reading.clone();
        let known = |name: &String| before.as_ref()?.fields.get(name)?.clone();
        let mut fields = BTreeMap::new();
        for (name, text) in answer.fields {
            // Whatever is read: the login of the daemon is nobody's secret.
            let text = text.filter(|text| !token.is(text.expose()));
            let text = text.map(|text| {
                let content = without_line_end(text.expose());
                match known(&name) {
                    Some(known) if known.expose() == content => known,
                    _ if content.len() == text.len() => Arc::new(text),
                    _ => Arc::new(Secret::new(content.to_vec())),
                }
            });
            fields.insert(name, text);
        }
        let same = before.as_ref().filter(|before| same_texts(&before.fields, &fields));
        let last = kept.version;
        let version = match (answer.version, same) {
            (Some(version), Some(_)) => version.number.max(last),
            (Some(version), None) => version.number.max(last + 1),
            (None, Some(_)) => last,
            (None, None) => last + 1,
        };
        let since_s = match (answer.version, &answer.lease, same) {
            (Some(version), _, _) => version.created_s,
            (None, Some(_), None) => u64::try_from(clock::now().0).ok(),
            (None, _, same) => same.and_then(|same| same.since_s),
        };
        if same.is_none() && before.is_some() && answer.lease.is_none() {
            tracing::info!(version, "hashicorp:{path} changed");
        }
        let leased_with = answer.lease.as_ref().map(|_| token.number);
        let reading = Arc::new(Reading { fields, version, since_s, leased_with });
        (kept.reading, kept.version) = (Some(Arc::clone(&reading)), version);
        let said = answer.lease.as_ref().and_then(|lease| lease.lasts);
        if let Some(LeaseAnswer { id, lasts, is_renewable }) = answer.lease {
            kept.leases.retain(|it| it.is_alive(asked, &self.login));
            kept.leases.push(Leased {
                id: Arc::new(Secret::new(id.into_bytes())),
                is_renewable,
                token: token.number,
                first: lasts,
                ends: asked + lasts.unwrap_or(LONGEST),
            });
        }
        if kept.released {
            // It came too late for those who let go of it.
            let leases = kept.leases.drain(..).map(|leased| (path.to_owned(), leased)).collect();
            let this = Arc::clone(self);
            tokio::spawn(async move { this.revoke(leases).await });
        }
        let lasts = match leased_with {
            Some(_) => within(said, token, asked),
            None => None,
        };
        Lease { value: Ok(reading), lasts }
    }
}

/// How long a lease lasts, which is no longer than its token.
fn within(lasts: Option<Duration>, token: &Token, now: Instant) -> Option<Duration> {
    let of_token = token.ends.map(|ends| ends.saturating_duration_since(now));
    lasts.into_iter().chain(of_token).min()
}

/// Whether a path leads to `sys/` or `auth/` below a namespace, where the daemon's own token is; what begins with them is no
/// reference at all. Of an engine that is known, these are names like others.
fn is_of_the_server(path: &str, mount: Option<&Mount>) -> bool {
    let has = |path: &str| path.split('/').any(|part| matches!(part, "sys" | "auth"));
    match mount {
        Some(mount) => has(&mount.path),
        None => has(path),
    }
}

/// Where to read a path, and how its answer looks.
fn place(path: &str, mount: Option<&Mount>) -> (String, Shape) {
    let Some(mount) = mount else { return (path.to_owned(), Shape::Either) };
    if !mount.is_versioned {
        return (path.to_owned(), Shape::Plain);
    }
    // It is named with its namespace, which the path may do without.
    let mut at = mount.path.as_str();
    loop {
        match path.strip_prefix(at) {
            // As it stands in the API.
            Some(rest) if rest.starts_with("data/") => return (path.to_owned(), Shape::Versioned),
            Some(rest) => return (format!("{at}data/{rest}"), Shape::Versioned),
            None => match at.split_once('/') {
                Some((_, rest)) if !rest.is_empty() => at = rest,
                _ => return (path.to_owned(), Shape::Either),
            },
        }
    }
}

fn same_texts(
    one: &BTreeMap<String, Option<Arc<Secret>>>,
    other: &BTreeMap<String, Option<Arc<Secret>>>,
) -> bool {
    let pairs = one.iter().zip(other);
    one.len() == other.len()
        && pairs.into_iter().all(|((name, text), (other_name, other_text))| {
            name == other_name
                && match (text, other_text) {
                    (Some(text), Some(other)) => Arc::ptr_eq(text, other),
                    (None, None) => true,
                    _ => false,
                }
        })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
