//! A server that follows the published API of HashiCorp Vault as far as the tests need it: engines, leases that end, logins.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::config;

/// A token that no login gives: of whoever runs the server.
pub(super) const ROOT: &str = "hvs.root";
const ROLE: &str = "role-1";
pub(in super::super) const SECRET_ID: &str = "CANARY-secret-id";

type TakesJwt = Box<dyn Fn(&str) -> bool + Send>;
type Fields = BTreeMap<String, String>;

pub(super) struct Granted {
    ends: Option<Instant>,
    max: Option<Instant>,
    ttl: u64,
    renewable: bool,
}

pub(super) struct Lease {
    token: String,
    pub(super) path: String,
    pub(super) password: String,
    ends: Instant,
    max: Instant,
}

/// What the server has.
pub(in super::super) struct State {
    pub(super) tokens: HashMap<String, Granted>,
    pub(super) leases: BTreeMap<String, Lease>,
    /// Those that somebody revoked, by path.
    pub(super) revoked: Vec<String>,
    pub(super) kv1: HashMap<String, Fields>,
    /// All versions; `None`: deleted.
    pub(super) kv2: HashMap<String, Vec<Option<Fields>>>,
    /// Paths that logins may not read.
    pub(super) denied: Vec<String>,
    pub(super) hides_mounts: bool,
    pub(super) is_sealed: bool,
    pub(in super::super) secret_id: String,
    /// Those that were made besides.
    pub(in super::super) secret_ids: Vec<String>,
    /// One that was made is not taken.
    pub(in super::super) makes_bad_ones: bool,
    /// How many logins one that was made is good for; 0: any number.
    pub(in super::super) logins: u64,
    pub(super) jwt: Option<TakesJwt>,
    /// Seconds: of a token, of all its renewals, of a lease, of all its renewals.
    pub(super) token_ttl: u64,
    pub(super) token_max: u64,
    pub(super) lease_ttl: u64,
    pub(super) lease_max: u64,
    /// `GET /v1/…`, in order.
    pub(super) log: Vec<String>,
    pub(super) namespaces: Vec<Option<String>>,
    number: u64,
}

pub(in super::super) struct Server {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct Asked {
    method: String,
    path: String,
    token: Option<String>,
    body: Value,
}

type Answer = (u16, Value);

impl Server {
    pub(in super::super) async fn start() -> Self {
        let root = Granted { ends: None, max: None, ttl: 0, renewable: false };
        let state = State {
            tokens: HashMap::from([(ROOT.to_owned(), root)]),
            leases: BTreeMap::new(),
            revoked: Vec::new(),
            kv1: HashMap::new(),
            kv2: HashMap::new(),
            denied: Vec::new(),
            hides_mounts: false,
            is_sealed: false,
            secret_id: SECRET_ID.to_owned(),
            secret_ids: Vec::new(),
            makes_bad_ones: false,
            logins: 0,
            jwt: None,
            token_ttl: 3600,
            token_max: 36_000,
            lease_ttl: 3600,
            lease_max: 36_000,
            log: Vec::new(),
            namespaces: Vec::new(),
            number: 0,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, state: Arc::new(Mutex::new(state)) };
        let state = Arc::clone(&server.state);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
        });
        server
    }

    pub(in super::super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The table of a configuration.
    pub(in super::super) fn settings(&self, login: &str) -> config::Hashicorp {
        let issuer = "[issuer]\nurl = \"https://host.test\"\nlisten = \"127.0.0.1:8765\"";
        let text = format!("[hashicorp]\naddress = \"http://{}\"\n{login}\n{issuer}\n", self.address);
        config::Config::parse(Path::new("v.toml"), &text).unwrap().hashicorp.unwrap()
    }

    pub(super) fn put_kv1(&self, path: &str, fields: &[(&str, &str)]) {
        self.state().kv1.insert(path.to_owned(), owned(fields));
    }

    pub(super) fn put_kv2(&self, path: &str, fields: &[(&str, &str)]) {
        self.state().kv2.entry(path.to_owned()).or_default().push(Some(owned(fields)));
    }

    /// How often it was asked for exactly this.
    pub(super) fn asked(&self, what: &str) -> usize {
        self.state().log.iter().filter(|it| *it == what).count()
    }

    /// Takes all tokens of logins back, with what was leased with them.
    pub(super) fn revoke_tokens(&self) {
        let mut state = self.state();
        state.tokens.retain(|token, _| token == ROOT);
        state.end_what_is_over();
    }
}

fn owned(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn refused(status: u16, error: &str) -> Answer {
    (status, json!({ "errors": [error] }))
}

fn nothing() -> Answer {
    (404, json!({ "errors": [] }))
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap_or(0);
        if count == 0 {
            return;
        }
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = header(head, "content-length").map_or(0, |it| it.parse().unwrap());
        if body.len() >= length {
            break (head.to_owned(), body.to_owned());
        }
    };
    assert_eq!(header(&head, "x-vault-request").as_deref(), Some("true"));
    let (method, rest) = head.split_once(' ').unwrap();
    let path = rest.split(' ').next().unwrap();
    let asked = Asked {
        method: method.to_owned(),
        path: path.strip_prefix("/v1/").unwrap().to_owned(),
        token: header(&head, "x-vault-token"),
        body: if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap() },
    };
    let (status, answer) = {
        let mut state = state.lock().unwrap();
        state.log.push(format!("{method} {path}"));
        state.namespaces.push(header(&head, "x-vault-namespace"));
        state.answer(&asked)
    };
    let body = if status == 204 { String::new() } else { answer.to_string() };
    let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

fn header(head: &str, name: &str) -> Option<String> {
    let all = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    all.into_iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

impl State {
    fn end_what_is_over(&mut self) {
        let now = Instant::now();
        self.tokens.retain(|_, it| it.ends.is_none_or(|ends| ends > now));
        let tokens = &self.tokens;
        // Without its token no lease lives on.
        self.leases.retain(|_, it| it.ends > now && tokens.contains_key(&it.token));
    }

    /// Whether a password opens anything.
    pub(super) fn opens(&mut self, password: &str) -> bool {
        self.end_what_is_over();
        self.leases.values().any(|it| it.password == password)
    }

    fn logged_in(&mut self) -> Answer {
        self.number += 1;
        let (token, now) = (format!("hvs.CANARY-token-{}", self.number), Instant::now());
        let granted = Granted {
            ends: Some(now + Duration::from_secs(self.token_ttl)),
            max: Some(now + Duration::from_secs(self.token_max)),
            ttl: self.token_ttl,
            renewable: true,
        };
        self.tokens.insert(token.clone(), granted);
        (200, auth(&token, self.token_ttl, true))
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        self.end_what_is_over();
        if self.is_sealed {
            return refused(503, "Vault is sealed");
        }
        let post = matches!(asked.method.as_str(), "POST" | "PUT");
        match asked.path.as_str() {
            "auth/approle/login" if post => {
                let shown = asked.body["secret_id"].as_str().unwrap_or_default();
                let known = self.secret_id == shown
                    || self.secret_ids.iter().any(|it| it == shown && !self.makes_bad_ones);
                let fits = asked.body["role_id"] == ROLE && known;
                // No server repeats it, and nothing of a refusal is told but what is known.
                let told = format!("invalid role or secret ID {}", asked.body["secret_id"]);
                return if fits { self.logged_in() } else { refused(400, &told) };
            }
            "auth/jwt/login" if post => {
                let jwt = asked.body["jwt"].as_str().unwrap();
                let fits = asked.body["role"] == "bots" && self.jwt.as_ref().is_some_and(|takes| takes(jwt));
                return if fits { self.logged_in() } else { refused(400, "error validating token: CANARY") };
            }
            // Who gets here by TLS has shown a certificate.
            "auth/cert/login" if post => {
                let fits = asked.body["name"] == "bots";
                return if fits {
                    self.logged_in()
                } else {
                    refused(400, "invalid certificate or no client certificate supplied")
                };
            }
            _ => {}
        }
        let Some(token) = asked.token.clone().filter(|token| self.tokens.contains_key(token)) else {
            return refused(403, "permission denied");
        };
        match (asked.path.as_str(), post) {
            ("auth/token/lookup-self", false) => {
                let granted = &self.tokens[&token];
                let ttl = granted.ends.map_or(0, |ends| (ends - Instant::now()).as_secs());
                (200, json!({ "data": { "id": token, "ttl": ttl, "renewable": granted.renewable } }))
            }
            ("auth/token/renew-self", true) => {
                let granted = self.tokens.get_mut(&token).unwrap();
                let (ends, left) = renewed(granted.ttl, granted.max.unwrap());
                granted.ends = Some(ends);
                (200, auth(&token, left, true))
            }
            ("auth/token/revoke-self", true) => {
                self.tokens.remove(&token);
                self.revoked.push("token".to_owned());
                (204, Value::Null)
            }
            ("sys/leases/renew", true) => {
                let id = asked.body["lease_id"].as_str().unwrap();
                let Some(lease) = self.leases.get_mut(id) else { return refused(400, "lease not found") };
                let (ends, left) = renewed(self.lease_ttl, lease.max);
                lease.ends = ends;
                (200, json!({ "lease_id": id, "lease_duration": left, "renewable": true }))
            }
            ("sys/leases/revoke", true) => {
                let lease = self.leases.remove(asked.body["lease_id"].as_str().unwrap());
                self.revoked.extend(lease.map(|lease| lease.path));
                (204, Value::Null)
            }
            ("auth/approle/role/vouchsafe/secret-id", true) => {
                self.number += 1;
                let made = format!("CANARY-made-{}", self.number);
                self.secret_ids.push(made.clone());
                (
                    200,
                    json!({ "data": { "secret_id": made, "secret_id_accessor": "a", "secret_id_ttl": 0,
                                         "secret_id_num_uses": self.logins } }),
                )
            }
            ("auth/approle/role/vouchsafe/secret-id/destroy", true) => {
                let shown = asked.body["secret_id"].as_str().unwrap();
                self.secret_ids.retain(|it| it != shown);
                if self.secret_id == shown {
                    self.secret_id.clear();
                }
                (204, Value::Null)
            }
            (path, false) => self.read(path, token),
            _ => refused(405, "unsupported operation"),
        }
    }

    fn read(&mut self, path: &str, token: String) -> Answer {
        if let Some(path) = path.strip_prefix("sys/internal/ui/mounts/") {
            let (mount, kind, options) = match path.split('/').next().unwrap() {
                "kv1" => ("kv1/", "kv", json!({ "version": "1" })),
                "kv2" => ("kv2/", "kv", json!({ "version": "2" })),
                "database" => ("database/", "database", Value::Null),
                _ => ("", "", Value::Null),
            };
            if self.hides_mounts || mount.is_empty() || self.denied.iter().any(|it| it == path) {
                return refused(
                    403,
                    "preflight capability check returned 403, please ensure client's policies grant access",
                );
            }
            return (200, json!({ "data": { "path": mount, "type": kind, "options": options } }));
        }
        if self.denied.iter().any(|denied| denied == path) {
            return refused(403, "1 error occurred:\n\t* permission denied\n\n");
        }
        let head = |data: Value| {
            json!({ "request_id": "x", "lease_id": "", "renewable": false, "lease_duration": 2_764_800,
                    "data": data, "wrap_info": null, "warnings": null, "auth": null })
        };
        if let Some(fields) = self.kv1.get(path) {
            return (200, head(json!(fields)));
        }
        if let Some(versions) = path.strip_prefix("kv2/data/").and_then(|path| self.kv2.get(path)) {
            let metadata = json!({ "created_time": "2018-03-22T02:24:06.945319214Z", "custom_metadata": null,
                                   "deletion_time": "", "destroyed": false, "version": versions.len() });
            let current = versions.last().unwrap();
            let status = if current.is_some() { 200 } else { 404 };
            return (status, head(json!({ "data": current, "metadata": metadata })));
        }
        if !path.starts_with("database/creds/") {
            return nothing();
        }
        self.number += 1;
        let (id, now) = (format!("{path}/lease-{}", self.number), Instant::now());
        let password = format!("CANARY-password-{}", self.number);
        let answer = json!({ "lease_id": id, "lease_duration": self.lease_ttl, "renewable": true,
                             "data": { "username": format!("user-{}", self.number), "password": password } });
        let (ends, max) =
            (now + Duration::from_secs(self.lease_ttl), now + Duration::from_secs(self.lease_max));
        self.leases.insert(id, Lease { token, path: path.to_owned(), password, ends, max });
        (200, answer)
    }
}

/// When something ends that is renewed, and what is said of that: whole seconds that are left.
fn renewed(ttl: u64, max: Instant) -> (Instant, u64) {
    let now = Instant::now();
    match now + Duration::from_secs(ttl) {
        ends if ends <= max => (ends, ttl),
        _ => (max, (max - now).as_secs()),
    }
}

fn auth(token: &str, ttl: u64, renewable: bool) -> Value {
    json!({ "auth": { "client_token": token, "accessor": "a", "policies": ["default"], "lease_duration": ttl,
                      "renewable": renewable, "token_type": "service" }, "data": null })
}
