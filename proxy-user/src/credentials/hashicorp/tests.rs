//! Secrets of a server that follows the published API, as sources and credentials get them.

use http::header::AUTHORIZATION;

use super::server::{ROOT, SECRET_ID, Server};
use super::*;
use crate::credentials::canary::Log;
use crate::credentials::jws::tests::verified;
use crate::credentials::live::tests::{World, attached, issuer, policy};
use crate::credentials::live::{Credentials, LiveCredential};
use crate::credentials::provider::{Ask, AskedBy};
use crate::credentials::sources::Sources;
use crate::credentials::{CredentialError, Inject};

const APPROLE: &str = "[hashicorp.approle]\nrole_id = \"role-1\"\nsecret_id = \"vault:secret-id\"";

struct Scene {
    server: Server,
    world: World,
    sources: Arc<Sources>,
}

/// A daemon that logs in by its role.
async fn scene() -> Scene {
    with_login(APPROLE).await
}

async fn with_login(login: &str) -> Scene {
    let (server, world) = (Server::start().await, World::new());
    world.set("secret-id", SECRET_ID.as_bytes());
    world.set("token", ROOT.as_bytes());
    let sources = Arc::new(Sources::new(world.store.clone()));
    sources.reach(Some(&server.settings(login)), config::Programs::new(), &world.outcall(), None);
    Scene { server, world, sources }
}

fn reference(text: &str) -> SecretRef {
    SecretRef::parse(text).unwrap()
}

impl Scene {
    /// The text and the version, or what is told to the operator.
    async fn fetch(&self, text: &str) -> Result<(String, u64), String> {
        told(self.sources.fetch(&reference(text)).await)
    }

    fn at_hand(&self, text: &str) -> Option<Result<(String, u64), String>> {
        self.sources.held(&reference(text)).map(told)
    }

    async fn text(&self, reference: &str) -> String {
        self.fetch(reference).await.unwrap().0
    }
}

fn told(held: Result<Held, SourceError>) -> Result<(String, u64), String> {
    let text = |held: &Held| String::from_utf8(held.secret.expose().to_vec()).unwrap();
    held.map(|held| (text(&held), held.version)).map_err(|error| error.to_string())
}

/// Waits for a condition, and not for a time.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_secret_is_read_where_its_engine_has_it() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("key", "one\n")]);
    scene.server.put_kv2("app", &[("key", "old")]);
    scene.server.put_kv2("app", &[("key", "two")]);
    scene.server.put_kv2("deep/er", &[("key", "three")]);
    assert_eq!(scene.fetch("hashicorp:kv1/app#key").await, Ok(("one".to_owned(), 1)));
    assert_eq!(
        scene.fetch("hashicorp:kv2/app#key").await,
        Ok(("two".to_owned(), 2)),
        "the version of the engine"
    );
    assert_eq!(scene.text("hashicorp:kv2/deep/er#key").await, "three");
    // As it stands in the API, it is the same one.
    assert_eq!(scene.text("hashicorp:kv2/data/app#key").await, "two");
    assert_eq!(scene.server.asked("POST /v1/auth/approle/login"), 1);
}

#[tokio::test]
async fn where_engines_are_hidden_a_path_is_taken_as_it_stands() {
    let scene = scene().await;
    scene.server.state().hides_mounts = true;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    scene.server.put_kv2("app", &[("key", "two")]);
    assert_eq!(scene.text("hashicorp:kv1/app#key").await, "one");
    assert_eq!(scene.fetch("hashicorp:kv2/data/app#key").await, Ok(("two".to_owned(), 1)));
    let error = scene.fetch("hashicorp:kv2/app#key").await.unwrap_err();
    assert!(error.contains("kv2/app: there is nothing"), "{error}");
    assert_eq!(
        scene.server.asked("POST /v1/auth/approle/login"),
        1,
        "a hidden engine is no reason to log in again"
    );
}

#[tokio::test]
async fn a_namespace_goes_with_every_call() {
    let scene = with_login(&format!("namespace = \"team/bots\"\n{APPROLE}")).await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    scene.text("hashicorp:kv1/app#key").await;
    let state = scene.server.state();
    assert!(state.namespaces.iter().all(|it| it.as_deref() == Some("team/bots")), "{:?}", state.namespaces);
}

#[tokio::test]
async fn those_who_start_cold_read_a_path_once_together() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("user", "me"), ("key", "one")]);
    assert!(scene.at_hand("hashicorp:kv1/app#key").is_none(), "nothing waits, and nothing is made up");
    let all = (0..20).map(|number| {
        let sources = Arc::clone(&scene.sources);
        let field = if number % 2 == 0 { "user" } else { "key" };
        tokio::spawn(
            async move { told(sources.fetch(&reference(&format!("hashicorp:kv1/app#{field}"))).await) },
        )
    });
    for each in all.collect::<Vec<_>>() {
        each.await.unwrap().unwrap();
    }
    assert_eq!(scene.server.asked("GET /v1/kv1/app"), 1);
    assert_eq!(scene.at_hand("hashicorp:kv1/app#user"), Some(Ok(("me".to_owned(), 1))));
}

#[tokio::test]
async fn what_a_policy_names_is_read_before_it_is_needed() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    scene.sources.prepare(&[&reference("hashicorp:kv1/app#key")]);
    scene.sources.follow();
    until("it is at hand", async || scene.at_hand("hashicorp:kv1/app#key").is_some()).await;
}

#[tokio::test]
async fn a_secret_that_changes_has_another_version_and_one_that_does_not_stays_the_same() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    scene.server.put_kv2("app", &[("key", "one")]);
    let [first, second] = ["hashicorp:kv1/app#key", "hashicorp:kv2/app#key"];
    let before = scene.sources.fetch(&reference(first)).await.ok().unwrap();
    scene.text(second).await;
    scene.sources.reload().unwrap();
    until("it was read again", async || scene.server.asked("GET /v1/kv1/app") == 2).await;
    let same = scene.sources.fetch(&reference(first)).await.ok().unwrap();
    assert!(Arc::ptr_eq(&before.secret, &same.secret) && before.version == same.version);

    scene.server.put_kv1("kv1/app", &[("key", "two")]);
    (0..4).for_each(|number| scene.server.put_kv2("app", &[("key", &format!("two{number}"))]));
    scene.sources.reload().unwrap();
    until("both are new", async || {
        scene.fetch(first).await == Ok(("two".to_owned(), 2))
            && scene.fetch(second).await == Ok(("two3".to_owned(), 5))
    })
    .await;
    // Somebody removed it with all its versions, and wrote another one.
    scene.server.state().kv2.remove("app");
    scene.server.put_kv2("app", &[("key", "three")]);
    scene.sources.reload().unwrap();
    until("it is new", async || scene.fetch(second).await == Ok(("three".to_owned(), 6))).await;
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_told_with_its_path_and_one_that_is_gone_is_gone() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("key", "one"), ("empty", "")]);
    scene.server.put_kv2("app", &[("key", "two")]);
    for (text, says) in [
        ("hashicorp:kv1/other#key", "kv1/other: there is nothing"),
        ("hashicorp:kv1/app#other", "kv1/app of [hashicorp] has no field other"),
        ("hashicorp:kv1/app#empty", "nothing in its field"),
        ("hashicorp:nowhere/app#key", "nowhere/app: there is nothing"),
    ] {
        let error = scene.fetch(text).await.unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
    assert_eq!(scene.text("hashicorp:kv2/app#key").await, "two");
    scene.server.state().kv2.get_mut("app").unwrap().push(None);
    scene.sources.reload().unwrap();
    until("it is gone", async || {
        matches!(scene.fetch("hashicorp:kv2/app#key").await, Err(error) if error.contains("was deleted"))
    })
    .await;
    let peeked = scene.sources.peek(&reference("hashicorp:kv2/app#key")).map(told);
    assert!(matches!(peeked, Some(Err(error)) if error.contains("was deleted")));
}

#[tokio::test]
async fn all_fields_of_a_path_are_of_one_lease() {
    let scene = scene().await;
    let user = scene.text("hashicorp:database/creds/readonly#username").await;
    let password = scene.text("hashicorp:database/creds/readonly#password").await;
    assert_eq!(user.replace("user", "CANARY-password"), password);
    assert_eq!(scene.server.asked("GET /v1/database/creds/readonly"), 1);
    scene.text("hashicorp:database/creds/writer#password").await;
    assert_eq!(scene.server.state().leases.len(), 2);
}

#[tokio::test]
async fn a_lease_is_renewed_while_it_is_used_and_had_anew_when_it_cannot_be() {
    let scene = scene().await;
    // Renewed to the seventh second at most.
    (scene.server.state().lease_ttl, scene.server.state().lease_max) = (3, 7);
    let password = "hashicorp:database/creds/readonly#password";
    let first = scene.text(password).await;
    let mut next = first.clone();
    until("it is another one", async || {
        next = scene.text(password).await;
        assert!(scene.server.state().opens(&next), "what is given out is alive");
        next != first
    })
    .await;
    assert!(scene.server.asked("PUT /v1/sys/leases/renew") >= 2);
    assert!(scene.server.asked("GET /v1/database/creds/readonly") == 2);
    // Nobody uses it: it ends by itself, and the next one who comes gets another.
    until("it has ended", async || {
        scene.server.state().leases.is_empty() || !scene.server.state().opens(&next)
    })
    .await;
    let third = scene.text(password).await;
    assert!(third != next && scene.server.state().opens(&third));
}

#[tokio::test]
async fn a_lease_that_is_gone_at_the_server_is_had_anew() {
    let scene = scene().await;
    scene.server.state().lease_ttl = 3;
    let password = "hashicorp:database/creds/readonly#password";
    let first = scene.text(password).await;
    scene.server.state().leases.clear();
    until("it is another one", async || scene.text(password).await != first).await;
    assert!(scene.server.asked("PUT /v1/sys/leases/renew") >= 1, "not by its end");
}

#[tokio::test]
async fn a_lease_that_no_reference_names_any_more_is_revoked() {
    let scene = scene().await;
    let [kept, gone] = ["hashicorp:database/creds/kept#password", "hashicorp:database/creds/gone#password"];
    scene.sources.prepare(&[&reference(kept), &reference(gone)]);
    scene.text(kept).await;
    scene.text(gone).await;
    scene.sources.prepare(&[&reference(kept)]);
    until("it is revoked", async || !scene.server.state().revoked.is_empty()).await;
    assert_eq!(scene.server.state().revoked, ["database/creds/gone"]);
    assert!(scene.at_hand(gone).is_none() && scene.at_hand(kept).is_some());
}

#[tokio::test]
async fn at_the_end_everything_is_given_back() {
    let scene = scene().await;
    for role in ["a", "b", "c"] {
        scene.text(&format!("hashicorp:database/creds/{role}#password")).await;
    }
    scene.sources.end().await;
    let mut state = scene.server.state();
    assert_eq!(state.revoked.pop().as_deref(), Some("token"), "the login is the last");
    state.revoked.sort();
    assert_eq!(state.revoked, ["database/creds/a", "database/creds/b", "database/creds/c"]);
    assert_eq!(state.tokens.len(), 1);
}

#[tokio::test]
async fn a_token_that_was_taken_back_is_had_anew_and_its_leases_are_not_used_any_more() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    let password = "hashicorp:database/creds/readonly#password";
    let first = scene.text(password).await;
    scene.server.revoke_tokens();
    // The next read finds that out.
    assert_eq!(scene.text("hashicorp:kv1/app#key").await, "one");
    assert_eq!(scene.server.asked("POST /v1/auth/approle/login"), 2);
    assert!(scene.at_hand(password).is_none(), "it went with its token");
    let second = scene.text(password).await;
    assert!(second != first && scene.server.state().opens(&second));
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end_and_had_anew_at_the_end_of_all_renewals() {
    let scene = scene().await;
    (scene.server.state().token_ttl, scene.server.state().token_max) = (3, 7);
    let password = "hashicorp:database/creds/readonly#password";
    until("it logged in again", async || {
        let password = scene.text(password).await;
        assert!(scene.server.state().opens(&password), "what is leased ends with its token");
        scene.server.asked("POST /v1/auth/approle/login") == 2
    })
    .await;
    assert!(scene.server.asked("POST /v1/auth/token/renew-self") >= 2);
}

#[tokio::test]
async fn a_login_that_is_refused_is_told_without_it_and_one_that_was_set_anew_is_tried_at_once() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    scene.world.set("secret-id", b"CANARY-other");
    scene.sources.reload().unwrap();
    for _ in 0..10 {
        let error = scene.fetch("hashicorp:kv1/app#key").await.unwrap_err();
        let says = ["400 (invalid role or secret ID)", "auth/approle/login", "vault:secret-id"];
        assert!(says.iter().all(|it| error.contains(it)) && !error.contains("CANARY"), "{error}");
    }
    assert_eq!(scene.server.asked("POST /v1/auth/approle/login"), 1, "it is left alone for a while");
    scene.world.set("secret-id", SECRET_ID.as_bytes());
    scene.sources.reload().unwrap();
    assert_eq!(scene.text("hashicorp:kv1/app#key").await, "one");
}

#[tokio::test]
async fn a_login_that_changes_is_used_with_the_next_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let write = |token: &str| {
        std::fs::write(&path, token).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write(ROOT);
    let scene = with_login(&format!("token = \"file:{}\"", path.display())).await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    scene.sources.prepare(&[&reference("hashicorp:kv1/app#key")]);
    scene.text("hashicorp:kv1/app#key").await;
    write("hvs.CANARY-other-token");
    // Seen, and seen to stand still.
    (0..2).for_each(|_| scene.sources.follow());
    let error = scene.fetch("hashicorp:kv1/other#key").await.unwrap_err();
    assert!(error.contains("it is not taken") && !error.contains("CANARY"), "{error}");
}

#[tokio::test]
async fn a_login_whose_secret_is_gone_reads_nothing_more() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    scene.server.put_kv1("kv1/other", &[("key", "two")]);
    scene.text("hashicorp:kv1/app#key").await;
    scene.world.store.remove(&"secret-id".parse().unwrap()).unwrap();
    scene.sources.reload().unwrap();
    let error = scene.fetch("hashicorp:kv1/other#key").await.unwrap_err();
    assert!(error.contains("vault:secret-id, is not there"), "{error}");
    assert_eq!(scene.server.asked("GET /v1/kv1/other"), 0);
}

#[tokio::test]
async fn a_path_that_may_not_be_read_is_no_reason_to_log_in_until_somebody_says_reload() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    scene.server.state().denied = vec!["kv1/app".to_owned()];
    for _ in 0..5 {
        let error = scene.fetch("hashicorp:kv1/app#key").await.unwrap_err();
        assert!(error.contains("kv1/app may not be read") && error.contains("vouchsafe reload"), "{error}");
    }
    assert_eq!(scene.server.asked("POST /v1/auth/approle/login"), 1);
    assert_eq!(scene.server.asked("GET /v1/kv1/app"), 1);
    scene.server.state().denied.clear();
    scene.sources.reload().unwrap();
    until("it is read", async || scene.fetch("hashicorp:kv1/app#key").await.is_ok()).await;
    assert_eq!(scene.server.asked("POST /v1/auth/approle/login"), 2, "rights are those of a login");
}

#[tokio::test]
async fn a_right_that_was_taken_away_ends_what_was_had() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    scene.text("hashicorp:kv1/app#key").await;
    scene.server.state().denied = vec!["kv1/app".to_owned()];
    scene.sources.reload().unwrap();
    until("it is refused", async || scene.fetch("hashicorp:kv1/app#key").await.is_err()).await;
    assert!(matches!(scene.at_hand("hashicorp:kv1/app#key"), Some(Err(_))));
}

#[tokio::test]
async fn who_does_not_answer_leaves_what_was_had_to_its_end() {
    let scene = scene().await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    scene.text("hashicorp:kv1/app#key").await;
    scene.server.state().is_sealed = true;
    scene.sources.reload().unwrap();
    until("it was asked", async || scene.server.asked("GET /v1/kv1/app") == 2).await;
    assert_eq!(scene.at_hand("hashicorp:kv1/app#key"), Some(Ok(("one".to_owned(), 1))));
    let error = scene.fetch("hashicorp:kv1/other#key").await.unwrap_err();
    assert!(error.contains("answered 503") && error.contains("sealed"), "{error}");
    scene.server.state().is_sealed = false;
}

#[tokio::test]
async fn a_token_that_somebody_else_got_is_used_as_long_as_it_is_taken() {
    let scene = with_login("token = \"vault:token\"").await;
    scene.server.put_kv1("kv1/app", &[("key", "one")]);
    assert_eq!(scene.text("hashicorp:kv1/app#key").await, "one");
    scene.sources.end().await;
    assert!(scene.server.state().tokens.contains_key(ROOT), "it is not the daemon's to give back");

    let scene = with_login("token = \"vault:token\"").await;
    scene.world.set("token", b"hvs.CANARY");
    scene.sources.reload().unwrap();
    let error = scene.fetch("hashicorp:kv1/app#key").await.unwrap_err();
    assert!(error.contains("vault:token") && !error.contains("CANARY"), "{error}");
}

#[tokio::test]
async fn the_daemon_logs_in_with_a_token_of_this_host_that_no_identity_can_have() {
    let (server, world) = (Server::start().await, World::new());
    let issuer = issuer(&world);
    issuer.published(&issuer.documents()).unwrap();
    let keys: serde_json::Value = serde_json::from_str(&issuer.documents().keys).unwrap();
    let key = keys["keys"][0].as_object().unwrap().clone();
    server.state().jwt = Some(Box::new(move |token| {
        let (_, claims) = verified(token, &key).unwrap();
        claims["sub"] == "_vouchsafe" && claims["aud"] == "https://vault.test"
    }));
    server.put_kv1("kv1/app", &[("key", "one")]);
    let settings = server.settings("[hashicorp.jwt]\nrole = \"bots\"\naudience = \"https://vault.test\"");
    let sources = Sources::new(world.store.clone());
    sources.reach(Some(&settings), config::Programs::new(), &world.outcall(), Some(&issuer));
    assert_eq!(told(sources.fetch(&reference("hashicorp:kv1/app#key")).await), Ok(("one".to_owned(), 1)));
    let name = "[identity]\nexe = \"/x\"\n".to_owned();
    let file = |path: &str| proxy_policy::SourceFile { path: path.into(), text: name.clone() };
    assert!(proxy_policy::compile(&[file("policies/_vouchsafe.toml")]).set.is_none());
    assert!(proxy_policy::compile(&[file("policies/vouchsafe.toml")]).set.is_some());
}

/// A place before a server that lets those through who show a certificate of an authority, and the authority's own one.
async fn demanding(server: &Server) -> (u16, String, rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = ca.self_signed(&key).unwrap();
    let authority = rcgen::Issuer::new(ca, key);
    let own = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&own, &authority)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let builder =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_client_cert_verifier(verifier.build().unwrap());
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![leaf.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), server.address);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                let mut plain = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
            });
        }
    });
    (port, root.pem(), authority)
}

#[tokio::test]
async fn the_daemon_logs_in_with_a_certificate_that_all_its_calls_show() {
    let (server, world) = (Server::start().await, World::new());
    server.put_kv1("kv1/app", &[("key", "one")]);
    let (port, root, authority) = demanding(&server).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("root.pem"), root).unwrap();
    let tls =
        crate::trust::UpstreamTls::new(&[folder.path().join("root.pem")], false, &[], Duration::from_secs(5));
    let key = rcgen::KeyPair::generate().unwrap();
    let own =
        rcgen::CertificateParams::new(vec!["bot".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    world.set("certificate", own.pem().as_bytes());
    world.set("key", key.serialize_pem().as_bytes());
    let login = "[hashicorp.tls]\ncertificate = \"vault:certificate\"\nkey = \"vault:key\"\nrole = \"bots\"";
    let text = format!("[hashicorp]\naddress = \"https://localhost:{port}\"\n{login}\n");
    let settings = config::Config::parse(std::path::Path::new("v.toml"), &text).unwrap().hashicorp.unwrap();
    let sources = Sources::new(world.store.clone());
    sources.reach(Some(&settings), config::Programs::new(), &Outcall::new(tls.unwrap()), None);
    assert_eq!(told(sources.fetch(&reference("hashicorp:kv1/app#key")).await), Ok(("one".to_owned(), 1)));

    world.set("key", rcgen::KeyPair::generate().unwrap().serialize_pem().as_bytes());
    sources.reload().unwrap();
    let error = told(sources.fetch(&reference("hashicorp:kv1/other#key")).await).unwrap_err();
    assert!(error.contains("hashicorp.tls.certificate is none with its key"), "{error}");
}

fn credential(credentials: &Credentials, secret: &str) -> Arc<LiveCredential> {
    credentials.adopt(&policy(&format!("kind = \"static\"\nsecret = \"{secret}\""))).pop().unwrap()
}

async fn sent(credential: &LiveCredential) -> Result<String, CredentialError> {
    let ask = Ask {
        identity: "bot",
        api: "stripe",
        host: "api.test",
        workload: AskedBy::default(),
        inject: Some(Inject::bearer()),
    };
    let attachment = match credential.ready(&ask) {
        Some(ready) => ready?,
        None => credential.provide(&ask).await?,
    };
    Ok(attached(&attachment)[AUTHORIZATION].to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_credential_gets_what_is_there_and_its_state_says_what_is_wrong() {
    let scene = scene().await;
    scene.server.put_kv2("app", &[("key", "one")]);
    let settings = scene.server.settings(APPROLE);
    let credentials = scene.world.credentials().reaching(Some(&settings), config::Programs::new());
    let good = credential(&credentials, "hashicorp:kv2/app#key");
    assert_eq!(good.state().version, None, "asks nobody");
    assert_eq!(sent(&good).await.unwrap(), "Bearer one");
    assert_eq!((good.state().version, good.state().since_s), (Some(1), Some(1_521_685_446)));
    let bad = credential(&credentials, "hashicorp:kv2/app#other");
    let error = sent(&bad).await.unwrap_err();
    assert!(error.client_text().contains("stripe is not set up") && error.to_string().contains("kv2/app"));
    assert!(bad.state().problem.unwrap().contains("no field other"));
}

#[tokio::test]
async fn a_reference_to_a_place_that_the_configuration_does_not_have_is_refused() {
    let world = World::new();
    for credentials in [world.credentials(), world.credentials().reaching(None, config::Programs::new())] {
        for (secret, says) in [("hashicorp:kv1/app#key", "[hashicorp]"), ("exec:pass", "[exec.")] {
            let credential = credential(&credentials, secret);
            let error = sent(&credential).await.unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("restart the daemon"), "{error}");
            assert!(credential.state().problem.unwrap().contains(says));
        }
    }
}

#[tokio::test]
async fn no_login_token_or_secret_is_in_a_log_at_any_level_or_in_an_error() {
    // The runtime has one thread, so all tasks are under it.
    let (log, _guard) = Log::begin();
    let scene = scene().await;
    let mut errors = Vec::new();
    scene.server.put_kv1("kv1/app", &[("key", "CANARY-value")]);
    let [key, password] = ["hashicorp:kv1/app#key", "hashicorp:database/creds/readonly#password"];
    assert_eq!(scene.text(key).await, "CANARY-value");
    scene.text(password).await;
    scene.server.put_kv1("kv1/app", &[("key", "CANARY-next")]);
    scene.sources.reload().unwrap();
    until("it is read", async || scene.text(key).await == "CANARY-next").await;
    scene.server.revoke_tokens();
    errors.extend(scene.fetch("hashicorp:kv1/none#key").await.err());
    scene.text(password).await;
    scene.sources.prepare(&[&reference(key)]);
    until("it is revoked", async || !scene.server.state().revoked.is_empty()).await;
    scene.world.set("secret-id", b"CANARY-other");
    scene.sources.reload().unwrap();
    errors.extend(scene.fetch("hashicorp:kv1/none2#key").await.err());
    scene.sources.end().await;
    assert_eq!(errors.len(), 2);
    let log = log.text();
    assert!(log.contains("kv1/app changed") && log.contains("logging in once more"), "{log}");
    for text in [&log, &errors.join("\n")] {
        assert!(!text.contains("CANARY"), "{text}");
        let numbers = format!("{:?}", b"CANARY");
        assert!(!text.contains(numbers.trim_matches(['[', ']'])), "{text}");
    }
}

#[tokio::test]
async fn what_the_server_says_of_itself_is_no_secret_below_a_namespace_either() {
    let scene = scene().await;
    for path in ["team/auth/token/lookup-self#id", "a/b/sys/raw#value", "team/auth/x/y#z"] {
        let refused = scene.fetch(&format!("hashicorp:{path}")).await.unwrap_err();
        assert!(refused.contains("below a namespace"), "{path}: {refused}");
    }
    let mount = |path: &str| Mount { path: path.to_owned(), is_versioned: true };
    assert!(!is_of_the_server("kv2/auth/keys", Some(&mount("kv2/"))), "a name in an engine that is known");
    assert!(is_of_the_server("team/auth/token/x", Some(&mount("team/auth/token/"))));
}

#[tokio::test]
async fn the_login_of_the_daemon_is_given_to_nobody_wherever_it_stands() {
    let scene = with_login("token = \"vault:token\"").await;
    scene.server.put_kv1("kv1/app", &[("copy", ROOT), ("key", "one")]);
    assert_eq!(scene.text("hashicorp:kv1/app#key").await, "one");
    let refused = scene.fetch("hashicorp:kv1/app#copy").await.unwrap_err();
    assert!(!refused.contains(ROOT), "{refused}");
}
