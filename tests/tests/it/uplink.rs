//! The proxy of a site, through which upstreams are reached: a real one (squid), and ones that misbehave.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Command;

use serde_json::Value;
use tests::wire::Dialer;
use tests::{ADDRESS, CANARY, RAW_ADDRESS, World, wait_until};

use super::trouble::outcome;

/// Where the proxy of the site is.
const SITE: &str = "203.0.113.20";
/// The same with its port.
const PLACE: &str = "203.0.113.20:3128";
/// As bots write it.
const URL: &str = "http://proxy.test:3128";
/// The account of squid in Debian.
const SQUID: u32 = 13;

/// A world whose upstreams are reached through a proxy, which is not there yet.
fn world() -> World {
    let world = World::new();
    let added = world.enter(None).args(["ip", "addr", "add", &format!("{SITE}/32"), "dev", "lo"]).status();
    assert!(added.unwrap().success());
    points(&world, "proxy.test", SITE);
    world.set("upstream.proxy", &format!("\"{URL}\""));
    world
}

/// Has a name mean this address, and others what they meant.
fn points(world: &World, name: &str, address: &str) {
    let hosts = fs::read_to_string(world.path("hosts")).unwrap();
    fs::write(world.path("hosts"), format!("{address} {name}\n{}", without(&hosts, name))).unwrap();
}

/// A file of hosts without a name.
fn without(hosts: &str, name: &str) -> String {
    let words = |line: &str| line.split(' ').filter(|word| *word != name).collect::<Vec<_>>().join(" ");
    hosts.lines().map(words).filter(|line| line.contains(' ')).map(|line| line + "\n").collect()
}

/// Squid with these rules of access, which are read from the top. It looks names up in a file of its own, and calls from its address.
fn squid(world: &World, access: &str) {
    let folder = world.path("squid");
    fs::create_dir_all(&folder).unwrap();
    let hosts = fs::read_to_string(world.path("hosts")).unwrap();
    // Over IPv4 it can be told by its address.
    let hosts: String =
        hosts.lines().filter(|line| !line.starts_with("2001:")).map(|line| format!("{line}\n")).collect();
    fs::write(folder.join("hosts"), hosts).unwrap();
    let place = folder.display();
    let configuration = format!(
        "http_port {PLACE}\ntcp_outgoing_address {SITE} all\nhosts_file {place}/hosts\ndns_nameservers 127.0.0.1\ndns_timeout 1 seconds\n\
         visible_hostname proxy.test\n{access}\nhttp_access deny all\ncache deny all\ncache_mem 8 MB\naccess_log stdio:{place}/access.log\n\
         cache_log {place}/cache.log\npid_filename none\ncache_effective_user proxy\ncoredump_dir {place}\npinger_enable off\n\
         netdb_filename none\nmax_filedescriptors 1024\nshutdown_lifetime 0 seconds\nconnect_timeout 2 seconds\nbuffered_logs off\n"
    );
    let file = world.write("squid/squid.conf", &configuration);
    std::os::unix::fs::chown(&folder, Some(SQUID), Some(SQUID)).unwrap();
    // Squid's shared memory has fixed names: it gets a place of its own.
    let script = "mount -t tmpfs none /dev/shm && exec squid -N -f \"$0\"";
    world.server("squid", "/bin/sh", &["-ec", script, file.to_str().unwrap()], PLACE);
}

/// What squid was asked for, such as `CONNECT api.test:443`, with its answer before.
fn asked(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.path("squid/access.log")).unwrap_or_default();
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {} {}", words[3].rsplit('/').next().unwrap_or_default(), words[5], words[6])
    };
    text.lines().map(line).collect()
}

/// From where nginx was called, by the path of the call.
fn from(world: &World, path: &str) -> String {
    let seen = || world.seen().into_iter().find(|seen| seen["uri"] == path);
    wait_until("a call at the server", seen)["remote"].as_str().unwrap().to_owned()
}

/// Gives the identity of curl more, above its conditions.
fn also(world: &World, more: &str) {
    let text = fs::read_to_string(world.path("etc/policies/curl.toml")).unwrap();
    world.policy("policies/curl.toml", &format!("{more}\n{text}"));
}

#[test]
fn apis_and_what_passes_through_are_reached_by_the_proxy_of_the_site_with_tls_from_end_to_end() {
    let world = world();
    also(&world, "unmatched = \"pass\"");
    squid(&world, "http_access allow all");
    world.daemon();
    for path in ["/v1/one", "/v1/two"] {
        let answer = world.curl(&[&format!("https://api.test{path}")]);
        assert_eq!((answer.status, &answer.json()["key"]), (200, &Value::from("ours")), "{answer:?}");
        assert_eq!(from(&world, path), SITE);
        let outcome = outcome(&world, path);
        assert_eq!(
            (&outcome["upstream"], &outcome["proxied"]),
            (&PLACE.into(), &"api.test:443".into()),
            "{outcome}"
        );
    }
    // Without TLS nothing proves who it is: the address that was held against the policy.
    let answer = world.curl(&["-4", "http://plain.test/v1/plain"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        (from(&world, "/v1/plain").as_str(), &outcome(&world, "/v1/plain")["proxied"]),
        (SITE, &format!("{ADDRESS}:80").into())
    );
    // By its name where it says one, and by its address otherwise.
    assert_eq!(world.curl(&["https://other.test/v1/passed"]).status, 401);
    assert_eq!(world.curl(&["-k", &format!("https://{ADDRESS}/v1/nameless")]).status, 401);
    assert_eq!(from(&world, "/v1/passed"), SITE);
    let passed = world.record("decision", |record| record["host"] == "other.test");
    let passed = world.record("outcome", |record| record["id"] == passed["id"]);
    assert_eq!(
        (&passed["upstream"], &passed["proxied"]),
        (&PLACE.into(), &"other.test:443".into()),
        "{passed}"
    );
    // A bot that has the same proxy in its environment: its port is mediated for that.
    let answer =
        world.bot("curl").env("https_proxy", URL).env("http_proxy", URL).curl(&["https://api.test/v1/both"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(world.decision(Some("/v1/both"))["proxy"], PLACE);
    assert_eq!(world.bot("curl").env("http_proxy", URL).curl(&["http://other.test/v1/absolute"]).status, 200);
    assert_eq!((from(&world, "/v1/both").as_str(), from(&world, "/v1/absolute").as_str()), (SITE, SITE));
    assert_eq!(outcome(&world, "/v1/absolute")["proxied"], "other.test:80");
    // Squid writes a tunnel down at its end.
    let tunnels = |target: &str| format!("200 CONNECT {target}");
    wait_until("squid's log", || {
        let all = asked(&world);
        let has = |target: &str| all.contains(&tunnels(target));
        (has("other.test:443") && has(&format!("{ADDRESS}:443"))).then_some(())
    });
    let text = fs::read_to_string(world.path("squid/access.log")).unwrap();
    assert!(!text.contains(CANARY) && !text.contains("/v1/"), "{text}");
}

#[test]
fn the_login_at_the_proxy_comes_from_the_store_and_is_nowhere_else() {
    let world = world();
    let hashed =
        Command::new("openssl").args(["passwd", "-apr1", "-salt", "pepper", "CANARY-OF-THE-SITE"]).output();
    world.write("squid/users", &format!("svc:{}", String::from_utf8(hashed.unwrap().stdout).unwrap()));
    squid(
        &world,
        &format!(
            "auth_param basic program /usr/lib/squid/basic_ncsa_auth {}\nauth_param basic children 1\n\
             acl known proxy_auth REQUIRED\nhttp_access allow known",
            world.path("squid/users").display()
        ),
    );
    world.daemon();
    let refused = |path: &str, says: &str| {
        let answer = world.curl(&[&format!("https://api.test{path}")]);
        let problem = "urn:vouchsafe:problem:proxy-failed";
        assert_eq!((answer.status, &answer.json()["type"]), (502, &Value::from(problem)), "{answer:?}");
        let outcome = outcome(&world, path);
        assert!(outcome["error"].as_str().unwrap().contains(says), "{outcome}");
        assert_eq!((&outcome["blame"], &outcome["upstream"]), (&"host".into(), &PLACE.into()));
    };
    refused("/v1/none", "wants a login (407); store USER:PASSWORD");
    world.set("upstream.proxy_credential", "\"vault:site\"");
    world.restart();
    refused("/v1/missing", "the login at the proxy proxy.test:3128 cannot be had");
    world.secret("site", "svc:CANARY-BUT-WRONG");
    wait_until("the new secret", || world.reload().stdout.contains("generation").then_some(()));
    refused("/v1/wrong", "wants another login (407)");
    world.secret("site", "no login");
    world.reload();
    refused("/v1/bad", "it is not USER:PASSWORD");
    world.secret("site", "svc:CANARY-OF-THE-SITE");
    world.reload();
    // A bot's own login is not what the proxy of the site gets.
    let bot = world.bot("curl").env("https_proxy", "http://svc:CANARY-BUT-WRONG@proxy.test:3128");
    let answer = bot.curl(&["https://api.test/v1/known"]);
    assert_eq!((answer.status, from(&world, "/v1/known").as_str()), (200, SITE), "{answer:?}");
    let told = format!("{:?}{}{:?}", world.journal(), world.log(), world.status());
    let coded = ["c3ZjOkNBTkFSWS1PRi1USEUtU0lURQ", "c3ZjOkNBTkFSWS1CVVQtV1JPTkc"];
    assert!(!told.contains("CANARY-") && coded.iter().all(|coded| !told.contains(coded)));
}

#[test]
fn what_the_proxy_does_not_do_is_told_with_whose_fault_it_is() {
    let world = world();
    points(&world, "dead.raw.test", RAW_ADDRESS);
    world.policy(
        "apis/apis.toml",
        "[api.demo]\nhosts = [\"api.test\", \"raw.test\", \"*.raw.test\"]\n\
         inject = { header = \"authorization\", value = \"Bearer {secret}\" }\n\n\
         [api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\n",
    );
    squid(&world, "acl closed dstdomain raw.test\nhttp_access deny closed\nhttp_access allow all");
    world.daemon();
    for (host, path, kind, blame, says) in [
        ("raw.test", "/v1/closed", "proxy-failed", "host", "refuses a tunnel to raw.test:443 (403)"),
        (
            "dead.raw.test",
            "/v1/dead",
            "upstream-unreachable",
            "upstream",
            "does not reach dead.raw.test:443 (503)",
        ),
    ] {
        let answer = world.curl(&[&format!("https://{host}{path}")]);
        let problem = format!("urn:vouchsafe:problem:{kind}");
        assert_eq!((answer.status, &answer.json()["type"]), (502, &Value::from(problem)), "{answer:?}");
        let outcome = outcome(&world, path);
        assert!(outcome["error"].as_str().unwrap().contains(says), "{outcome}");
        assert_eq!(outcome["blame"], blame);
    }
    assert_eq!(world.curl(&["https://api.test/v1/well"]).status, 200);
}

#[test]
fn a_proxy_that_is_silent_or_talks_nonsense_costs_a_bounded_time_and_no_memory() {
    for (does, path, status, says) in [
        ("pass", "/v1/silent", 502, "did not open a tunnel to api.test:443 within 1 s"),
        (
            "there.sendall(b'HTTP/1.1 200 OK\\r\\nx: ' + b'a' * (1 << 20))",
            "/v1/endless",
            502,
            "it is larger than 8192 bytes",
        ),
        ("there.sendall(b'SSH-2.0-x\\r\\n')", "/v1/other", 502, "it is not HTTP"),
        ("there.close()", "/v1/closed", 502, "it closed the connection"),
        // A tunnel in which somebody else answers: it is not the host.
        (
            "there.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\n\\r\\n')",
            "/v1/behind",
            502,
            "TLS with `api.test` failed",
        ),
    ] {
        let world = world();
        world.set("upstream.connect_timeout", "\"1s\"");
        let script = format!(
            "import socket, time\nhere = socket.create_server(('{SITE}', 3128))\nkept = []\nwhile True:\n there = here.accept()[0]\n \
             kept.append(there)\n there.recv(4096)\n try: {does}\n except OSError: pass\n"
        );
        world.server("proxy", "/usr/bin/python3", &["-c", &script], PLACE);
        world.daemon();
        let answer = world.curl(&[&format!("https://api.test{path}")]);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        let outcome = outcome(&world, path);
        assert!(outcome["error"].as_str().unwrap().contains(says), "{path}: {outcome}");
    }
    let world = world();
    world.daemon();
    let answer = world.curl(&["https://api.test/v1/down"]);
    assert_eq!(
        (answer.status, &answer.json()["title"]),
        (502, &"The proxy of this host's network does not lead there".into())
    );
    let outcome = outcome(&world, "/v1/down");
    assert!(
        outcome["error"].as_str().unwrap().contains("proxy.test:3128 ([upstream] proxy) cannot be reached"),
        "{outcome}"
    );
}

#[test]
fn what_a_server_says_at_once_behind_the_proxys_answer_is_the_first_that_the_bot_gets() {
    let world = world();
    also(&world, "unmatched = \"pass\"");
    let script = format!(
        "import socket\nhere = socket.create_server(('{SITE}', 3128))\nwhile True:\n there = here.accept()[0]\n there.recv(4096)\n \
         there.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n220 mail.test ESMTP ready\\r\\n')\n there.sendall(there.recv(4096))\n there.close()\n"
    );
    world.server("proxy", "/usr/bin/python3", &["-c", &script], PLACE);
    let text = fs::read_to_string(world.path("etc/policies/python.toml")).unwrap();
    world.policy("policies/python.toml", &format!("unmatched = \"pass\"\n{text}"));
    world.daemon();
    let dialer = Dialer::new(&world);
    let mut stream = dialer.dial(&format!("{RAW_ADDRESS}:443"));
    let mut greeting = [0; 27];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 mail.test ESMTP ready\r\n");
    stream.write_all(b"EHLO bot\r\n").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "EHLO bot\r\n");
    drop(stream);
    let passed = world.record("outcome", |record| record["proxied"] == format!("{RAW_ADDRESS}:443"));
    assert_eq!(passed["upstream"], PLACE);
}

#[test]
fn what_is_named_in_no_proxy_and_this_host_itself_are_reached_directly() {
    for (direct, at) in [("\"api.test\"", 0), ("\".test\"", 1), ("\"203.0.113.0/28\", \"2001:db8::/32\"", 2)]
    {
        let world = world();
        world.set("upstream.no_proxy", &format!("[{direct}]"));
        squid(&world, "http_access allow all");
        world.daemon();
        let path = format!("/v1/direct{at}");
        assert_eq!(world.curl(&["-4", &format!("https://api.test{path}")]).status, 200);
        assert_eq!(from(&world, &path), ADDRESS, "{direct}");
        let outcome = outcome(&world, &path);
        assert_eq!(
            (&outcome["upstream"], &outcome["proxied"]),
            (&format!("{ADDRESS}:443").into(), &Value::Null)
        );
        assert!(asked(&world).is_empty(), "{direct}");
    }
}

#[test]
fn the_proxy_is_asked_for_no_name_that_leads_to_an_address_at_which_the_api_may_not_be() {
    let world = world();
    squid(&world, "http_access allow all");
    points(&world, "raw.test", "10.9.8.7");
    world.daemon();
    // What the bot chose is a good address; what the name means here is not, and the proxy would go by the name.
    let resolve = format!("raw.test:443:{RAW_ADDRESS}");
    let answer = world.curl(&["--resolve", &resolve, "https://raw.test/v1/private"]);
    let problem = "urn:vouchsafe:problem:address-refused";
    assert_eq!((answer.status, &answer.json()["type"]), (403, &Value::from(problem)), "{answer:?}");
    assert!(outcome(&world, "/v1/private")["error"].as_str().unwrap().contains("10.9.8.7 is private"));
    // A name that means nothing here is refused as well.
    fs::write(world.path("hosts"), without(&fs::read_to_string(world.path("hosts")).unwrap(), "raw.test"))
        .unwrap();
    let answer = world.curl(&["--resolve", &resolve, "https://raw.test/v1/unknown"]);
    assert_eq!(answer.status, 502, "{answer:?}");
    let error = outcome(&world, "/v1/unknown")["error"].as_str().unwrap().to_owned();
    assert!(
        error.contains("the host raw.test cannot be resolved") && error.contains("proxy_resolves = true"),
        "{error}"
    );
    assert!(asked(&world).is_empty(), "{:?}", asked(&world));
}

#[test]
fn where_only_the_proxy_looks_names_up_it_does_so_for_bots_that_ask_for_them_but_not_for_apis_that_say_where_they_are()
 {
    let world = world();
    let text = fs::read_to_string(world.path("etc/apis/apis.toml")).unwrap();
    let open = text.replace("addresses = [\"203.0.113.0/24\", \"2001:db8::/32\"]", "# addresses = not said");
    world.policy("apis/apis.toml", &open);
    also(&world, "unmatched = \"pass\"");
    squid(&world, "http_access allow all");
    let hosts = fs::read_to_string(world.path("hosts")).unwrap();
    let hosts =
        ["api.test", "other.test", "plain.test"].into_iter().fold(hosts, |hosts, name| without(&hosts, name));
    fs::write(world.path("hosts"), hosts).unwrap();
    world.set("upstream.proxy_resolves", "true");
    world.daemon();
    let call = |url: &str| world.bot("curl").env("https_proxy", URL).env("http_proxy", URL).curl(&[url]);
    let answer = call("https://api.test/v1/unresolved");
    assert_eq!((answer.status, &answer.json()["key"]), (200, &Value::from("ours")), "{answer:?}");
    let decision = world.decision(Some("/v1/unresolved"));
    assert_eq!((&decision["dst"], &decision["proxy"]), (&"0.0.0.0:443".into(), &PLACE.into()), "{decision}");
    assert_eq!(outcome(&world, "/v1/unresolved")["proxied"], "api.test:443");
    let told = world.vouchsafe(&["why", decision["id"].as_str().unwrap()]).stdout;
    assert!(told.contains("that is the answer of then"), "{told}");
    assert_eq!(call("https://other.test/v1/passes").status, 401);
    assert_eq!(call("http://other.test/v1/passes-plain").status, 200);
    assert_eq!(from(&world, "/v1/passes-plain"), SITE);
    // Of an API without TLS only the address says where it is.
    let answer = call("http://plain.test/v1/plain");
    assert_eq!(answer.status, 502, "{answer:?}");
    // The bot's own choice of an address is still held against the policy.
    let answer = world.curl(&["--resolve", "api.test:443:10.9.8.7", "https://api.test/v1/chosen"]);
    assert_eq!(answer.status, 403, "{answer:?}");
    let before = asked(&world).len();
    let said = open.replace("# addresses = not said", "addresses = [\"203.0.113.0/24\", \"2001:db8::/32\"]");
    world.policy("apis/apis.toml", &said);
    world.wait_for_generation(2);
    let answer = call("https://api.test/v1/said");
    assert_eq!(
        (answer.status, &answer.json()["type"]),
        (403, &"urn:vouchsafe:problem:address-refused".into()),
        "{answer:?}"
    );
    let outcome = outcome(&world, "/v1/said");
    assert!(outcome["error"].as_str().unwrap().contains("name the host in no_proxy"), "{outcome}");
    assert_eq!(asked(&world).len(), before);
}
