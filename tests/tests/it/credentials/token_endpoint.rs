//! `token_endpoint`: bots whose unmodified OAuth 2.0 client asks for its token itself, and is answered by the proxy.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;
use tests::upstream::Upstream;
use tests::{CANARY, Finished, STOLEN, World, wait_until};

use super::jwt::assert_nowhere;

const REQUIREMENTS: &str = include_str!("receivers/oauth-clients/requirements.txt");
/// What the bot was given in place of its client's secret.
const DUMMY: &str = "no-secret-of-any-client-at-all";
const STAND_IN: &str = "vouchsafe-stand-in-";

/// A world whose login server (`raw.test`) and API (`api.test`, which believes the real token alone) are two APIs of the policy; the
/// bots may ask the one for tokens and call the other.
fn world(endpoint: &str, grant: &str) -> World {
    let world = World::new();
    world.policy(
        "apis/apis.toml",
        &format!(
            "[api.login]\nhosts = [\"raw.test\"]\ntoken_endpoint = {endpoint}\n\n[api.demo]\nhosts = [\"api.test\"]\n\
             inject = {{ header = \"authorization\", value = \"Bearer {{secret}}\" }}\n"
        ),
    );
    world.without_identities();
    for (name, program) in [("curl", "curl"), ("python", "python3")] {
        world.policy(
            &format!("policies/{name}.toml"),
            &format!(
                "[identity]\nexe = \"{{root}}/bots/{program}\"\n\n[[grant]]\napi = \"login\"\n{grant}\n\n\
                 [[grant]]\napi = \"demo\"\nallow = [\"GET /v1/**\"]\ncredential = \"demo-key\"\n"
            ),
        );
    }
    world.set("log.level", "\"trace,aya=info,aya_obj=info\"");
    world
}

const USUAL: &str = "{ paths = [\"/oauth2/token\"], expires_in = \"30m\" }";
const MAY_ASK: &str = "allow = [\"POST /oauth2/token\"]";

/// What a bot prints that has the client libraries.
fn bot(world: &World, script: &str) -> Finished {
    static PACKAGES: OnceLock<std::path::PathBuf> = OnceLock::new();
    let packages: &Path = PACKAGES.get_or_init(|| super::packages::install("oauth-clients", REQUIREMENTS));
    let path = packages.display().to_string();
    let finished = world.bot("python3").env("PYTHONPATH", &path).args(["-c", script]).run();
    assert!(finished.code == Some(0), "{finished:?}");
    finished
}

/// The decision about this path, and its outcome.
fn recorded(world: &World, path: &str) -> (Value, Value) {
    let decision = world.decision(Some(path));
    let outcome = world.record("outcome", |record| record["id"] == decision["id"]);
    (decision, outcome)
}

fn places(outcome: &Value) -> Vec<&str> {
    outcome["removed"].as_array().unwrap().iter().map(|it| it["place"].as_str().unwrap()).collect()
}

#[test]
fn a_bot_with_an_unmodified_client_library_works_and_never_sees_the_token() {
    let world = world(USUAL, MAY_ASK);
    let login = Upstream::http2(&world);
    world.daemon();
    let script = format!(
        "import json\n\
         from oauthlib.oauth2 import BackendApplicationClient\n\
         from requests_oauthlib import OAuth2Session\n\
         session = OAuth2Session(client=BackendApplicationClient(client_id='any', scope=['read', 'write']))\n\
         token = session.fetch_token('https://raw.test/oauth2/token', client_id='any', client_secret='{DUMMY}')\n\
         answer = session.get('https://api.test/v1/x')\n\
         print(json.dumps([token, answer.status_code, answer.json(), dict(answer.headers)]))\n"
    );
    let told = bot(&world, &script);
    let said = told.json();
    let [token, status, answer, _] = &said.as_array().unwrap()[..] else { panic!("{told:?}") };
    assert_eq!((status, &answer["key"]), (&200.into(), &"ours".into()), "{told:?}");
    assert_eq!((&token["token_type"], &token["expires_in"]), (&"Bearer".into(), &1800.into()), "{told:?}");
    assert_eq!(token["scope"], serde_json::json!(["read", "write"]), "{told:?}");
    assert!(!told.stdout.contains(CANARY) && !told.stderr.contains(CANARY), "the bot has the token");
    // The API got the real one, and the one that the bot brought went out.
    assert_eq!(world.seen_at_least(1)[0]["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(places(&recorded(&world, "/v1/x").1), ["header authorization"]);
    // Nobody was asked, and the journal says all that.
    assert_eq!((login.connections(), login.count()), (0, 0));
    let (decision, outcome) = recorded(&world, "/oauth2/token");
    assert_eq!((&decision["verdict"], &decision["credential"]), (&"allow".into(), &Value::Null));
    assert_eq!(decision["rule"]["text"], "POST /oauth2/token", "{decision}");
    let reason = decision["reason"].as_str().unwrap();
    assert!(reason.ends_with("; the proxy answers it, as the token endpoint of login"), "{decision}");
    assert_eq!(
        (&outcome["answered"], &outcome["status"], &outcome["upstream"], &outcome["bytes_sent"]),
        (&true.into(), &200.into(), &Value::Null, &0.into()),
        "{outcome}"
    );
    assert_eq!(places(&outcome), ["header authorization"], "{outcome}");
    let id = decision["id"].as_str().unwrap();
    assert_eq!(token["access_token"], format!("{STAND_IN}{id}"), "whoever finds one knows where it is from");
    for secret in [CANARY, DUMMY] {
        assert_nowhere(&world, secret);
    }
}

#[test]
fn another_library_asks_again_when_its_token_is_over_and_refreshes_it() {
    let world = world(USUAL, MAY_ASK);
    let login = Upstream::http2(&world);
    world.daemon();
    let script = format!(
        "import json\n\
         from authlib.integrations.requests_client import OAuth2Session\n\
         def session(**more):\n\
         \x20   return OAuth2Session('any', '{DUMMY}', token_endpoint='https://raw.test/oauth2/token', **more)\n\
         said = []\n\
         own = session(grant_type='client_credentials', token_endpoint_auth_method='client_secret_post')\n\
         said.append(own.fetch_token()['access_token'])\n\
         said.append(own.get('https://api.test/v1/first').json()['key'])\n\
         own.token['expires_at'] = 1\n\
         said.append(own.get('https://api.test/v1/second').json()['key'])\n\
         said.append(own.token['access_token'])\n\
         theirs = session(token={{'access_token': 'over', 'token_type': 'Bearer', 'refresh_token': 'r-{DUMMY}', 'expires_at': 1}},\n\
         \x20   update_token=lambda token, **_: said.append(token['refresh_token']))\n\
         said.append(theirs.get('https://api.test/v1/third').json()['key'])\n\
         print(json.dumps(said))\n"
    );
    let told = bot(&world, &script).json();
    let said: Vec<&str> = told.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let [first, a, b, second, kept, c] = said[..] else { panic!("{said:?}") };
    assert_eq!((a, b, c), ("ours", "ours", "ours"));
    assert!(first.starts_with(STAND_IN) && second.starts_with(STAND_IN) && first != second, "{said:?}");
    assert_eq!(kept, format!("r-{DUMMY}"), "the refresh token that it has goes on");
    assert_eq!(login.connections(), 0);
    let asked: Vec<Value> = wait_until("three outcomes", || {
        let all = world.journal().into_iter();
        let all: Vec<Value> = all.filter(|it| it["kind"] == "outcome" && it["answered"] == true).collect();
        (all.len() == 3).then_some(all)
    });
    assert_eq!(places(&asked[0]), ["form client_secret"]);
    assert_eq!(places(&asked[2]), ["header authorization", "form refresh_token"]);
    // The same secret has the same fingerprint wherever it is.
    assert_eq!(asked[0]["removed"][0]["fingerprint"], asked[1]["removed"][0]["fingerprint"]);
    assert_nowhere(&world, DUMMY);
}

#[test]
fn what_asks_for_no_token_is_told_so_and_goes_nowhere_either() {
    let world = world(USUAL, "allow = [\"* /**\"]");
    let login = Upstream::http2(&world);
    world.daemon();
    let url = "https://raw.test/oauth2/token";
    let large = world.write("large", &format!("grant_type=client_credentials&x={}", "x".repeat(70_000)));
    let large = format!("@{}", large.display());
    let json = "content-type: application/json";
    for version in ["--http1.1", "--http2"] {
        for (arguments, error) in [
            (&["-G", "-d", "grant_type=client_credentials"][..], "invalid_request"),
            (&["-d", "scope=x"], "invalid_request"),
            (&["-d", "grant_type=magic"], "unsupported_grant_type"),
            (&["-H", json, "-d", "{\"grant_type\":\"client_credentials\"}"], "invalid_request"),
            (&["-d", "grant_type=client_credentials&scope=%00"], "invalid_scope"),
            (&["-d", &large, "-H", "expect:"], "invalid_request"),
            (&["-X", "DELETE"], "invalid_request"),
        ] {
            let answer = world.curl(&[&[version][..], arguments, &[url]].concat());
            let json = answer.json();
            assert_eq!((answer.status, &json["error"]), (400, &error.into()), "{arguments:?}: {answer:?}");
        }
        let head = world.curl(&[version, "-I", url]);
        assert!(head.status == 400 && head.body.contains("cache-control: no-store"), "{head:?}");
        // However it is spelled, it is the same place; what is none goes on.
        let asks = ["-d", "grant_type=client_credentials", "--path-as-is"];
        for path in [
            "/oauth2/token/",
            "/OAuth2/TOKEN",
            "/oauth2//token",
            "/x/../oauth2/token;a=b",
            "/oauth2/%74oken?a=b",
        ] {
            let answer = world.curl(&[&[version][..], &asks, &[&format!("https://raw.test{path}")]].concat());
            assert!(
                answer.json()["access_token"].as_str().is_some_and(|it| it.starts_with(STAND_IN)),
                "{path}: {answer:?}"
            );
        }
        assert_eq!(login.count(), 0, "{:?}", login.seen());
    }
    assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 200);
    assert_eq!(login.count(), 1);
    let refused = world.record("outcome", |record| record["status"] == 400);
    assert_eq!((&refused["answered"], &refused["blame"]), (&true.into(), &"client".into()), "{refused}");
}

#[test]
fn a_connection_goes_on_after_an_answer_and_a_body_may_wait_to_be_asked_for() {
    let world = world(USUAL, MAY_ASK);
    world.daemon();
    let url = "https://raw.test/oauth2/token";
    let body = format!("grant_type=client_credentials&scope={}", "x".repeat(50_000));
    let body = world.write("body", &body);
    let body = format!("@{}", body.display());
    // As curl does it on its own with a body of this length over HTTP/1.1, and waits for it longer than the call may take.
    let waits = ["--http1.1", "-H", "expect: 100-continue", "--expect100-timeout", "60", "-v"];
    let answer = world.curl(&[&waits[..], &["-d", &body, url]].concat());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.stderr.contains("HTTP/1.1 100 Continue"), "{answer:?}");
    assert_eq!(answer.json()["scope"].as_str().unwrap().len(), 50_000);
    for version in ["--http1.1", "--http2"] {
        let again = [
            "-d",
            "grant_type=client_credentials",
            "-o",
            "/dev/null",
            "-w",
            "%{num_connects} %{http_code}\n",
        ];
        let fine = [&["-s", version][..], &again, &[url, "-o", "/dev/null", url]].concat();
        let finished = world.bot("curl").args(fine).run();
        assert_eq!(finished.stdout, "1 200\n0 200\n", "{version}: {finished:?}");
    }
}

#[test]
fn nothing_in_a_body_that_is_not_read_is_another_request() {
    let world = world(USUAL, "allow = [\"* /**\"]");
    let login = Upstream::http1(&world);
    world.daemon();
    // Each on a connection of its own; what looks like a second request is the body of the first one, or behind it.
    let script = "import os, socket, ssl\n\
        def ask(head, body, method='POST'):\n\
        \x20   context = ssl.create_default_context(cafile=os.environ['SSL_CERT_FILE'])\n\
        \x20   s = context.wrap_socket(socket.create_connection(('raw.test', 443)), server_hostname='raw.test')\n\
        \x20   s.settimeout(1)\n\
        \x20   s.sendall((method + ' /oauth2/token HTTP/1.1\\r\\nhost: raw.test\\r\\n' + head + '\\r\\n').encode() + body)\n\
        \x20   said = b''\n\
        \x20   try:\n\
        \x20       while piece := s.recv(65536): said += piece\n\
        \x20   except (TimeoutError, OSError): pass\n\
        \x20   print(said.count(b'HTTP/1.1 '), said.split()[1:2])\n\
        inner = b'GET /v1/smuggled HTTP/1.1\\r\\nhost: raw.test\\r\\n\\r\\n'\n\
        form = 'content-type: application/x-www-form-urlencoded\\r\\n'\n\
        length = 'content-length: %d\\r\\n' % len(inner)\n\
        chunked = 'transfer-encoding: chunked\\r\\n'\n\
        chunk = b'%x\\r\\n%s\\r\\n' % (len(inner), inner)\n\
        ask(length, inner)\n\
        ask(length, inner, 'GET')\n\
        ask(length, inner, 'HEAD')\n\
        ask(length + 'expect: 100-continue\\r\\n', inner)\n\
        ask(length + form + 'content-encoding: gzip\\r\\n', inner)\n\
        ask(chunked, chunk + b'0\\r\\n\\r\\n')\n\
        ask(chunked + form, chunk + b'0\\r\\nauthorization: Bearer x\\r\\n\\r\\n')\n\
        ask(chunked + form, b'23\\r\\ngrant_type=client_credentials&a=bcd\\r\\n0\\r\\nx: y\\r\\n\\r\\n')\n\
        ask('content-length: 1000000000\\r\\n' + form, inner * 2000)\n\
        ";
    let told = world.python(script, &[]);
    let told: Vec<&str> = told.stdout.lines().collect();
    let (refused, given) = ("1 [b'400']", "1 [b'200']");
    assert_eq!(told, [[refused; 7].as_slice(), &[given, refused]].concat());
    let asked: Vec<Value> = wait_until("an outcome of each", || {
        let all: Vec<Value> = world.journal().into_iter().filter(|it| it["kind"] == "outcome").collect();
        (all.len() >= 9).then_some(all)
    });
    assert!(asked.len() == 9 && asked.iter().all(|it| it["answered"] == true), "{asked:?}");
    let paths: Vec<Value> = world
        .journal()
        .into_iter()
        .filter(|it| it["kind"] == "decision")
        .map(|it| it["path"].clone())
        .collect();
    assert!(paths.iter().all(|path| path == "/oauth2/token"), "{paths:?}");
    assert_eq!((login.connections(), login.count()), (0, 0));
}

#[test]
fn the_policy_decides_who_may_ask_and_how_often() {
    let world = world(USUAL, "allow = [\"POST /oauth2/token\"]\nlimit = \"2/day\"");
    world.policy(
        "policies/python.toml",
        "[identity]\nexe = \"{root}/bots/python3\"\n\n[[grant]]\napi = \"login\"\nallow = [\"GET /v1/**\"]\n",
    );
    let login = Upstream::http2(&world);
    world.daemon();
    let url = "https://raw.test/oauth2/token";
    let ask = |more: &[&str]| world.curl(&[&["-d", "grant_type=client_credentials"], more, &[url]].concat());
    assert_eq!((ask(&[]).status, ask(&[]).status, ask(&[]).status), (200, 200, 429));
    assert_eq!(world.curl(&[url]).status, 403, "GET is not granted");
    let python = "import urllib.request as r, urllib.error as e\n\
        try: print(r.urlopen('https://raw.test/oauth2/token', b'grant_type=client_credentials').status)\n\
        except e.HTTPError as error: print(error.code)\n";
    assert_eq!(world.python(python, &[]).stdout, "403\n");
    assert_eq!(world.decision(Some("/oauth2/token"))["verdict"], "deny");
    assert_eq!(login.connections(), 0);
}

#[test]
fn where_tokens_and_calls_are_at_one_host_the_token_is_answered_without_the_credential() {
    let world = World::new();
    world.policy(
        "apis/apis.toml",
        "[api.demo]\nhosts = [\"api.test\"]\ntoken_endpoint = { paths = [\"/v1/token\"] }\n\
         inject = { header = \"authorization\", value = \"Bearer {secret}\" }\n",
    );
    world.without_identities();
    let grant = "[identity]\nexe = \"{root}/bots/curl\"\n\n[[grant]]\napi = \"demo\"\nallow = [\"* /v1/**\"]\ncredential = \"demo-key\"\n";
    world.policy("policies/curl.toml", grant);
    world.daemon();
    let answer = world.curl(&[
        "-u",
        &format!("any:{DUMMY}"),
        "-d",
        "grant_type=client_credentials",
        "https://api.test/v1/token",
    ]);
    assert_eq!(answer.json()["expires_in"], 3600, "{answer:?}");
    let (decision, outcome) = recorded(&world, "/v1/token");
    assert_eq!((&decision["credential"], &outcome["answered"]), (&Value::Null, &true.into()));
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    let seen = world.seen_at_least(1);
    assert!(seen.len() == 1 && seen[0]["uri"] == "/v1/x", "{seen:?}");
    // What nothing allows, and is only observed, goes on as the bot sent it.
    let observed = "mode = \"observe\"\n[identity]\nexe = \"{root}/bots/curl\"\n\n[[grant]]\napi = \"demo\"\nallow = [\"GET /v1/x\"]\n\
                    credential = \"demo-key\"\n";
    world.policy("policies/curl.toml", observed);
    world.wait_for_generation(2);
    let stolen = format!("authorization: Bearer {}", STOLEN);
    let answer =
        world.curl(&["-H", &stolen, "-d", "grant_type=client_credentials", "https://api.test/v1/token"]);
    assert_eq!(answer.json()["key"], "stolen", "{answer:?}");
    assert_eq!(world.decision(Some("/v1/token"))["observed"], true);
}

#[test]
fn a_bot_that_does_not_end_what_it_asks_is_not_waited_for_longer_than_its_policy_lasts() {
    let world = world(USUAL, MAY_ASK);
    world.set("limits.header_timeout", "\"3s\"");
    let login = Upstream::http1(&world);
    world.daemon();
    let half = "import http.client as c, ssl, os\n\
                c = c.HTTPSConnection('raw.test', context=ssl.create_default_context(cafile=os.environ['SSL_CERT_FILE']))\n\
                c.putrequest('POST', '/oauth2/token')\n\
                c.putheader('content-type', 'application/x-www-form-urlencoded')\n\
                c.putheader('content-length', '1000')\n\
                c.endheaders(b'grant_type=client_credentials&')\n\
                answer = c.getresponse()\n\
                print(answer.status, answer.read().decode())\n";
    let mut slow = world.bot("python3").args(["-c", half]).spawn();
    let told = slow.rest();
    assert!(told.starts_with("400 ") && told.contains("did not come whole, or not in time"), "{told}");
    let mut cut = world.bot("python3").args(["-c", half]).spawn();
    wait_until("the second decision", || {
        let decisions = world.journal().into_iter().filter(|it| it["path"] == "/oauth2/token");
        (decisions.count() == 2).then_some(())
    });
    let without =
        "[identity]\nexe = \"{root}/bots/python3\"\n\n[[grant]]\napi = \"login\"\nallow = [\"GET /v1/**\"]\n";
    world.policy("policies/python.toml", without);
    let told = cut.rest();
    assert!(told.starts_with("403 ") && !told.contains(STAND_IN), "{told}");
    let outcome = world.record("outcome", |record| record["status"] == 403);
    assert!(outcome["error"].as_str().unwrap().starts_with("cut, not permitted any more"), "{outcome}");
    assert_eq!(login.connections(), 0);
}
