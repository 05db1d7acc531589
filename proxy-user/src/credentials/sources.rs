//! Where secrets are: one place that turns a reference of the policy (`vault:NAME`, `file:/PATH` …) into the secret.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proxy_policy::{SecretRef, Store as Place};
use zeroize::Zeroizing;

use super::hashicorp::{Hashicorp, Login};
use super::issuer::Issuer;
use super::local::Local;
use super::name::SecretName;
use super::outcall::Outcall;
use super::printed::Printed;
use super::secret::Secret;
use super::store::{Store, StoreError};
use super::vault::Vault;
use crate::config;
use crate::uplink::Uplink;

/// A secret at one of its versions. No `Debug`, as [`Secret`] has none.
#[derive(Clone)]
pub(super) struct Held {
    /// The secret.
    pub(super) secret: Arc<Secret>,
    /// Grows whenever the secret changes.
    pub(super) version: u64,
    /// Since when it is this one, in seconds since the Unix epoch, as far as its source knows.
    pub(super) since_s: Option<u64>,
}

/// Why there is no secret. The texts are for the operator: what, where, what to do; never anything of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SourceError {
    /// The source has no such secret.
    #[error("{problem}")]
    Missing {
        /// What is missing, and what to do.
        problem: String,
    },
    /// The source cannot be asked.
    #[error("the secrets could not be read; {problem}")]
    Unavailable {
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl SourceError {
    pub(super) fn unknown(reference: &SecretRef) -> Self {
        let problem =
            format!("this daemon has no source {}:; see docs/credentials.md", reference.store().as_str());
        Self::Unavailable { problem }
    }
}

/// All sources: this host, and the places that its configuration names.
pub(super) struct Sources {
    local: Arc<Local>,
    /// Set once, before there is a policy.
    beyond: OnceLock<Beyond>,
    /// The login at the proxy of the site.
    login: OnceLock<SecretRef>,
    /// What the sinks of the journal need.
    sinks: OnceLock<Vec<SecretRef>>,
}

/// Where secrets are besides this host's own places.
struct Beyond {
    hashicorp: Option<Hashicorp>,
    printed: Printed,
}

impl Sources {
    /// With the daemon's own store, which is read now.
    #[must_use]
    pub(super) fn new(store: Store) -> Self {
        Self {
            local: Arc::new(Local::new(store)),
            beyond: OnceLock::new(),
            login: OnceLock::new(),
            sinks: OnceLock::new(),
        }
    }

    /// This host's own places with another secret in the store, in memory only, to try it.
    pub(super) fn with_candidate(&self, name: &SecretName, secret: &Arc<Secret>) -> Self {
        Self {
            local: Arc::new(self.local.with_candidate(name, secret)),
            beyond: OnceLock::new(),
            login: OnceLock::new(),
            sinks: OnceLock::new(),
        }
    }

    /// With the places that the configuration names. Does nothing the second time.
    pub(super) fn reach(
        &self,
        hashicorp: Option<&config::Hashicorp>,
        programs: config::Programs,
        way: &Outcall,
        issuer: Option<&Arc<Issuer>>,
    ) {
        self.beyond.get_or_init(|| {
            let source =
                |it| Hashicorp::new(it, way.clone(), Arc::clone(&self.local), issuer.map(Arc::clone));
            Beyond { hashicorp: hashicorp.map(source), printed: Printed::new(programs) }
        });
    }

    /// Keeps the login at the proxy of the site at hand, and gives it as often as it is asked for. Does nothing the second time.
    pub(super) fn log_in_at(&self, uplink: &Uplink, reference: &SecretRef) {
        let reference = self.login.get_or_init(|| reference.clone()).clone();
        let local = Arc::clone(&self.local);
        uplink.log_in(Box::new(move || {
            let held = local.held(&reference).ok_or("it has not been read yet")?;
            login(&held.map_err(|error| error.to_string())?.secret)
        }));
    }

    /// Keeps what sinks need at hand. Does nothing the second time.
    pub(super) fn keep_for_sinks(&self, references: Vec<SecretRef>) {
        let _ = self.sinks.set(references);
    }

    /// The daemon's own store.
    #[must_use]
    pub(super) fn vault(&self) -> &Vault {
        self.local.vault()
    }

    /// Reads again everything that is read; returns how many secrets the daemon's own store has. Blocks on files; what is
    /// elsewhere follows.
    ///
    /// # Errors
    /// The store cannot be read; what was read before goes on.
    pub(super) fn reload(&self) -> Result<usize, StoreError> {
        let reloaded = self.local.reload();
        if let (Some(beyond), Ok(_)) = (self.beyond.get(), tokio::runtime::Handle::try_current()) {
            beyond.hashicorp.iter().for_each(Hashicorp::read_again);
            beyond.printed.read_again();
        }
        reloaded
    }

    /// Reads what these references name, so that it is at hand, and forgets what no reference names any more. Blocks on files;
    /// what is elsewhere is had with the next [`Sources::follow`].
    pub(super) fn prepare(&self, references: &[&SecretRef]) {
        let mut all = references.to_vec();
        if let Some(beyond) = self.beyond.get() {
            beyond.hashicorp.iter().for_each(|it| it.prepare(references));
            beyond.printed.prepare(references);
            all.extend(beyond.hashicorp.iter().flat_map(Hashicorp::login_secrets));
        }
        all.extend(self.login.get());
        all.extend(self.sinks.get().into_iter().flatten());
        self.local.prepare(&all);
    }

    /// Reads again those files that changed and are whole, and begins to have what was named since. Blocks on files. Must be
    /// called inside of the runtime.
    pub(super) fn follow(&self) {
        self.local.follow();
        if let Some(beyond) = self.beyond.get() {
            beyond.hashicorp.iter().for_each(Hashicorp::begin);
            beyond.printed.begin();
        }
    }

    /// The secret that a reference names, if it is at hand: never waits. `None`: it must be fetched first.
    #[must_use]
    pub(super) fn held(&self, reference: &SecretRef) -> Option<Result<Held, SourceError>> {
        match reference.store() {
            Place::Hashicorp => match self.hashicorp() {
                Ok(source) => source.held(reference.name()),
                Err(error) => Some(Err(error)),
            },
            Place::Exec => match self.printed() {
                Ok(source) => source.held(reference.name()),
                Err(error) => Some(Err(error)),
            },
            _ => self.local.held(reference),
        }
    }

    /// What is known of the secret that a reference names, which is no use of it: nothing is kept fresh for that.
    #[must_use]
    pub(super) fn peek(&self, reference: &SecretRef) -> Option<Result<Held, SourceError>> {
        match reference.store() {
            Place::Hashicorp => match self.hashicorp() {
                Ok(source) => source.peek(reference.name()),
                Err(error) => Some(Err(error)),
            },
            Place::Exec => match self.printed() {
                Ok(source) => source.peek(reference.name()),
                Err(error) => Some(Err(error)),
            },
            _ => self.local.held(reference),
        }
    }

    /// The secret that a reference names, fetched if it is not at hand.
    ///
    /// # Errors
    /// There is none, or its source cannot be asked.
    pub(super) async fn fetch(&self, reference: &SecretRef) -> Result<Held, SourceError> {
        match reference.store() {
            Place::Hashicorp => self.hashicorp()?.fetch(reference.name()).await,
            Place::Exec => self.printed()?.fetch(reference.name()).await,
            _ => self.local.fetch(reference).await,
        }
    }

    /// Gives back what is leased elsewhere. The daemon ends after this.
    pub(super) async fn end(&self) {
        if let Ok(source) = self.hashicorp() {
            source.end().await;
        }
    }

    fn hashicorp(&self) -> Result<&Hashicorp, SourceError> {
        let source = self.beyond.get().and_then(|beyond| beyond.hashicorp.as_ref());
        source.ok_or_else(|| SourceError::Missing {
            problem: "this daemon's configuration has no [hashicorp]; add it, and restart the daemon"
                .to_owned(),
        })
    }

    /// How the daemon logs in at HashiCorp Vault or OpenBao.
    ///
    /// # Errors
    /// The configuration has none.
    pub(super) fn hashicorp_login(&self) -> Result<&Login, SourceError> {
        self.hashicorp().map(Hashicorp::login)
    }

    fn printed(&self) -> Result<&Printed, SourceError> {
        self.beyond.get().map(|beyond| &beyond.printed).ok_or_else(|| SourceError::Missing {
            problem: "this daemon's configuration names no programs; add [exec.NAME], and restart the daemon"
                .to_owned(),
        })
    }
}

/// `USER:PASSWORD` as basic authentication has it (RFC 7617).
fn login(secret: &Secret) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = secret.expose();
    let is_login = bytes.contains(&b':') && !bytes.iter().any(u8::is_ascii_control);
    if !is_login {
        return Err("it is not USER:PASSWORD in one line".to_owned());
    }
    let mut text = Zeroizing::new(vec![0; bytes.len().div_ceil(3) * 4]);
    let written = STANDARD.encode_slice(bytes, &mut text).map_err(|error| error.to_string())?;
    text.truncate(written);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_user_and_password_in_one_line_and_nothing_else() {
        let of = |text: &str| login(&Secret::new(text.as_bytes().to_vec()));
        assert_eq!(of("Aladdin:open sesame").unwrap().as_slice(), b"QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        for bad in ["", "CANARY", "me:CANARY\n", "me:CANARY\r\nX: y", "me:\0CANARY"] {
            assert!(!of(bad).unwrap_err().contains("CANARY"));
        }
    }
}
