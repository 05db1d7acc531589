//! Publishes what others check this host's tokens by: as files, and over HTTP on a loopback address; and turns its keys.

use std::convert::Infallible;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config;
use crate::credentials::issuer::{DISCOVERY, KEYS};
use crate::credentials::{Documents, Issuer, IssuerSettings, Store};
use crate::workload::writers;

/// How late a key is turned, at most.
const TURN_EVERY: Duration = Duration::from_secs(1);
/// Connections that are served at once; who fetches keys does so once in a while.
const CONNECTIONS: usize = 64;
/// Until a request is there, and the longest that a connection lasts.
const HEAD_TIME: Duration = Duration::from_secs(5);
const CONNECTION_TIME: Duration = Duration::from_secs(30);

/// The issuer with the places where it is published.
pub(super) struct Publisher {
    issuer: Arc<Issuer>,
    folder: Option<PathBuf>,
    /// The path of the issuer's URL, without a slash at its end: a proxy may leave it in a request.
    base: String,
    /// What is in the folder, and is served.
    current: ArcSwapOption<Documents>,
}

impl Publisher {
    /// Opens the issuer and publishes its keys. What cannot be written to the folder is told and tried again; until then a new
    /// key does not sign.
    pub(super) fn open(config: &config::Issuer, secrets: &Store) -> anyhow::Result<Arc<Self>> {
        let settings = IssuerSettings {
            url: config.url.clone(),
            subject: config.subject.clone(),
            ttl: config.ttl,
            rotate_every: config.rotate_every,
            publish_ahead: config.publish_ahead,
            algorithm: config.algorithm,
        };
        let issuer = Arc::new(Issuer::open(settings, secrets)?);
        let place = config.url.split_once("://").map_or("", |(_, rest)| rest);
        let base = place.split_once('/').map_or_else(String::new, |(_, path)| format!("/{path}"));
        let publisher =
            Arc::new(Self { issuer, folder: config.publish.clone(), base, current: ArcSwapOption::empty() });
        if let Err(error) = publisher.publish() {
            tracing::error!("{error:#}");
        }
        Ok(publisher)
    }

    pub(super) fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Turns the keys and publishes them, as long as the daemon runs.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut told = None;
        loop {
            tokio::time::sleep(TURN_EVERY).await;
            let this = Arc::clone(&self);
            let turned = tokio::task::spawn_blocking(move || {
                this.issuer.turn()?;
                this.publish()
            });
            match turned.await {
                // Each reason once.
                Ok(Err(error)) => {
                    let text = format!("{error:#}");
                    if told.as_ref() != Some(&text) {
                        tracing::error!("{text}");
                    }
                    told = Some(text);
                }
                Ok(Ok(())) => told = None,
                Err(_) => {}
            }
        }
    }

    fn publish(&self) -> anyhow::Result<()> {
        let documents = self.issuer.documents();
        if self.current.load().as_deref() == Some(&documents) {
            return Ok(());
        }
        if let Some(folder) = &self.folder {
            // The keys first: a discovery never names an algorithm whose key is not there.
            for (name, text) in [(KEYS, &documents.keys), (DISCOVERY, &documents.discovery)] {
                let path = folder.join(name);
                write(&path, text).with_context(|| {
                    format!("the keys of the issuer cannot be published in {}; new ones do not sign until they are", path.display())
                })?;
            }
        }
        self.issuer.published(&documents)?;
        self.current.store(Some(Arc::new(documents)));
        Ok(())
    }

    /// Listens where the keys are served, before anything else of the daemon stands.
    pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
        TcpListener::bind(address)
            .await
            .map_err(|error| anyhow!("cannot listen on {address} for [issuer]: {error}"))
    }

    /// Serves the two documents to everybody on this host.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((tcp, _)) = listener.accept().await else {
                // No descriptors, for example: without a pause this would turn without end.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let answer = this.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIME)
                    .max_headers(64)
                    .serve_connection(TokioIo::new(tcp), service);
                let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
                drop(place);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let below =
            path.strip_prefix(self.base.as_str()).filter(|rest| rest.starts_with('/')).unwrap_or(path);
        let current = self.current.load();
        let text = match (current.as_deref(), below.trim_start_matches('/')) {
            (Some(documents), DISCOVERY) => documents.discovery.clone(),
            (Some(documents), KEYS) => documents.keys.clone(),
            _ => return bare(StatusCode::NOT_FOUND),
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = bare(StatusCode::METHOD_NOT_ALLOWED);
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        let mut answer = Response::new(Full::new(Bytes::from(text)));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let kept = format!("public, max-age={}", self.issuer.may_be_kept().as_secs());
        if let Ok(kept) = HeaderValue::from_str(&kept) {
            headers.insert(CACHE_CONTROL, kept);
        }
        answer
    }
}

fn bare(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// Writes a file that everybody may read, as a whole: nobody ever sees half of it.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("there is no folder for it")?;
    // Who could exchange the keys, by any folder on the way, could say who our workloads are.
    let check = || match writers::of_folder(folder, nix::unistd::geteuid().as_raw()) {
        Some(why) => Err(anyhow!(
            "others could exchange what is published: {why}; run `chown root` and `chmod go-w` on that folder"
        )),
        None => Ok(()),
    };
    check()?;
    make_folder(folder)?;
    check()?;
    let mut aside = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    aside.write_all(text.as_bytes())?;
    aside.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    aside.as_file().sync_all()?;
    aside.persist(path)?;
    Ok(())
}

/// Makes the folders that are missing, for everybody to look into, whatever the umask.
fn make_folder(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}
