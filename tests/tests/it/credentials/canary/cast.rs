//! Credentials of every kind, from every source, each with secrets of its own; and for each kind some that cannot work.
//!
//! Which kinds, grants and sources there are, the schema of the policy says: one that is added there and not here fails the test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Map, Value, json};
use tests::{RAW_ADDRESS, World};

use super::search::Canaries;
use crate::credentials::mtls::Authority;

const SCHEMA: &str = include_str!("../../../../../proxy-policy/schema/policy.json");
/// Where the daemon says who its bots are.
pub(super) const ISSUER: &str = "http://127.0.0.1:8765";

/// One credential.
pub(super) struct Role {
    pub(super) name: String,
    pub(super) host: &'static str,
    /// Whether calls can have it.
    pub(super) works: bool,
}

/// All of them, and what a world needs for them.
pub(super) struct Cast<'a> {
    world: &'a World,
    authority: Authority,
    pub(super) roles: Vec<Role>,
    pub(super) canaries: Canaries,
    /// Variables of the daemon's environment that are secrets.
    pub(super) variables: Vec<String>,
    definitions: String,
    grants: String,
    expected: Map<String, Value>,
    hashicorp: Map<String, Value>,
    programs: BTreeMap<String, String>,
    /// Kinds of those that cannot work.
    wrong: Vec<String>,
}

/// A word nobody guesses, with characters that every place spells in its own way.
pub(super) fn random() -> String {
    let bytes: [u8; 24] = std::array::from_fn(|_| rand());
    let (a, b) = bytes.split_at(12);
    let hex = |half: &[u8]| half.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{}/+=%&~{}", hex(a), hex(b))
}

fn rand() -> u8 {
    use std::io::Read as _;
    let mut byte = [0];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut byte).unwrap();
    byte[0]
}

/// What the schema lists at a place.
fn listed(pointer: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let all = schema.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("no {pointer}"));
    all.iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// The sources that a reference may begin with.
fn sources() -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let pattern = schema.pointer("/$defs/secret/pattern").unwrap().as_str().unwrap();
    let begins = pattern.split(['(', '|', '^']).filter_map(|part| part.split_once(':'));
    let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|it| it.is_ascii_lowercase());
    begins.map(|(name, _)| name).filter(is_name).map(str::to_owned).collect()
}

/// The places of `inject`.
fn places() -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let all = schema.pointer("/$defs/api/properties/inject/properties").unwrap().as_object().unwrap();
    all.keys().filter(|key| !["value", "in"].contains(&key.as_str())).cloned().collect()
}

fn private(pem: &str) -> &str {
    &pem[pem.find("-----BEGIN PRIVATE KEY").unwrap()..]
}

/// A key of P-256.
fn key() -> String {
    rcgen::KeyPair::generate().unwrap().serialize_pem()
}

/// A key as GitHub hands it out.
fn rsa() -> String {
    let made = Command::new("openssl").args(["genrsa", "-traditional", "2048"]).output().unwrap();
    String::from_utf8(made.stdout).unwrap()
}

impl<'a> Cast<'a> {
    pub(super) fn of(world: &'a World) -> Self {
        let mut cast = Self {
            world,
            authority: Authority::new(),
            roles: Vec::new(),
            canaries: Canaries::default(),
            variables: Vec::new(),
            definitions: String::new(),
            grants: String::new(),
            expected: Map::new(),
            hashicorp: Map::new(),
            programs: BTreeMap::new(),
            wrong: Vec::new(),
        };
        let sources = sources();
        assert!(sources.len() >= 6 && sources.contains(&"vault".to_owned()), "{sources:?}");
        let kinds = listed("/$defs/credential/properties/kind/enum");
        for kind in &kinds {
            sources.iter().for_each(|source| cast.kind(kind, source));
            cast.wrong(kind);
        }
        places().iter().for_each(|place| cast.place(place));
        cast.issued();
        cast.wrong_sources();
        let missing: Vec<_> = kinds.iter().filter(|kind| !cast.wrong.contains(*kind)).collect();
        assert!(missing.is_empty(), "none of these kinds is tried with a secret that is wrong: {missing:?}");
        cast
    }

    /// Puts a secret where the source has it; the reference to it.
    fn put(&mut self, source: &str, name: &str, value: &str) -> String {
        match source {
            "vault" => {
                self.world.secret(name, value);
                format!("vault:{name}")
            }
            "systemd" => {
                self.file(&format!("unit/{name}"), value, 0o400);
                format!("systemd:{name}")
            }
            "file" => format!("file:{}", self.file(&format!("keys/{name}"), value, 0o600)),
            "env" => {
                let variable = name.to_uppercase().replace('-', "_");
                self.world.variable(&variable, value);
                self.variables.push(format!("{variable}="));
                format!("env:{variable}")
            }
            "hashicorp" => {
                self.hashicorp.insert(name.to_owned(), json!([{ "key": value }]));
                format!("hashicorp:secret/{name}#key")
            }
            "exec" => {
                let path = self.file(&format!("printed/{name}"), value, 0o600);
                let noise = random_of(&mut self.canaries, name);
                self.program(name, &format!("cat {path}\necho '{noise}' >&2\n"));
                format!("exec:{name}")
            }
            other => {
                panic!("the source {other}: is not covered here: put a secret there, and give its reference")
            }
        }
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.world.write(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    /// A program of `[exec.NAME]`, which also tells what of the daemon it can see.
    fn program(&mut self, name: &str, script: &str) {
        let path = self.tool(name, script);
        self.programs.insert(name.to_owned(), path);
    }

    fn tool(&self, name: &str, script: &str) -> String {
        let seen = self.world.path("seen.log").display().to_string();
        let look = format!("cat /proc/$$/environ /proc/$$/cmdline >>{seen}\n");
        self.world
            .program(&format!("tools/{name}"), &format!("#!/bin/sh\n{look}{script}"))
            .display()
            .to_string()
    }

    /// A new secret of random characters, put where the source has it.
    fn word(&mut self, source: &str, name: &str) -> (String, String) {
        let value = random_of(&mut self.canaries, name);
        (self.put(source, name, &value), value)
    }

    fn pem(&mut self, source: &str, name: &str, pem: &str) -> String {
        self.canaries.add_pem(name, pem);
        self.put(source, name, pem)
    }

    /// A credential with this definition that the API knows in this way.
    fn add(&mut self, host: &'static str, name: &str, definition: &str, how: &str, secret: &str, key: &str) {
        let works = !name.starts_with("wrong");
        let probe = format!("probe = \"GET https://{host}/{name}/ok\"");
        // A body is needed where a placeholder stands in it.
        let probe = if host == "placeholder.raw.test" { "" } else { &probe };
        writeln!(self.definitions, "[credential.{name}]\n{definition}\n{probe}\n").unwrap();
        let api = host.split('.').next().unwrap();
        let allow = format!("allow = [\"* /{name}/**\"]");
        writeln!(self.grants, "[[grant]]\napi = \"{api}\"\n{allow}\ncredential = \"{name}\"\n").unwrap();
        self.expected.insert(name.to_owned(), json!({ "how": how, "secret": secret, "key": key }));
        self.roles.push(Role { name: name.to_owned(), host, works });
    }

    /// A credential that works, of this kind, from this source.
    fn kind(&mut self, kind: &str, source: &str) {
        let name = &*format!("{kind}-{source}");
        match kind {
            "static" => {
                let (at, value) = self.word(source, name);
                self.add(
                    BEARER,
                    name,
                    &format!("kind = \"static\"\nsecret = \"{at}\""),
                    "bearer",
                    &value,
                    "",
                );
            }
            "jwt" => {
                let pem = key();
                let at = self.pem(source, name, &pem);
                let per = if source == "vault" { "call" } else { "ttl" };
                let definition = format!(
                    "kind = \"jwt\"\nkey = \"{at}\"\nalgorithm = \"ES256\"\naudience = \"https://raw.test\"\nper = \"{per}\""
                );
                self.add(BEARER, name, &definition, "jwt", "", &pem);
            }
            "mtls" => {
                let bundle = self.authority.issue(name);
                let at = self.pem(source, name, &bundle);
                self.add(SIGNED, name, &format!("kind = \"mtls\"\ncertificate = \"{at}\""), "mtls", "", "");
            }
            "github-app" => {
                let at = self.pem(source, name, &rsa());
                self.add(BEARER, name, &github(&at, name), "issued", "", "");
            }
            "oauth2" => {
                for grant in listed("/$defs/credential-oauth2/properties/grant/enum") {
                    self.oauth2(&grant, source);
                }
            }
            "exec" => self.printed(source),
            "aws" => {
                let (at, value) = self.word(source, name);
                let (session, _) = self.word(source, &format!("{name}-session"));
                self.add(
                    SIGNED,
                    name,
                    &aws(&format!("{}\nsession_token = \"{session}\"", pair(&at))),
                    "aws",
                    &value,
                    "",
                );
                let both = &*format!("aws-pair-{source}");
                let value = random_of(&mut self.canaries, both);
                let text = json!({ "AccessKeyId": "AKIDCANARY", "SecretAccessKey": value }).to_string();
                let at = self.put(source, both, &text);
                self.add(SIGNED, both, &aws(&format!("access_key = \"{at}\"")), "aws", &value, "");
                let role = &*format!("aws-role-{source}");
                let (at, _) = self.word(source, role);
                self.add(SIGNED, role, &aws(&format!("{}\n{}", pair(&at), sts(role))), "aws", "", "");
                if !["hashicorp", "exec"].contains(&source) {
                    let web = &*format!("aws-web-{source}");
                    let (at, _) = self.word(source, web);
                    let definition = aws(&format!("web_identity = \"{at}\"\n{}", sts(web)));
                    self.add(SIGNED, web, &definition, "aws", "", "");
                }
            }
            "hmac" => {
                let (at, value) = self.word(source, name);
                self.add(SIGNED, name, &hmac(&at, "text"), "hmac", &value, "");
            }
            other => panic!(
                "the kind {other} is not covered here: add a credential of it, and one that cannot work"
            ),
        }
    }

    fn oauth2(&mut self, grant: &str, source: &str) {
        let short = grant.replace('_', "-");
        match grant {
            "client_credentials" => {
                for auth in listed("/$defs/credential-oauth2/properties/auth/enum") {
                    let name = &*format!("client-{}-{source}", auth.replace('_', "-"));
                    let proof = match auth.as_str() {
                        "basic" | "post" => format!("client_secret = \"{}\"", self.word(source, name).0),
                        "private_key_jwt" => {
                            let at = self.pem(source, name, &key());
                            format!("client_key = \"{at}\"\nclient_algorithm = \"ES256\"")
                        }
                        "mtls" => {
                            let bundle = self.authority.issue(name);
                            format!("client_certificate = \"{}\"", self.pem(source, name, &bundle))
                        }
                        // What is shown proves enough: the other grants.
                        "none" => continue,
                        other => panic!("the proof of a client by {other} is not covered here"),
                    };
                    let definition = oauth2(grant, name, &format!("auth = \"{auth}\"\n{proof}"));
                    self.add(BEARER, name, &definition, "issued", "", "");
                }
            }
            "refresh_token" if source != "vault" => {}
            "refresh_token" => {
                let name = &*format!("{short}-{source}");
                let (at, _) = self.word(source, name);
                let definition = oauth2(grant, name, &format!("refresh_token = \"{at}\""));
                self.add(BEARER, name, &definition, "issued", "", "");
            }
            "jwt_bearer" => {
                let name = &*format!("{short}-{source}");
                let at = self.pem(source, name, &key());
                let definition = oauth2(grant, name, &assertion(&at));
                self.add(BEARER, name, &definition, "issued", "", "");
            }
            "token_exchange" => {
                let name = &*format!("{short}-{source}");
                let (subject, _) = self.word(source, name);
                let (actor, _) = self.word(source, &format!("{name}-actor"));
                let tokens = format!("subject_token = \"{subject}\"\nactor_token = \"{actor}\"");
                self.add(BEARER, name, &oauth2(grant, name, &tokens), "issued", "", "");
            }
            other => panic!("the grant {other} is not covered here: add a credential with it"),
        }
    }

    /// What a program prints is its own source; each of the sources stands for a shape of what it prints.
    fn printed(&mut self, source: &str) {
        let name = &*format!("exec-{source}");
        let value = format!("{}.", random_of(&mut self.canaries, name).replace(['%', '&'], ""));
        self.canaries.add(name, value.as_bytes());
        let shape = match source {
            "vault" => format!("{{\"credential\": \"{value}$1\", \"expires_in\": 300}}"),
            "file" => format!("{{\"token\": \"{value}$1\", \"expires_in\": 1}}"),
            _ => format!("{{\"kind\": \"ExecCredential\", \"status\": {{\"token\": \"{value}$1\"}}}}"),
        };
        let noise = random_of(&mut self.canaries, name);
        let tool = self.tool(name, &format!("echo '{noise}' >&2\necho \"{}\"\n", shape.replace('"', "\\\"")));
        let definition = format!("kind = \"exec\"\ncommand = [\"{tool}\", \"{{identity}}\"]");
        self.add(BEARER, name, &definition, "prefix", &value, "");
    }

    /// A static credential in each place of a request.
    fn place(&mut self, place: &str) {
        let name = &*format!("static-{place}");
        let host = match place {
            "header" => return, // All others are there.
            "basic" => "basic.raw.test",
            "query" => "query.raw.test",
            "cookie" => "cookie.raw.test",
            "placeholder" => "placeholder.raw.test",
            other => panic!("the place {other} is not covered here: add an API with it"),
        };
        let (at, value) = self.word("vault", name);
        self.add(host, name, &format!("kind = \"static\"\nsecret = \"{at}\""), place, &value, "");
    }

    /// Those of this host as an issuer: no secret is anywhere, and the tokens are.
    fn issued(&mut self) {
        let own = "kind = \"jwt\"\naudience = \"https://raw.test\"";
        self.add(BEARER, "jwt-issuer", own, "issuer", "", "");
        let own =
            oauth2("jwt_bearer", "jwt-bearer-issuer", "assertion = { audience = \"https://raw.test\" }");
        self.add(BEARER, "jwt-bearer-issuer", &own, "issued", "", "");
        let subject = "subject_token = \"issuer:https://raw.test\"";
        let own = oauth2("token_exchange", "exchange-issuer", subject);
        self.add(BEARER, "exchange-issuer", &own, "issued", "", "");
        let own = aws(&format!("web_identity = \"issuer:sts.test\"\n{}", sts("aws-web-issuer")));
        self.add(SIGNED, "aws-web-issuer", &own, "aws", "", "");
    }

    /// What cannot work, of this kind: a secret that is none, or that the server refuses while it repeats what it got.
    fn wrong(&mut self, kind: &str) {
        let name = &*format!("wrong-{kind}");
        let refused = &*format!("wrong-{kind}-refused");
        match kind {
            "static" => {
                let (one, two) = (random(), random());
                self.canaries.add(name, one.as_bytes());
                self.canaries.add(name, two.as_bytes());
                let at = self.put("vault", name, &format!("{one}\n{two}"));
                self.add(BEARER, name, &format!("kind = \"static\"\nsecret = \"{at}\""), "bearer", "", "");
            }
            "jwt" => {
                let (at, _) = self.word("vault", name);
                let definition =
                    format!("kind = \"jwt\"\nkey = \"{at}\"\nalgorithm = \"ES256\"\naudience = \"a\"");
                self.add(BEARER, name, &definition, "jwt", "", "");
                // Of another algorithm.
                let at = self.pem("vault", refused, &key());
                let definition = definition.replace("ES256", "RS256").replace(name, &at["vault:".len()..]);
                self.add(BEARER, refused, &definition, "jwt", "", "");
            }
            "mtls" => {
                let bundle = self.authority.issue(name);
                let word = random_of(&mut self.canaries, name);
                let begin = "-----BEGIN PRIVATE KEY-----\n";
                let broken = bundle.replace(begin, &format!("{begin}{word}\n"));
                self.canaries.add_pem(name, private(&bundle));
                let at = self.put("vault", name, &broken);
                self.add(SIGNED, name, &format!("kind = \"mtls\"\ncertificate = \"{at}\""), "mtls", "", "");
            }
            "github-app" => {
                let (at, _) = self.word("vault", name);
                self.add(BEARER, name, &github(&at, name), "issued", "", "");
                let at = self.pem("vault", refused, &rsa());
                self.add(BEARER, refused, &github(&at, refused), "issued", "", "");
            }
            "oauth2" => {
                let secret = format!("auth = \"basic\"\nclient_secret = \"{}\"", self.word("vault", name).0);
                self.add(BEARER, name, &oauth2("client_credentials", name, &secret), "issued", "", "");
                let garbage = "wrong-oauth2-garbage";
                let post = format!("auth = \"post\"\nclient_secret = \"{}\"", self.word("vault", garbage).0);
                self.add(BEARER, garbage, &oauth2("client_credentials", garbage, &post), "issued", "", "");
                for (grant, field) in
                    [("refresh_token", "refresh_token"), ("token_exchange", "subject_token")]
                {
                    let name = &*format!("wrong-{}", grant.replace('_', "-"));
                    let proof = format!("{field} = \"{}\"", self.word("vault", name).0);
                    self.add(BEARER, name, &oauth2(grant, name, &proof), "issued", "", "");
                }
                let name = "wrong-jwt-bearer";
                let at = self.pem("vault", name, &key());
                self.add(BEARER, name, &oauth2("jwt_bearer", name, &assertion(&at)), "issued", "", "");
            }
            "exec" => {
                let word = random_of(&mut self.canaries, name);
                for (name, script) in [
                    (name, format!("echo '{word}'\necho '{word}' >&2\n")),
                    (refused, format!("echo '{{\"token\": \"{word}\"}}'\necho '{word}' >&2\nexit 9\n")),
                    (
                        "wrong-exec-json",
                        format!(
                            "echo '{{\"token\": \"{word}\", \"{word}\": 1, \"expires_in\": \"{word}\"}}'\n"
                        ),
                    ),
                ] {
                    let tool = self.tool(name, &script);
                    let definition = format!("kind = \"exec\"\ncommand = [\"{tool}\"]");
                    self.add(BEARER, name, &definition, "prefix", "", "");
                }
            }
            "aws" => {
                // Nothing of a text that is no pair of keys is told.
                let at = self.word("vault", refused).0;
                self.add(SIGNED, refused, &aws(&format!("access_key = \"{at}\"")), "aws", "", "");
                let (at, _) = self.word("vault", name);
                let definition = aws(&format!("{}\n{}", pair(&at), sts(name)));
                self.add(SIGNED, name, &definition, "aws", "", "");
            }
            "hmac" => {
                let (at, _) = self.word("vault", name);
                self.add(SIGNED, name, &hmac(&at, "base64"), "hmac", "", "");
            }
            // Whoever adds a kind is told by `kind`.
            _ => return,
        }
        self.wrong.push(kind.to_owned());
    }

    /// Secrets that their source does not give, though it could.
    fn wrong_sources(&mut self) {
        let word = random_of(&mut self.canaries, "wrong-source");
        let file = self.file("keys/wrong", &word, 0o644);
        self.file("unit/wrong", &word, 0o444);
        self.hashicorp.insert("wrong".into(), json!([{ "key": &word, &word: "1" }]));
        self.program("wrong", &format!("echo '{word}'\necho '{word}' >&2\nexit 9\n"));
        for (name, at) in [
            ("wrong-vault-source", "vault:not-there"),
            ("wrong-file-source", &*format!("file:{file}")),
            ("wrong-systemd-source", "systemd:wrong"),
            ("wrong-env-source", "env:NOT_THERE"),
            ("wrong-hashicorp-source", "hashicorp:secret/wrong#other"),
            ("wrong-exec-source", "exec:wrong"),
        ] {
            self.add(BEARER, name, &format!("kind = \"static\"\nsecret = \"{at}\""), "bearer", &word, "");
        }
    }

    /// Writes policies, configuration and the servers' side, and starts the servers.
    pub(super) fn enter(&mut self) {
        let world = self.world;
        world.without_identities();
        let place = |name: &str, inject: &str| {
            format!("[api.{name}]\nhosts = [\"{name}.raw.test\"]\ninject = {{ {inject} }}\n")
        };
        let apis = [
            "[api.bearer]\nhosts = [\"bearer.raw.test\"]\n\
             inject = { header = \"authorization\", value = \"Bearer {secret}\" }\n"
                .to_owned(),
            "[api.signed]\nhosts = [\"signed.raw.test\"]\n".to_owned(),
            place("basic", "basic = \"me:{secret}\""),
            place("query", "query = \"key\""),
            place("cookie", "cookie = \"sid\""),
            place("placeholder", "placeholder = \"vouchsafe-canary\", in = [\"body\"]"),
        ];
        world.policy("apis/apis.toml", &apis.concat());
        world.policy("credentials/cast.toml", &self.definitions);
        fs::remove_file(world.path("etc/credentials/demo-key.toml")).unwrap();
        let bot = format!("[identity]\nexe = \"{{root}}/bots/curl\"\n\n{}", self.grants);
        world.policy("policies/curl.toml", &bot);
        let names: Vec<_> = apis.iter().filter_map(|it| Some(it.split('"').nth(1)?.to_owned())).collect();
        world.write("hosts", &format!("127.0.0.1 localhost\n{RAW_ADDRESS} raw.test {}\n", names.join(" ")));
        world.set("issuer.url", &format!("\"{ISSUER}\""));
        world.set("issuer.listen", "\"127.0.0.1:8765\"");
        for (name, path) in &self.programs {
            world.set(&format!("exec.{name}"), &format!("{{ command = [\"{path}\"] }}"));
        }
        let id = random_of(&mut self.canaries, "the login at HashiCorp Vault");
        world.secret("secret-id", &id);
        world.set("hashicorp.address", "\"http://127.0.0.1:8200\"");
        world.set("hashicorp.approle", "{ role_id = \"role\", secret_id = \"vault:secret-id\" }");
        world.variable("CREDENTIALS_DIRECTORY", world.path("unit").to_str().unwrap());
        world.write("vault.js", super::super::sources::VAULT);
        world.write("vault.json", &Value::Object(self.hashicorp.clone()).to_string());
        world.server("vault", "node", &["vault.js", "8200", &id, "unused"], "127.0.0.1:8200");
        world.write("expect.json", &Value::Object(self.expected.clone()).to_string());
        world.write("canary.js", include_str!("../receivers/canary.js"));
        let arguments = ["canary.js", RAW_ADDRESS, "api/server.pem", "api/server.key"];
        world.server("receiver", "node", &arguments, &format!("{RAW_ADDRESS}:443"));
    }

    /// The API of this credential takes another secret, too.
    pub(super) fn takes_also(&mut self, name: &str, value: &str) {
        self.expected[name]["also"] = json!([value]);
    }
}

const BEARER: &str = "bearer.raw.test";
const SIGNED: &str = "signed.raw.test";

/// A new word, to be looked for under this name.
pub(super) fn random_of(canaries: &mut Canaries, name: &str) -> String {
    let value = random();
    canaries.add(name, value.as_bytes());
    value
}

fn github(at: &str, name: &str) -> String {
    format!(
        "kind = \"github-app\"\napp_id = 77\nprivate_key = \"{at}\"\ninstallation_id = 42\nrepositories = [\"site\"]\n\
         permissions = {{ contents = \"read\" }}\napi_url = \"https://raw.test/github/{name}\""
    )
}

fn oauth2(grant: &str, name: &str, more: &str) -> String {
    format!(
        "kind = \"oauth2\"\ngrant = \"{grant}\"\ntoken_url = \"https://raw.test/token/{name}\"\nclient_id = \"bot\"\n{more}"
    )
}

fn assertion(at: &str) -> String {
    format!(
        "assertion = {{ key = \"{at}\", algorithm = \"ES256\", issuer = \"bot\", subject = \"{{identity}}\", audience = \"a\" }}"
    )
}

fn pair(at: &str) -> String {
    format!("access_key_id = \"AKIDCANARY\"\nsecret_access_key = \"{at}\"")
}

fn aws(more: &str) -> String {
    format!("kind = \"aws\"\nregion = \"eu-central-1\"\nservice = \"execute-api\"\n{more}")
}

fn sts(name: &str) -> String {
    format!("role_arn = \"arn:aws:iam::123456789012:role/bot\"\nsts_url = \"https://raw.test/sts/{name}\"")
}

fn hmac(at: &str, encoding: &str) -> String {
    format!(
        "kind = \"hmac\"\nsecret = \"{at}\"\nkey_encoding = \"{encoding}\"\nsign = \"{{method}}{{path}}\"\n\
         headers = {{ X-Signature = \"{{signature}}\" }}"
    )
}
