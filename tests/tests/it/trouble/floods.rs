//! Clients that take what they can: floods of frames, streams and connections. The daemon's memory and its other clients do not feel it.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use tests::frames::{
    self, ACK, CONTINUATION, DATA, Dealt, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE,
};
use tests::wire::Reply;
use tests::{World, wait_until};

use super::{RAW, Scene, outcome};

const ENHANCE_YOUR_CALM: u32 = 11;
/// What a flood may add to the daemon's memory, in KiB.
const ROOM: u64 = 24 << 10;

/// The daemon's memory (KiB), and the time that it has computed.
fn usage(world: &World) -> (u64, Duration) {
    let proc = format!("/proc/{}", world.daemon_pid());
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = memory.trim().trim_end_matches(" kB").parse().unwrap();
    let stat = std::fs::read_to_string(format!("{proc}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    (memory, Duration::from_millis(ticks * 10))
}

/// Sends frames until the connection is ended or all are out. How many bytes went out, and whether it was ended.
fn flood(bot: &mut Http2, bytes: &[u8], times: usize) -> (usize, bool) {
    bot.tcp().set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    for number in 0..times {
        if bot.raw(bytes).is_err() {
            return (number * bytes.len(), true);
        }
    }
    (times * bytes.len(), false)
}

fn request(path: &str) -> Vec<u8> {
    frames::block(&[
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", path.as_bytes()),
        (b":authority", b"raw.test"),
    ])
}

/// The error of the GOAWAY with which a connection was ended, if it says one.
fn end(bot: &mut Http2) -> Option<u32> {
    bot.tcp().set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    while let Some(frame) = bot.read() {
        if frame.kind == GOAWAY {
            return Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
        }
    }
    None
}

#[test]
fn streams_that_are_opened_and_reset_end_their_connection_and_make_no_calls_without_end() {
    let scene = Scene::set();
    let mut bot = Http2::open(&scene.dialer);
    let before = usage(&scene.world).0;
    let block = request("/v1/never");
    let mut sent = 0;
    bot.tcp().set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    for number in 0..20_000_u32 {
        let stream = 1 + 2 * number;
        let pair = [
            frames::frame(HEADERS, END_HEADERS | END_STREAM, stream, &block),
            frames::frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
        ];
        if bot.raw(&pair.concat()).is_err() {
            break;
        }
        sent += 1;
    }
    // Or it is gone already.
    assert!(matches!(end(&mut bot), None | Some(ENHANCE_YOUR_CALM)));
    wait_until("its end", || (scene.world.status()["connections_open"] == 0).then_some(()));
    let calls = scene.world.journal().iter().filter(|record| record["kind"] == "decision").count();
    assert!(calls < 2_000, "{calls} of {sent} were decided");
    assert!(usage(&scene.world).0 < before + ROOM, "{} KiB more", usage(&scene.world).0 - before);
    scene.still_serves();
}

#[test]
fn floods_of_frames_that_ask_for_nothing_end_their_connection_and_take_no_memory() {
    let scene = Scene::set();
    scene.still_serves();
    let before = usage(&scene.world).0;
    let fragment = [0x40, 1, b'x', 1, b'y'].repeat(3_000);
    let empty = frames::frame(DATA, 0, 1, &[]);
    for (what, first, flooded, times) in [
        ("pings", vec![], frames::frame(PING, 0, 0, b"flooding"), 200_000),
        ("settings", vec![], frames::frame(SETTINGS, 0, 0, &[]), 200_000),
        ("settings that change", vec![], frames::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]), 100_000),
        ("acknowledgements", vec![], frames::frame(SETTINGS, ACK, 0, &[]), 100_000),
        ("windows", vec![], frames::frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), 100_000),
        ("unknown frames", vec![], frames::frame(0xfa, 0, 0, &[0; 1000]), 20_000),
        (
            "continuations",
            frames::frame(HEADERS, END_STREAM, 1, &request("/v1/x")),
            frames::frame(CONTINUATION, 0, 1, &fragment),
            10_000,
        ),
        (
            "empty continuations",
            frames::frame(HEADERS, END_STREAM, 1, &request("/v1/x")),
            frames::frame(CONTINUATION, 0, 1, &[]),
            200_000,
        ),
        ("empty data", frames::frame(HEADERS, END_HEADERS, 1, &request("/v1/x")), empty, 200_000),
    ] {
        let mut bot = Http2::open(&scene.dialer);
        // Its answers are not read: they must not pile up either.
        let _ = bot.raw(&first);
        let (began, denials) = (usage(&scene.world).1, scene.denials().len());
        // Many in one record of TLS.
        let (sent, _) = flood(&mut bot, &flooded.repeat(100), times / 100);
        // It is ended by the daemon, not by us.
        let open = || scene.world.status()["connections_open"].as_u64().unwrap();
        wait_until(&format!("the end of {what}"), || (open() == 0).then_some(()));
        let (memory, computed) = usage(&scene.world);
        let (memory, computed) = (memory.saturating_sub(before), computed - began);
        assert!(memory < ROOM, "{what}: {memory} KiB more after {sent} bytes");
        // In a build for debugging; what the status asks for is in it.
        assert!(computed < Duration::from_secs(5), "{what}: {computed:?} for {sent} bytes");
        wait_until(&format!("a record of {what}"), || (scene.denials().len() > denials).then_some(()));
        scene.still_serves();
        drop(bot);
    }
}

#[test]
fn clients_of_http2_that_take_nothing_of_large_answers_hold_little_and_leave_little_when_they_are_gone() {
    const CLIENTS: u64 = 40;
    /// KiB: for each of two streams what may wait to be written (128) and what has come of more; for the connection what waits and what TLS has
    /// (64 each); and what lies between.
    const EACH: u64 = 780;
    let scene = Scene::set();
    scene.still_serves();
    // Of no file: code comes and goes by itself.
    let anonymous = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", scene.world.daemon_pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let before = anonymous();
    let held = || anonymous().saturating_sub(before);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut bot = Http2::open(&scene.dialer);
            // As much at a time as there is.
            bot.send(SETTINGS, 0, 0, &[&[0, 4][..], &i32::MAX.to_be_bytes()].concat()).unwrap();
            bot.send(WINDOW_UPDATE, 0, 0, &(i32::MAX - 65_535).to_be_bytes()).unwrap();
            for stream in [1, 3] {
                bot.send(HEADERS, END_HEADERS | END_STREAM, stream, &request("/v1/endless")).unwrap();
            }
            bot
        })
        .collect();
    let mut last = 0;
    wait_until("that no more comes", || {
        let was = std::mem::replace(&mut last, held());
        std::thread::sleep(Duration::from_secs(1));
        (was > CLIENTS * EACH / 2 && last.abs_diff(was) < CLIENTS).then_some(())
    });
    assert!(last < CLIENTS * EACH, "{} KiB each", last / CLIENTS);
    scene.still_serves();
    drop(clients);
    wait_until("their end", || (scene.world.status()["connections_open"] == 0).then_some(()));
    // Who has something to do, and then nothing, gives it back.
    wait_until(&format!("less than {last} KiB"), || {
        scene.still_serves();
        (held() < last * 2 / 3).then_some(())
    });
}

#[test]
fn no_more_streams_of_a_connection_are_served_at_once_than_it_was_told() {
    const STREAMS: u32 = 250;
    let scene = Scene::set();
    let mut bot = Http2::open(&scene.dialer);
    let block = request("/v1/never");
    for number in 0..=STREAMS {
        bot.send(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * number, &block).unwrap();
    }
    const REFUSED_STREAM: u32 = 7;
    let last = 1 + 2 * STREAMS;
    assert_eq!(bot.dealt(last), Dealt::Reset(REFUSED_STREAM));
    scene.still_serves();
}

#[test]
fn a_connection_over_http2_whose_next_request_does_not_come_in_time_is_ended() {
    let world = World::new();
    world.set("limits.header_timeout", "\"500ms\"");
    world.set("limits.idle_timeout", "\"3s\"");
    let scene = Scene::with(world);
    let ask = |bot: &mut Http2, stream: u32, path: &str| {
        bot.send(HEADERS, END_HEADERS | END_STREAM, stream, &request(path)).unwrap();
    };
    let mut slow = Http2::open(&scene.dialer);
    slow.send(HEADERS, END_STREAM, 1, &request("/v1/x")).unwrap();
    let mut silent = Http2::open(&scene.dialer);
    let mut waiting = Http2::open(&scene.dialer);
    ask(&mut waiting, 1, "/v1/slow-head");
    // Those who have asked before have longer until the next one begins.
    let began = std::time::Instant::now();
    let [mut slow_later, mut silent_later] = [0; 2].map(|_| Http2::open(&scene.dialer));
    for bot in [&mut slow_later, &mut silent_later] {
        for stream in [1, 3] {
            ask(bot, stream, "/v1/x");
            assert_eq!(bot.dealt(stream), Dealt::Answered(200));
        }
    }
    // A frame whose end does not come.
    let whole = frames::frame(HEADERS, END_HEADERS | END_STREAM, 5, &request("/v1/x"));
    slow_later.raw(&whole[..whole.len() - 1]).unwrap();
    for bot in [&mut slow, &mut silent, &mut slow_later] {
        assert_eq!(end(bot), Some(0));
    }
    silent_later.tcp().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(std::iter::from_fn(|| silent_later.read()).any(|frame| frame.kind == GOAWAY));
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    wait_until("two records", || (scene.denials().len() == 2).then_some(()));
    let reasons: Vec<_> = scene.denials().iter().map(|denial| denial["reason"].to_string()).collect();
    assert!(reasons.iter().all(|reason| reason.contains("did not end in time")), "{reasons:?}");
    // Whoever waits for an answer does not rest, and is told nothing of an end.
    wait_until("the end of the others", || (scene.world.status()["connections_open"] == 1).then_some(()));
    scene.upstream.open_gate(1);
    let answer = waiting.dealt(1);
    assert_eq!(answer, Dealt::Answered(200));
}

#[test]
fn a_client_of_http2_that_rests_is_told_and_what_it_asks_meanwhile_is_answered() {
    let world = World::new();
    world.set("limits.header_timeout", "\"500ms\"");
    let scene = Scene::with(world);
    let mut bot = Http2::open(&scene.dialer);
    let mut told = std::iter::from_fn(|| bot.read()).skip_while(|frame| frame.kind != GOAWAY);
    let all = u32::from_be_bytes(told.next().unwrap().payload[..4].try_into().unwrap());
    assert_eq!(all, i32::MAX as u32, "it says that there may be requests on their way");
    let ping = told.next().unwrap();
    assert_eq!((ping.kind, ping.flags), (PING, 0));
    drop(told);
    bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &request("/v1/x")).unwrap();
    bot.send(PING, ACK, 0, &ping.payload).unwrap();
    let rest: Vec<_> = std::iter::from_fn(|| bot.read()).collect();
    assert!(rest.iter().any(|frame| frame.kind == HEADERS && frame.payload[0] == 0x88), "{rest:?}");
    let last = rest.iter().rfind(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(last.payload[..4], [0, 0, 0, 1], "the last one that was taken");
    assert!(scene.denials().is_empty());
}

#[test]
fn a_body_that_drips_keeps_nobody_else_waiting_and_ends_with_its_upstreams_patience() {
    let world = World::new();
    world.set("upstream.response_timeout", "\"1s\"");
    let scene = Scene::with(world);
    let mut stream = scene.dialer.tls(RAW, "raw.test");
    let head = b"PUT /v1/drip HTTP/1.1\r\nhost: raw.test\r\ncontent-length: 1000\r\n\r\nabc";
    stream.write_all(head).unwrap();
    stream.flush().unwrap();
    scene.still_serves();
    let reply = Reply::read(&mut stream);
    assert_eq!(reply.status, 408, "{reply:?}");
    assert_eq!(outcome(&scene.world, "/v1/drip")["blame"], "client");
    assert!(scene.upstream.seen().is_empty());
}

#[test]
fn no_more_connections_of_one_identity_are_served_at_once_than_the_limit_says() {
    const MOST: usize = 3;
    let world = World::new();
    world.set("limits.connections_per_identity", &MOST.to_string());
    let scene = Scene::with(world);
    let ask = b"GET /v1/x HTTP/1.1\r\nhost: raw.test\r\n\r\n";
    let mut streams: Vec<_> = (0..MOST).map(|_| scene.dialer.tls(RAW, "raw.test")).collect();
    let mut call = |place: usize| {
        streams[place].write_all(ask).unwrap();
        assert_eq!(Reply::read_one(&mut &answer(&mut streams[place])[..]).status, 200);
    };
    (0..MOST).for_each(&mut call);
    // One more is closed, and told.
    let before = scene.denials().len();
    let mut more = scene.dialer.tls(RAW, "raw.test");
    assert!(
        more.write_all(ask).and_then(|()| more.flush()).and_then(|()| more.read(&mut [0]).map(drop)).is_err()
    );
    wait_until("a record", || (scene.denials().len() > before).then_some(()));
    let denial = scene.denials().pop().unwrap();
    assert_eq!(
        (&denial["identity"], &denial["blame"]),
        (&"python".into(), &serde_json::Value::Null),
        "{denial}"
    );
    assert!(denial["reason"].as_str().unwrap().contains("connections_per_identity"), "{denial}");
    // Those that are open, and another identity, do not feel it.
    (0..MOST).for_each(&mut call);
    scene.still_serves();
    // A place that is free again is given again.
    drop(streams.pop());
    wait_until("a place", || {
        let mut next = scene.dialer.tls(RAW, "raw.test");
        next.write_all(ask).and_then(|()| next.flush()).ok()?;
        (Reply::read(&mut next).status == 200).then_some(())
    });
}

#[test]
fn a_connection_gives_its_place_back_however_it_ends() {
    const MOST: usize = 4;
    const TIMES: usize = 10;
    let world = World::new();
    world.set("limits.connections_per_identity", &MOST.to_string());
    world.set("limits.sniff_timeout", "\"200ms\"");
    world.set("limits.header_timeout", "\"300ms\"");
    // A client that is gone may only have shut down its side: the upstream has this long to answer it.
    world.set("upstream.response_timeout", "\"500ms\"");
    let scene = Scene::with(world);
    let say = |bytes: &str| {
        let mut stream = scene.dialer.tls(RAW, "raw.test");
        let _ = stream.write_all(bytes.as_bytes()).and_then(|()| stream.flush());
        stream
    };
    let reset = |stream: &std::net::TcpStream| {
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    };
    let head = "host: raw.test\r\n";
    let ends: [(&str, &dyn Fn()); 15] = [
        ("at once", &|| drop(scene.dialer.dial(RAW))),
        ("at once, by a reset", &|| reset(&scene.dialer.dial(RAW))),
        ("silent", &|| drop(scene.dialer.dial(RAW).read(&mut [0]))),
        ("not TLS", &|| drop(scene.dialer.dial(RAW).write_all(&[22, 3, 1, 0, 2, 9, 9]))),
        ("opaque", &|| drop(scene.dialer.dial(RAW).write_all(b"\0\x01\x02 and so on"))),
        ("in the handshake", &|| drop(scene.dialer.dial(RAW).write_all(&scene.dialer.hello("raw.test")))),
        ("at a host of no API", &|| {
            drop(scene.dialer.dial(RAW).write_all(&scene.dialer.hello("other.test")));
        }),
        ("in a head", &|| drop(say("GET /v1/x HTTP/1.1\r\nho"))),
        ("by time", &|| drop(Reply::read(say("GET /v1/x HTTP/1.1\r\nho")))),
        ("by what is no request", &|| drop(Reply::read(say("GET /v1/x HTTP/1.1\nhost: raw.test\n\n")))),
        ("by a refusal", &|| drop(say(&format!("GET /elsewhere HTTP/1.1\r\n{head}\r\n")).read(&mut [0]))),
        ("in a body", &|| drop(say(&format!("PUT /v1/x HTTP/1.1\r\n{head}content-length: 9\r\n\r\nab")))),
        ("while it waits", &|| reset(&say(&format!("GET /v1/never HTTP/1.1\r\n{head}\r\n")).sock)),
        ("in an answer", &|| drop(say(&format!("GET /v1/endless HTTP/1.1\r\n{head}\r\n")).read(&mut [0]))),
        ("in HTTP/2", &|| {
            let mut bot = Http2::open(&scene.dialer);
            let _ = bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &request("/v1/never"));
        }),
    ];
    let ask = format!("GET /v1/x HTTP/1.1\r\n{head}\r\n");
    for (how, end) in ends {
        for _ in 0..TIMES {
            // Each has a place, and does not end for the want of one.
            wait_until(&format!("a place after those that ended {how}"), || {
                (Reply::read(say(&ask.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1))).status
                    == 200)
                    .then_some(())
            });
            end();
        }
        wait_until(&format!("all places after those that ended {how}"), || {
            let mut streams: Vec<_> = (0..MOST).map(|_| say(&ask)).collect();
            streams.iter_mut().all(|stream| stream.read(&mut [0]).is_ok_and(|count| count > 0)).then_some(())
        });
    }
}

/// One response that has a length.
fn answer(stream: &mut tests::wire::Tls) -> Vec<u8> {
    stream.flush().unwrap();
    let mut came = Vec::new();
    while !Reply::read_one(&mut &came[..]).whole {
        let mut some = [0; 1024];
        let count = stream.read(&mut some).unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&came));
        came.extend(&some[..count]);
    }
    came
}
