//! What comes before an answer: interim answers (RFC 9110 §15.2) with their fields, and 100 for a body that is waited for.

use std::io::{Read as _, Write as _};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tests::frames::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Http2, Incoming, Origin, block, frame};
use tests::upstream::Upstream;
use tests::wire::Dialer;
use tests::{CANARY, World};

const LIMIT: Duration = Duration::from_secs(20);
/// As long as nothing comes for this, nothing will, before the daemon has waited for a second.
const QUIET: Duration = Duration::from_millis(500);
/// Both versions of clients.
const CLIENTS: [&str; 2] = ["--http1.1", "--http2"];

/// Fields, as text.
type Fields<'a> = &'a [(&'a str, &'a str)];

fn fields(status: &str, fields: Fields<'_>) -> Vec<u8> {
    let status = [(&b":status"[..], status.as_bytes())];
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    block(&status.into_iter().chain(fields).collect::<Vec<_>>())
}

/// Plays with an upstream of each version that sends these before a 200: once with each client.
fn before_an_answer(world: &World, interims: &[(&str, Fields<'_>)], mut play: impl FnMut(&str, &str)) {
    let mut text = Vec::new();
    let mut frames = Vec::new();
    for (status, more) in interims {
        write!(text, "HTTP/1.1 {status} Hints\r\n").unwrap();
        for (name, value) in *more {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.extend(b"\r\n");
        let is_of_http1 = |name: &str| ["connection", "keep-alive", "x-hop"].contains(&name);
        let more: Vec<_> = more.iter().copied().filter(|(name, _)| !is_of_http1(name)).collect();
        frames.extend(frame(HEADERS, END_HEADERS, 1, &fields(status, &more)));
    }
    text.extend(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    frames.extend(frame(HEADERS, END_HEADERS, 1, &[0x88]));
    frames.extend(frame(DATA, END_STREAM, 1, b"ok"));
    let upstream = Upstream::http1(world);
    upstream.say(&text, false);
    for client in CLIENTS {
        play("HTTP/1.1", client);
    }
    drop(upstream);
    for client in CLIENTS {
        let frames = frames.clone();
        let _origin = Origin::start(world, move |_, upstream| {
            if upstream.request().is_some() {
                let _ = upstream.raw(&frames);
            }
            while upstream.read().is_some() {}
        });
        play("HTTP/2", client);
    }
}

#[test]
fn interim_answers_reach_the_client_with_their_fields_and_without_those_of_a_hop() {
    let world = World::start();
    let hints: [(&str, Fields<'_>); 3] = [
        ("102", &[("x-first", "1")]),
        ("100", &[("x-hundred", "1")]),
        (
            "103",
            &[
                ("link", "</a>; rel=preload"),
                ("link", "</b>; rel=preload"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("keep-alive", "timeout=5"),
            ],
        ),
    ];
    before_an_answer(&world, &hints, |upstream, client| {
        let answer = world.curl(&["-i", client, "https://raw.test/v1/say"]);
        let version = if client == "--http2" { "HTTP/2" } else { "HTTP/1.1" };
        let at = |text: &str| answer.body.find(text);
        let parts = [
            at(&format!("{version} 102")),
            at("x-first: 1"),
            at(&format!("{version} 103")),
            at("link: </a>; rel=preload"),
            at("link: </b>; rel=preload"),
            at(&format!("{version} 200")),
        ];
        assert!(parts.iter().all(Option::is_some) && parts.is_sorted(), "{upstream} {client}: {answer:?}");
        for gone in ["x-hop", "keep-alive", "x-hundred", " 100 "] {
            assert_eq!(at(gone), None, "{upstream} {client}: {answer:?}");
        }
        assert!(answer.body.ends_with("ok"));
    });
}

#[test]
fn a_client_of_http_1_0_gets_no_interim_answers() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    let mut stream = Dialer::new(&world).tls("203.0.113.11:443", "raw.test");
    stream.write_all(b"GET /v1/hints HTTP/1.0\r\nhost: raw.test\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains(" 200 ") && !answer.contains("103"), "{answer}");
    drop(upstream);
}

#[test]
fn a_secret_that_an_upstream_repeats_in_an_interim_answer_does_not_get_through() {
    let world = World::start();
    let bearer = format!("Bearer {CANARY}");
    let named = format!("x-{CANARY}");
    let hints: [(&str, Fields<'_>); 2] =
        [("103", &[("x-got", &bearer)]), ("103", &[(&named, "1"), ("x-y", "z")])];
    before_an_answer(&world, &hints, |upstream, client| {
        let answer = world.curl(&["-i", client, "https://raw.test/v1/say"]);
        assert!(answer.body.contains("x-got: ") && answer.body.contains("x-y: z"), "{answer:?}");
        assert!(!answer.body.to_lowercase().contains(CANARY), "{upstream} {client}: {answer:?}");
        assert_eq!(super::outcome(&world, "/v1/say")["reflected"], true, "{upstream} {client}");
    });
    let upstream = Upstream::http1(&world);
    let text = format!(
        "HTTP/1.1 103 {CANARY}\r\nX-{CANARY}: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    );
    upstream.say(text.as_bytes(), false);
    let answer = world.curl(&["-i", "--http1.1", "https://raw.test/v1/say"]);
    assert!(answer.body.contains("HTTP/1.1 103") && answer.body.ends_with("ok"), "{answer:?}");
    assert!(!answer.body.to_lowercase().contains(CANARY), "{answer:?}");
}

#[test]
fn interim_answers_are_bounded_in_number_and_in_size() {
    let world = World::start();
    let many: Vec<(&str, Fields<'_>)> = vec![("103", &[]); 33];
    for (count, status) in [(32, 200), (33, 502)] {
        before_an_answer(&world, &many[..count], |upstream, client| {
            let answer = world.curl(&[client, "https://raw.test/v1/say"]);
            assert_eq!(answer.status, status, "{count} {upstream} {client}: {answer:?}");
        });
    }
    let long = "l".repeat(10_000);
    let field = [("x-long", long.as_str())];
    let large: Vec<(&str, Fields<'_>)> = vec![("103", &field); 30];
    before_an_answer(&world, &large, |upstream, client| {
        let answer = world.curl(&["-i", client, "https://raw.test/v1/say"]);
        let told = answer.body.matches("x-long").count();
        assert_eq!((answer.status, told), (200, 6), "{upstream} {client}");
    });
}

/// A request of a body that is sent when it is asked for.
fn waiting(path: &str) -> Vec<u8> {
    block(&[
        (b":method", b"PUT"),
        (b":scheme", b"https"),
        (b":path", path.as_bytes()),
        (b":authority", b"raw.test"),
        (b"expect", b"100-continue"),
    ])
}

/// Whether an interim answer comes before anything else of a stream.
fn is_asked(bot: &mut Http2) -> bool {
    let first = std::iter::from_fn(|| bot.read()).find(|frame| frame.stream == 1 && frame.kind <= 3);
    first.is_some_and(|it| it.kind == HEADERS && it.flags & END_STREAM == 0 && it.payload[0] & 0x80 == 0)
}

#[test]
fn a_client_that_waits_for_100_gets_it_when_the_upstream_asks_for_the_body_or_after_a_second() {
    for asks in [true, false] {
        let world = World::start();
        let (tell, told) = channel();
        let (go, gone) = channel::<()>();
        let (tell, gone) = (std::sync::Mutex::new(tell), std::sync::Mutex::new(gone));
        let origin = Origin::start(&world, move |_, upstream| {
            let head = std::iter::from_fn(|| upstream.read()).find(|frame| frame.kind == HEADERS).unwrap();
            tell.lock().unwrap().send(head.flags & END_STREAM == 0).unwrap();
            gone.lock().unwrap().recv().unwrap();
            if asks {
                upstream.send(HEADERS, END_HEADERS, head.stream, &fields("100", &[])).unwrap();
            }
            let body = std::iter::from_fn(|| upstream.read()).find(|frame| frame.kind == DATA).unwrap();
            assert_eq!(body.payload, b"body");
            upstream.answer(head.stream);
            while upstream.read().is_some() {}
        });
        let mut bot = Http2::open(&Dialer::new(&world));
        let began = Instant::now();
        bot.send(HEADERS, END_HEADERS, 1, &waiting("/v1/x")).unwrap();
        assert!(told.recv_timeout(LIMIT).unwrap(), "the head comes before the body");
        if asks {
            // Nobody has asked yet.
            bot.tcp().set_read_timeout(Some(QUIET)).unwrap();
            assert!(!is_asked(&mut bot) && began.elapsed() < Duration::from_millis(950));
            bot.tcp().set_read_timeout(Some(LIMIT)).unwrap();
        }
        go.send(()).unwrap();
        assert!(is_asked(&mut bot), "asks: {asks}");
        assert!(asks || began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
        bot.send(DATA, END_STREAM, 1, b"body").unwrap();
        assert_eq!(bot.dealt(1), tests::frames::Dealt::Answered(200));
        drop(origin);
    }
}

#[test]
fn what_is_answered_without_its_body_asks_for_none() {
    let world = World::start();
    let origin = Origin::start(&world, |_, upstream: &mut Incoming| {
        let head = std::iter::from_fn(|| upstream.read()).find(|frame| frame.kind == HEADERS).unwrap();
        upstream.answer(head.stream);
        let is_data = |frame: &Frame| frame.kind == DATA;
        assert!(!std::iter::from_fn(|| upstream.read()).any(|frame| is_data(&frame)));
    });
    let mut bot = Http2::open(&Dialer::new(&world));
    bot.send(HEADERS, END_HEADERS, 1, &waiting("/v1/x")).unwrap();
    let first = std::iter::from_fn(|| bot.read()).find(|frame| frame.kind == HEADERS).unwrap();
    assert_eq!(first.payload[0], 0x88, "the answer, and nothing before it");
    assert_eq!(super::outcome(&world, "/v1/x")["blame"], serde_json::Value::Null);
    drop((bot, origin));
}

#[test]
fn a_body_that_one_version_waits_with_is_asked_for_over_the_other() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    let mut bot = Http2::open(&Dialer::new(&world));
    bot.send(HEADERS, END_HEADERS, 1, &waiting("/v1/over-http1")).unwrap();
    assert!(is_asked(&mut bot));
    bot.send(DATA, END_STREAM, 1, b"body").unwrap();
    assert_eq!(bot.dealt(1), tests::frames::Dealt::Answered(200));
    assert_eq!(upstream.seen().pop().unwrap().body, b"body");
    drop((bot, upstream));
    let _origin = Origin::start(&world, |_, upstream| {
        let head = std::iter::from_fn(|| upstream.read()).find(|frame| frame.kind == HEADERS).unwrap();
        upstream.send(HEADERS, END_HEADERS, head.stream, &fields("100", &[])).unwrap();
        while upstream.read().is_some_and(|frame| frame.kind != DATA || frame.flags & END_STREAM == 0) {}
        upstream.answer(head.stream);
        while upstream.read().is_some() {}
    });
    let mut stream = Dialer::new(&world).tls("203.0.113.11:443", "raw.test");
    let head =
        b"PUT /v1/over-http2 HTTP/1.1\r\nhost: raw.test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    stream.write_all(head).unwrap();
    let mut line = [0; 25];
    stream.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").unwrap();
    let mut line = [0; 12];
    stream.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 200");
}
