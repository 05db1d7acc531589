//! HTTP/2 from one end to the other: windows, resets and their reasons, and the tools of nghttp2 on both legs.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tests::frames::{
    ACK, DATA, Dealt, END_HEADERS, END_STREAM, Frame, HEADERS, Http2, Incoming, Origin, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame,
};
use tests::wire::Dialer;
use tests::{RAW_ADDRESS, World};

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn head(path: &str, method: &str) -> Vec<u8> {
    block(&[
        (b":method", method.as_bytes()),
        (b":scheme", b"https"),
        (b":path", path.as_bytes()),
        (b":authority", b"raw.test"),
    ])
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

/// A connection of a bot whose windows are those that the daemon gives.
fn open(dialer: &Dialer) -> Http2 {
    let mut bot = Http2::open(dialer);
    know_windows(&mut bot);
    bot
}

/// Has the windows be those that the daemon gives.
fn know_windows(bot: &mut Http2) {
    std::iter::from_fn(|| bot.read()).find(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).unwrap();
    bot.send(SETTINGS, ACK, 0, &[]).unwrap();
}

/// What becomes of the window of a stream until nothing comes for a while: bytes that may be sent beyond the first window.
fn granted(read: impl FnMut() -> Option<Frame>) -> u64 {
    std::iter::from_fn(read)
        .filter(|frame| frame.kind == WINDOW_UPDATE && frame.stream != 0)
        .map(|frame| u64::from(number(&frame.payload)))
        .sum()
}

/// As long as nothing comes for this, nothing will.
const QUIET: Duration = Duration::from_millis(1500);
/// The window of a stream, on both legs.
const WINDOW: usize = 1 << 20;
/// What may lie between the legs besides: what is written and not taken.
const BETWEEN: u64 = 1 << 20;

#[test]
fn what_a_client_does_not_take_is_not_asked_of_the_upstream() {
    let world = World::start();
    let (told, tell): (Receiver<u64>, Sender<u64>) = {
        let (tell, told) = channel();
        (told, tell)
    };
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::start(&world, move |_, upstream| {
        let Some((stream, _)) = upstream.request() else { return };
        upstream.send(SETTINGS, ACK, 0, &[]).unwrap();
        upstream.begin(stream);
        for _ in 0..WINDOW >> 14 {
            upstream.send(DATA, 0, stream, &[b'x'; 1 << 14]).unwrap();
        }
        upstream.socket().set_read_timeout(Some(QUIET)).unwrap();
        let _ = tell.lock().unwrap().send(granted(|| upstream.read()));
        // The client takes some now.
        upstream.socket().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let more = std::iter::from_fn(|| upstream.read()).find(|frame| frame.kind == WINDOW_UPDATE);
        let _ = tell.lock().unwrap().send(u64::from(number(&more.unwrap().payload)));
        while upstream.read().is_some() {}
    });
    let mut bot = open(&Dialer::new(&world));
    bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &head("/v1/x", "GET")).unwrap();
    let limit = Duration::from_secs(20);
    let first = told.recv_timeout(limit).unwrap();
    // What is read and waits to be written is less than half of the window, at which more is asked for.
    assert!(first < WINDOW as u64 / 2, "{first} bytes more were asked for than anybody took");
    for stream in [0, 1] {
        bot.send(WINDOW_UPDATE, 0, stream, &(8_u32 << 20).to_be_bytes()).unwrap();
    }
    let mut came = 0;
    while came < WINDOW {
        let frame = bot.read().unwrap();
        came += if frame.kind == DATA { frame.payload.len() } else { 0 };
    }
    assert!(told.recv_timeout(limit).unwrap() > 0, "and nothing when somebody did");
    drop((bot, origin));
}

#[test]
fn what_an_upstream_does_not_take_is_not_asked_of_the_client() {
    let world = World::start();
    let (go, opened) = channel::<()>();
    let opened = std::sync::Mutex::new(opened);
    // It gives a megabyte, and no more until it is told to.
    let origin = Origin::start(&world, move |_, upstream| {
        let frame = std::iter::from_fn(|| upstream.read()).find(|frame| frame.kind == HEADERS).unwrap();
        opened.lock().unwrap().recv().unwrap();
        for stream in [0, frame.stream] {
            upstream.send(WINDOW_UPDATE, 0, stream, &(64_u32 << 20).to_be_bytes()).unwrap();
        }
        let is_last = |frame: &Frame| frame.kind == DATA && frame.flags & END_STREAM != 0;
        while upstream.read().is_some_and(|frame| !is_last(&frame)) {}
        upstream.answer(frame.stream);
        while upstream.read().is_some() {}
    });
    let mut bot = open(&Dialer::new(&world));
    bot.send(HEADERS, END_HEADERS, 1, &head("/v1/x", "PUT")).unwrap();
    // What the daemon says of its windows comes first, as settings; then as updates.
    let mut window = 1_u64 << 20;
    let mut sent = 0_u64;
    bot.tcp().set_read_timeout(Some(QUIET)).unwrap();
    loop {
        while sent < window {
            bot.send(DATA, 0, 1, &[b'x'; 1 << 14]).unwrap();
            sent += 1 << 14;
        }
        match granted_once(&mut bot) {
            Some(more) => window += more,
            None => break,
        }
        assert!(window <= (2 * WINDOW as u64) + BETWEEN, "{window} bytes were taken that nobody took");
    }
    go.send(()).unwrap();
    bot.tcp().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(granted_once(&mut bot).is_some(), "and nothing when somebody did");
    bot.send(DATA, END_STREAM, 1, &[]).unwrap();
    assert_eq!(bot.dealt(1), Dealt::Answered(200));
    drop(origin);
}

/// The next update of a stream's window; nothing after a while.
fn granted_once(bot: &mut Http2) -> Option<u64> {
    let more = std::iter::from_fn(|| bot.read())
        .find(|frame| frame.kind == WINDOW_UPDATE && frame.stream != 0 || frame.kind == RST_STREAM)?;
    assert_eq!(more.kind, WINDOW_UPDATE, "{more:?}");
    Some(u64::from(number(&more.payload)))
}

/// What an upstream does with each request.
type Act = fn(&mut Incoming, u32);

#[test]
fn a_reset_by_the_client_reaches_the_upstream_before_and_within_the_answer_and_says_that_it_is_not_wanted() {
    let world = World::start();
    let begin: Act = |upstream, stream| {
        upstream.begin(stream);
        let _ = upstream.send(DATA, 0, stream, b"first");
    };
    let wait: Act = |_, _| {};
    for act in [wait, begin] {
        let (tell, told) = channel();
        let tell = std::sync::Mutex::new(tell);
        let origin = Origin::start(&world, move |_, upstream| {
            let Some((stream, _)) = upstream.request() else { return };
            act(upstream, stream);
            tell.lock().unwrap().send(None).unwrap();
            let reset = std::iter::from_fn(|| upstream.read()).find(|frame| frame.kind == RST_STREAM);
            tell.lock()
                .unwrap()
                .send(reset.map(|frame| (frame.stream == stream, number(&frame.payload))))
                .unwrap();
        });
        let mut bot = Http2::open(&Dialer::new(&world));
        bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &head("/v1/x", "GET")).unwrap();
        let limit = Duration::from_secs(20);
        assert_eq!(told.recv_timeout(limit).unwrap(), None);
        if std::ptr::fn_addr_eq(act, begin) {
            assert_eq!(bot.dealt(1), Dealt::Answered(200));
        }
        bot.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()).unwrap();
        assert_eq!(told.recv_timeout(limit).unwrap(), Some((true, CANCEL)));
        // The connections go on.
        assert_eq!(super::outcome(&world, "/v1/x")["blame"], "client");
        drop(origin);
    }
}

#[test]
fn a_reset_by_the_upstream_within_its_answer_reaches_the_client_with_its_reason() {
    let world = World::start();
    for code in [NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM] {
        let origin = Origin::start(&world, move |_, upstream| {
            while let Some((stream, _)) = upstream.request() {
                upstream.begin(stream);
                let _ = upstream.send(DATA, 0, stream, b"first");
                upstream.reset(stream, code);
            }
        });
        let mut bot = Http2::open(&Dialer::new(&world));
        bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &head("/v1/x", "GET")).unwrap();
        let reset = std::iter::from_fn(|| bot.read()).find(|frame| frame.kind == RST_STREAM);
        let reset = number(&reset.unwrap().payload);
        // Others say something of us, or what is not so: it may have been processed, and it is no end.
        let expected = if [CANCEL, ENHANCE_YOUR_CALM].contains(&code) { code } else { INTERNAL_ERROR };
        assert_eq!(reset, expected, "{code}");
        assert_eq!(super::outcome(&world, "/v1/x")["blame"], "upstream");
        drop(bot);
        let answer = world.curl(&["--http1.1", "https://raw.test/v1/x"]);
        assert!([18, 56].map(Some).contains(&answer.code), "{code}: it looks whole over HTTP/1: {answer:?}");
        assert!(answer.body.starts_with("first"), "{code}: {answer:?}");
        drop(origin);
    }
    let denied = world.journal().into_iter().find(|record| record["verdict"] == "deny");
    assert_eq!(denied, None, "the client broke no rule");
}

#[test]
fn what_came_before_a_reset_reaches_the_client_before_it() {
    let world = World::start();
    let origin = Origin::start(&world, move |_, upstream| {
        let Some((stream, _)) = upstream.request() else { return };
        let reset = frame(RST_STREAM, 0, stream, &INTERNAL_ERROR.to_be_bytes());
        let all = [frame(HEADERS, END_HEADERS, stream, &[0x88]), frame(DATA, 0, stream, b"first"), reset];
        let _ = upstream.raw(&all.concat());
        while upstream.read().is_some() {}
    });
    let mut bot = Http2::open(&Dialer::new(&world));
    bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &head("/v1/x", "GET")).unwrap();
    let frames: Vec<_> =
        std::iter::from_fn(|| bot.read()).filter(|frame| frame.stream == 1).take(3).collect();
    let kinds: Vec<_> = frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [HEADERS, DATA, RST_STREAM]);
    assert_eq!(frames[1].payload, b"first");
    drop((bot, origin));
}

#[test]
fn a_reset_by_the_client_within_its_request_is_not_the_end_of_it_whatever_it_says() {
    let world = World::start();
    for code in [NO_ERROR, INTERNAL_ERROR, CANCEL] {
        let (tell, told) = channel();
        let tell = std::sync::Mutex::new(tell);
        let origin = Origin::start(&world, move |_, upstream| {
            let data = std::iter::from_fn(|| upstream.read()).find(|frame| frame.kind == DATA);
            let _ = tell.lock().unwrap().send(data);
            let is_end = |frame: &Frame| {
                frame.kind == RST_STREAM || frame.flags & END_STREAM != 0 && frame.kind == DATA
            };
            let _ = tell.lock().unwrap().send(std::iter::from_fn(|| upstream.read()).find(is_end));
        });
        let mut bot = Http2::open(&Dialer::new(&world));
        bot.send(HEADERS, END_HEADERS, 1, &head("/v1/x", "PUT")).unwrap();
        bot.send(DATA, 0, 1, b"first").unwrap();
        let limit = Duration::from_secs(20);
        let data = told.recv_timeout(limit).unwrap().unwrap();
        assert_eq!((&data.payload[..], data.flags & END_STREAM), (&b"first"[..], 0));
        bot.send(RST_STREAM, 0, 1, &code.to_be_bytes()).unwrap();
        let end = told.recv_timeout(limit).unwrap().unwrap();
        assert_eq!((end.kind, number(&end.payload)), (RST_STREAM, CANCEL), "{code}");
        assert_eq!(super::outcome(&world, "/v1/x")["blame"], "client");
        drop((bot, origin));
    }
}

/// Answers a request of which not all came.
fn answered_early(world: &World, more: &'static [Vec<u8>], play: impl Fn(&mut Http2)) {
    let origin = Origin::start(world, move |_, upstream| {
        let request = std::iter::from_fn(|| upstream.read()).find(|frame| frame.kind == HEADERS).unwrap();
        assert_eq!(request.stream, 1);
        upstream.raw(&more.concat()).unwrap();
        let is_end =
            |frame: &Frame| frame.kind == DATA && frame.flags & END_STREAM != 0 || frame.kind == RST_STREAM;
        let mut sent = 0;
        while let Some(frame) = upstream.read() {
            if frame.kind == DATA && !frame.payload.is_empty() {
                sent += frame.payload.len();
                for stream in [0, 1] {
                    let _ =
                        upstream.send(WINDOW_UPDATE, 0, stream, &(frame.payload.len() as u32).to_be_bytes());
                }
            }
            if is_end(&frame) {
                let _ = upstream.send(DATA, END_STREAM, 1, format!(" {sent}").as_bytes());
            }
        }
    });
    let mut bot = Http2::dial(&Dialer::new(world));
    bot.raw(PREFACE).unwrap();
    play(&mut bot);
    drop((bot, origin));
}

/// The data of a stream to its end, and how it ended.
fn data(bot: &mut Http2) -> (String, Frame) {
    let mut all = Vec::new();
    loop {
        let frame = bot.read().unwrap();
        if frame.stream != 1 || frame.kind == WINDOW_UPDATE {
            continue;
        }
        if frame.kind == DATA {
            all.extend(&frame.payload);
        }
        if frame.kind == RST_STREAM || frame.flags & END_STREAM != 0 && frame.kind <= HEADERS {
            return (String::from_utf8(all).unwrap(), frame);
        }
    }
}

#[test]
fn an_answer_that_is_whole_stays_whole_when_no_more_of_its_request_is_wanted() {
    let world = World::start();
    let whole: &'static [Vec<u8>] = Box::leak(Box::new([
        frame(HEADERS, END_HEADERS, 1, &[0x88]),
        frame(DATA, END_STREAM, 1, b"whole"),
        frame(RST_STREAM, 0, 1, &NO_ERROR.to_be_bytes()),
    ]));
    answered_early(&world, whole, |bot| {
        bot.send(SETTINGS, 0, 0, &[]).unwrap();
        bot.send(HEADERS, END_HEADERS, 1, &head("/v1/x", "PUT")).unwrap();
        bot.send(DATA, 0, 1, b"first").unwrap();
        let (text, last) = data(bot);
        assert_eq!((text.as_str(), last.kind), ("whole", DATA));
        // And the client learns that it need not go on.
        let reset = std::iter::from_fn(|| bot.read()).find(|frame| frame.kind == RST_STREAM).unwrap();
        assert_eq!(number(&reset.payload), NO_ERROR);
    });
    assert_eq!(super::outcome(&world, "/v1/x")["blame"], serde_json::Value::Null);
}

#[test]
fn a_request_goes_on_while_its_client_takes_nothing_of_the_answer_and_behind_the_answer() {
    const EACH: usize = 1 << 14;
    const SENT: usize = 200 * EACH;
    let world = World::start();
    let begun: &'static [Vec<u8>] = Box::leak(Box::new([
        frame(HEADERS, END_HEADERS, 1, &[0x88]),
        frame(DATA, 0, 1, &vec![b'x'; EACH]),
        frame(DATA, 0, 1, &vec![b'x'; EACH]),
    ]));
    let upload = |bot: &mut Http2| {
        let (mut window, mut sent) = (WINDOW as u64, 0);
        while sent < SENT {
            while window < EACH as u64 {
                window += granted_once(bot).unwrap();
            }
            bot.send(DATA, 0, 1, &[b'u'; EACH]).unwrap();
            window -= EACH as u64;
            sent += EACH;
        }
        bot.send(DATA, END_STREAM, 1, &[]).unwrap();
    };
    answered_early(&world, begun, |bot| {
        // The window of a stream is nothing.
        bot.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).unwrap();
        know_windows(bot);
        bot.send(HEADERS, END_HEADERS, 1, &head("/v1/held", "PUT")).unwrap();
        assert_eq!(bot.dealt(1), Dealt::Answered(200));
        upload(bot);
        bot.send(WINDOW_UPDATE, 0, 1, &(1_u32 << 20).to_be_bytes()).unwrap();
        let (text, last) = data(bot);
        assert_eq!((text.trim_matches('x'), last.kind), (format!(" {SENT}").as_str(), DATA));
    });
    // An upstream that said all before it has all.
    let (tell, told) = channel();
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::start(&world, move |_, upstream| {
        let request = std::iter::from_fn(|| upstream.read()).find(|frame| frame.kind == HEADERS).unwrap();
        upstream.answer(request.stream);
        let is_last =
            |frame: &Frame| frame.kind == RST_STREAM || frame.kind == DATA && frame.flags & END_STREAM != 0;
        let _ = tell.lock().unwrap().send(std::iter::from_fn(|| upstream.read()).find(is_last).unwrap().kind);
    });
    let mut bot = Http2::open(&Dialer::new(&world));
    bot.send(HEADERS, END_HEADERS, 1, &head("/v1/behind", "PUT")).unwrap();
    assert_eq!(bot.dealt(1), Dealt::Answered(200));
    bot.send(DATA, 0, 1, b"behind the answer").unwrap();
    bot.send(DATA, END_STREAM, 1, &[]).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(20)).unwrap(), DATA);
    drop((bot, origin));
}

#[test]
fn the_tools_of_nghttp2_get_all_they_ask_for_on_either_leg() {
    const EACH: usize = 640;
    let world = World::new();
    for tool in ["h2load", "nghttp"] {
        world.copy(format!("/usr/bin/{tool}"), &format!("bots/{tool}"));
        world.identity(tool, &format!("exe = \"{{root}}/bots/{tool}\""));
    }
    world.set("log.level", "\"info\"");
    world.daemon();
    let load = |version: &str, url: &str| {
        let many = ["-n", &EACH.to_string(), "-c", "4", "-m", "32", version, url].map(String::from);
        let told = world.bot("h2load").args(many).run();
        let all = format!("{EACH} total, {EACH} started, {EACH} done, {EACH} succeeded, 0 failed");
        assert!(told.stdout.contains(&all), "{version} {url}: {told:?}");
        assert!(told.stdout.contains(&format!("status codes: {EACH} 2xx")), "{told:?}");
    };
    // Two protocols to nginx, and to nghttpd, which speaks HTTP/2 only and would push.
    std::fs::create_dir_all(world.path("files/v1")).unwrap();
    world.write("files/v1/page", &"page ".repeat(20_000));
    world.write("files/v1/pushed", "pushed");
    let place = [format!("--htdocs={}", world.path("files").display()), format!("--address={RAW_ADDRESS}")];
    let mut server = place.iter().map(String::as_str).collect::<Vec<_>>();
    server.extend(["--push=/v1/page=/v1/pushed", "--trailer=x-checksum: whole", "--verbose", "443"]);
    server.extend(["api/server.key", "api/server.pem"]);
    world.server("nghttpd", "nghttpd", &server, &format!("{RAW_ADDRESS}:443"));
    for version in ["--window-bits=20", "--h1"] {
        load(version, "https://api.test/v1/x");
        load(version, "https://raw.test/v1/page");
    }
    let told = world.bot("nghttp").args(["--verbose", "--no-dep", "https://raw.test/v1/page"]).run();
    assert!(told.stdout.contains(":status: 200") && told.stdout.contains("x-checksum: whole"), "{told:?}");
    let said = std::fs::read_to_string(world.path("nghttpd.log")).unwrap();
    assert!(!said.contains("/v1/pushed") && !said.contains("PUSH_PROMISE"), "something was pushed");
    let form = ["--data=files/v1/page", "--header=:method: PUT", "--no-dep", "--verbose"];
    let upload = world.bot("nghttp").args(form).arg("https://raw.test/v1/page");
    let mut upload = upload.command();
    let told = upload.current_dir(world.path("")).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).contains(":status: 200"), "{told:?}");
    // Besides the datagram by which a library asks for the addresses of this host.
    let refused = |record: &serde_json::Value| record["verdict"] == "deny" && record["scheme"] != "udp";
    assert_eq!(world.journal().into_iter().find(refused), None);
}
