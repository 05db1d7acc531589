//! WebSockets by the stacks of two languages, each as client and as server, and over HTTP/2 (RFC 8441).

use std::fs;

use tests::frames::{self, DATA, Dealt, END_HEADERS, END_STREAM, HEADERS, Http2, RST_STREAM, SETTINGS};
use tests::upstream::Upstream;
use tests::wire::Dialer;
use tests::{RAW_ADDRESS, World, wait_until};

use super::{node_packages, outcome, python_packages};

/// A world with a server of these packages, and bots of both languages.
fn world(program: &str, server: &str) -> World {
    let world = World::new();
    world.policy(
        "policies/node.toml",
        "[identity]\nexe = \"/usr/bin/node\"\n\n[[grant]]\napi = \"demo\"\nallow = [\"websocket /v1/**\"]\n\
         credential = \"demo-key\"\n",
    );
    world.set("log.level", "\"info\"");
    for (name, text) in [
        ("server.py", include_str!("ws_server.py")),
        ("server.js", include_str!("ws_server.js")),
        ("client.py", include_str!("ws_client.py")),
        ("client.js", include_str!("ws_client.js")),
        ("http2.py", include_str!("ws_http2.py")),
    ] {
        world.write(name, text);
    }
    let node = node_packages().join("node_modules");
    std::os::unix::fs::symlink(node, world.path("node_modules")).unwrap();
    let packages = format!("PYTHONPATH={}", python_packages().display());
    let server = [&packages, program, server, RAW_ADDRESS, "api/server.pem", "api/server.key"];
    world.server("ws", "env", &server, &format!("{RAW_ADDRESS}:443"));
    world.daemon();
    world
}

/// What each client says of each server.
fn expected() -> Vec<String> {
    let long = "ü".repeat(60);
    let mut told = vec![
        "extensions [] None".to_owned(),
        "sizes".to_owned(),
        "parts üin parts 😀".to_owned(),
        "streamed one |two |three".to_owned(),
        "ping True".to_owned(),
        "pong you are".to_owned(),
    ];
    for (code, reason) in [(1000, "done"), (1001, ""), (3000, "three"), (4999, &long)] {
        told.push(format!("closed by server {code} {reason}"));
        told.push(format!("closed by client {code}"));
    }
    told.push("deflated ['PerMessageDeflate'] two".to_owned());
    told.push("no text 1007".to_owned());
    told
}

fn both(program: &str, server: &str) {
    let world = world(program, server);
    for (client, script) in [("python3", "client.py"), ("/usr/bin/node", "client.js")] {
        let bot = world.bot(client).env("PYTHONPATH", python_packages().to_str().unwrap());
        let told = bot.arg(world.path(script)).run();
        let lines: Vec<_> = told.stdout.lines().collect();
        assert_eq!(lines, expected(), "{client} at {program}: {told:?}");
    }
    // The server saw how each was closed, also the one whose client went without a word.
    let long = "ü".repeat(60);
    for end in ["1000 done", "3000 three", &format!("4999 {long}"), "1006"] {
        let line = format!("ended {end}");
        wait_until(&line, || {
            let log = fs::read_to_string(world.path("ws.log")).unwrap();
            (log.lines().filter(|it| it.starts_with(&line)).count() >= 2).then_some(())
        });
    }
}

#[test]
fn websockets_of_two_languages_are_carried_to_a_server_in_python() {
    both("/usr/bin/python3", "server.py");
}

#[test]
fn websockets_of_two_languages_are_carried_to_a_server_in_node() {
    both("/usr/bin/node", "server.js");
}

#[test]
fn a_websocket_over_http2_is_the_same_upgrade_to_the_policy_the_journal_and_the_upstream() {
    let world = world("/usr/bin/node", "server.js");
    let bot = world.bot("python3").env("PYTHONPATH", python_packages().to_str().unwrap());
    let told = bot.arg(world.path("http2.py")).run();
    let expected = [
        "enabled True",
        "200 two True False",
        "hello",
        "16777216 True",
        "closed 4000 bye",
        "403 application/problem+json",
        "405 application/problem+json",
        "405 application/problem+json",
        "another version: 400",
    ];
    assert_eq!(told.stdout.lines().collect::<Vec<_>>(), expected, "{told:?}");
    let decision = world.record("decision", |it| it["path"] == "/v1/socket" && it["verdict"] == "allow");
    assert_eq!((&decision["method"], &decision["identity"]), (&"GET".into(), &"python".into()), "{decision}");
    let end = world.record("outcome", |it| it["id"] == decision["id"]);
    assert_eq!((&end["status"], &end["blame"]), (&101.into(), &serde_json::Value::Null), "{end}");
    assert_eq!(world.decision(Some("/v1/forbidden/socket"))["verdict"], "deny");
    wait_until("the close at the server", || {
        fs::read_to_string(world.path("ws.log")).unwrap().contains("ended 4000 bye").then_some(())
    });
}

/// An extended `CONNECT` with fields besides.
fn connect(path: &str, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 6] = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", path.as_bytes()),
        (b":authority", b"raw.test"),
        (b"sec-websocket-version", b"13"),
    ];
    frames::block(&[&fields[..], more].concat())
}

#[test]
fn a_websocket_over_http2_whose_upstream_does_not_prove_the_switch_or_does_not_switch_is_none() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    let dialer = Dialer::new(&world);
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    for (what, said, dealt) in [
        ("no proof", format!("{head}\r\nhidden"), 502),
        (
            "another proof",
            format!("{head}sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhidden"),
            502,
        ),
        ("no switch", "HTTP/1.1 204 No Content\r\n\r\n".to_owned(), 204),
    ] {
        upstream.say(said.as_bytes(), true);
        let mut bot = Http2::open(&dialer);
        bot.send(
            HEADERS,
            END_HEADERS,
            1,
            &connect("/v1/say", &[(b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")]),
        )
        .unwrap();
        let frames: Vec<_> = std::iter::from_fn(|| bot.read())
            .filter(|frame| frame.stream == 1)
            .take_while(|frame| frame.flags & END_STREAM == 0 || frame.kind == HEADERS)
            .take(2)
            .collect();
        let hidden = frames.iter().any(|frame| frame.payload.windows(6).any(|it| it == b"hidden"));
        assert!(!hidden, "{what}: {frames:?}");
        let outcome = outcome(&world, "/v1/say");
        assert_eq!(outcome["status"], dealt, "{what}: {outcome}");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(
            (seen.method.as_str(), seen.header("upgrade")),
            ("GET", Some("websocket")),
            "{}",
            seen.head
        );
        assert_ne!(seen.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="), "a key that is new");
    }
}

#[test]
fn an_extended_connect_that_is_no_websocket_or_an_ordinary_one_opens_no_tunnel() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    let dialer = Dialer::new(&world);
    let plain: [(&[u8], &[u8]); 2] = [(b":method", b"CONNECT"), (b":authority", b"raw.test")];
    let mut udp = connect("/v1/x", &[]);
    let place = udp.windows(9).position(|it| it == b"websocket").unwrap();
    udp[place..place + 9].copy_from_slice(b"webtransp");
    for (what, block) in [
        ("an ordinary one", frames::block(&plain)),
        ("another protocol", udp),
        ("a path that is not granted", connect("/elsewhere", &[])),
        ("a path that is denied", connect("/v1/forbidden/x", &[])),
        ("another method", {
            let fields: [(&[u8], &[u8]); 5] = [
                (b":method", b"GET"),
                (b":protocol", b"websocket"),
                (b":scheme", b"https"),
                (b":path", b"/v1/x"),
                (b":authority", b"raw.test"),
            ];
            frames::block(&fields)
        }),
    ] {
        let mut bot = Http2::open(&dialer);
        bot.send(HEADERS, END_HEADERS, 1, &block).unwrap();
        let dealt = bot.dealt(1);
        // 403 and 405 have no place in the table of HPACK.
        assert!(matches!(dealt, Dealt::Answered(0 | 400) | Dealt::Reset(1)), "{what}: {dealt:?}");
        let _ = bot.send(DATA, 0, 1, b"smuggled");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_reset_of_a_websocket_over_http2_ends_it_at_the_upstream() {
    let world = world("/usr/bin/python3", "server.py");
    let mut bot = Http2::open(&Dialer::new(&world));
    bot.send(SETTINGS, 0, 0, &[]).unwrap();
    bot.send(HEADERS, END_HEADERS, 1, &connect("/v1/socket", &[])).unwrap();
    assert_eq!(bot.dealt(1), Dealt::Answered(200));
    bot.send(RST_STREAM, 0, 1, &8_u32.to_be_bytes()).unwrap();
    wait_until("its end at the server", || {
        fs::read_to_string(world.path("ws.log")).unwrap().contains("ended 1006").then_some(())
    });
    assert_eq!(outcome(&world, "/v1/socket")["blame"], "client");
}
