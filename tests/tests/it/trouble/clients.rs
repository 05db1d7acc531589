//! Clients that do not behave before they ask for anything: silent, cut off, in masses.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use tests::frames::{
    self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use tests::upstream::Upstream;
use tests::wire::{Dialer, Reply};
use tests::{World, wait_until};

use super::{RAW, Scene};

/// Reads until the daemon closes, and returns what came.
fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut rest);
    rest
}

#[test]
fn a_client_that_sends_nothing_is_closed_and_journalled() {
    let world = World::new();
    world.set("limits.sniff_timeout", "\"200ms\"");
    let scene = Scene::with(world);
    let silent = scene.dialer.dial(RAW);
    assert!(rest(&silent).is_empty());
    let denial = scene.world.decision(None);
    assert!(denial["reason"].as_str().unwrap().contains("0 bytes in 200 ms"), "{denial}");
    assert_eq!(denial["identity"], "python");
    assert_eq!(scene.upstream.connections(), 0);
}

#[test]
fn a_client_hello_cut_at_every_length_is_journalled_and_the_daemon_lives() {
    let scene = Scene::set();
    let hello = scene.dialer.hello("raw.test");
    for length in 0..hello.len() {
        let mut stream = scene.dialer.dial(RAW);
        stream.write_all(&hello[..length]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let got = rest(&stream);
        assert!(got.is_empty() || got[0] == 21, "cut at {length}: {got:?} is neither nothing nor an alert");
    }
    wait_until("a record for each length", || (scene.denials().len() >= hello.len()).then_some(()));
    let denials = scene.denials();
    assert_eq!(denials.len(), hello.len(), "one record for each, not more");
    for (length, denial) in denials.iter().enumerate() {
        let expected = format!("after {length} bytes");
        assert!(denial["reason"].as_str().unwrap().contains(&expected), "{length}: {denial}");
    }
    assert_eq!(scene.upstream.connections(), 0);
    assert!(!scene.world.log().contains("panicked"), "{}", scene.world.log());
    scene.still_serves();
}

#[test]
fn a_client_hello_cut_at_every_length_and_held_open_is_closed_and_journalled() {
    let world = World::new();
    world.set("limits.sniff_timeout", "\"500ms\"");
    let scene = Scene::with(world);
    let hello = scene.dialer.hello("raw.test");
    let held: Vec<TcpStream> = (0..hello.len())
        .map(|length| {
            let mut stream = scene.dialer.dial(RAW);
            stream.write_all(&hello[..length]).unwrap();
            stream
        })
        .collect();
    for (length, stream) in held.iter().enumerate() {
        assert!(rest(stream).is_empty(), "cut at {length}");
    }
    wait_until("a record for each length", || (scene.denials().len() >= hello.len()).then_some(()));
    assert!(scene.denials().iter().all(|denial| denial["reason"].as_str().unwrap().contains("in 500 ms")));
    scene.still_serves();
}

#[test]
fn a_client_hello_with_any_byte_changed_does_no_harm() {
    let scene = Scene::set();
    let hello = scene.dialer.hello("raw.test");
    for place in 0..hello.len() {
        let mut bytes = hello.clone();
        bytes[place] = !bytes[place];
        let mut stream = scene.dialer.dial(RAW);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        rest(&stream);
    }
    wait_until("a record for each", || (scene.denials().len() >= hello.len()).then_some(()));
    assert_eq!(scene.upstream.count(), 0);
    assert!(!scene.world.log().contains("panicked"), "{}", scene.world.log());
    scene.still_serves();
}

#[test]
fn a_request_cut_at_every_length_never_reaches_the_upstream() {
    let scene = Scene::set();
    let request = b"PUT /v1/cut HTTP/1.1\r\nhost: raw.test\r\ncontent-length: 3\r\n\r\n";
    for length in 0..request.len() {
        let mut stream = scene.dialer.tls(RAW, "raw.test");
        stream.write_all(&request[..length]).unwrap();
        stream.conn.send_close_notify();
        let _ = stream.flush();
        let _ = stream.sock.shutdown(Shutdown::Write);
        let reply = Reply::read(&mut stream);
        assert!([0, 400].contains(&reply.status), "cut at {length}: {reply:?}");
    }
    assert_eq!(scene.upstream.count(), 0);
    scene.still_serves();
}

#[test]
fn a_header_that_does_not_end_in_time_is_408_and_journalled() {
    let world = World::new();
    world.set("limits.header_timeout", "\"300ms\"");
    let scene = Scene::with(world);
    let reply = scene.dialer.say(b"GET /v1/x HTTP/1.1\r\nhost: raw.test\r\nx-slow: ");
    assert_eq!(reply.status, 408, "{reply:?}");
    let denial = scene.world.record("decision", |record| record["verdict"] == "deny");
    assert!(denial["reason"].as_str().unwrap().contains("in time"), "{denial}");
    assert_eq!(scene.upstream.connections(), 0);
}

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// Reads one answer, whose length its head says; its status.
fn answered(stream: &mut Tls) -> u16 {
    let (mut came, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&came).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return head.split(' ').nth(1).unwrap().parse().unwrap();
            }
        }
        match stream.read(&mut piece).unwrap() {
            0 => panic!("it was closed: {text}"),
            count => came.extend_from_slice(&piece[..count]),
        }
    }
}

#[test]
fn between_two_requests_a_connection_may_rest_for_longer_than_a_header_may_take_and_not_for_ever() {
    let world = World::new();
    world.set("limits.header_timeout", "\"300ms\"");
    world.set("limits.idle_timeout", "\"3s\"");
    let scene = Scene::with(world);
    let mut stream = scene.dialer.tls(RAW, "raw.test");
    let ask = |stream: &mut Tls, more: &str| {
        write!(stream, "PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\ncontent-length: 0\r\n{more}").unwrap();
    };
    ask(&mut stream, "\r\n");
    assert_eq!(answered(&mut stream), 200);
    std::thread::sleep(Duration::from_millis(1200));
    ask(&mut stream, "\r\n");
    assert_eq!(answered(&mut stream), 200, "it rested for four times as long as a header may take");
    // The next header has its own time, from when it begins.
    std::thread::sleep(Duration::from_millis(600));
    let begun = Instant::now();
    ask(&mut stream, "x-slow: ");
    let late = Reply::read(&mut stream);
    assert_eq!(late.status, 408, "{late:?}");
    assert!(begun.elapsed() < Duration::from_millis(2500), "it had the time of a connection that rests");
    let mut resting = scene.dialer.tls(RAW, "raw.test");
    ask(&mut resting, "\r\n");
    assert_eq!(answered(&mut resting), 200);
    let rested = Instant::now();
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut resting, &mut rest);
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    let rested = rested.elapsed();
    assert!(rested > Duration::from_secs(2) && rested < Duration::from_secs(15), "it rested for {rested:?}");
}

#[test]
fn a_client_that_takes_nothing_of_an_answer_is_let_go_of_and_one_that_takes_it_slowly_is_not() {
    let world = World::new();
    world.set("limits.header_timeout", "\"300ms\"");
    world.set("limits.write_timeout", "\"1s\"");
    let scene = Scene::with(world);
    let ask = b"GET /v1/endless HTTP/1.1\r\nhost: raw.test\r\n\r\n";
    let mut slow = scene.dialer.tls(RAW, "raw.test");
    slow.write_all(ask).unwrap();
    let mut piece = vec![0; 16 * 1024];
    let begun = Instant::now();
    // All in all far less than there is, but something within every second.
    while begun.elapsed() < Duration::from_secs(5) {
        for _ in 0..100 {
            slow.read_exact(&mut piece).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(slow);
    let gone =
        |record: &serde_json::Value| record["error"].as_str().is_some_and(|it| it.contains("went away"));
    scene.world.record("outcome", gone);
    let mut idle = scene.dialer.tls(RAW, "raw.test");
    idle.write_all(ask).unwrap();
    idle.read_exact(&mut piece).unwrap();
    let idle_since = Instant::now();
    wait_until("the client that reads nothing is let go of", || {
        (scene.world.status()["connections_open"] == 0).then_some(())
    });
    assert!(idle_since.elapsed() > Duration::from_millis(900), "{:?}", idle_since.elapsed());
}

/// Asks for an answer without end, over HTTP/2.
fn endless() -> Vec<u8> {
    frames::block(&[
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/v1/endless"),
        (b":authority", b"raw.test"),
    ])
}

#[test]
fn over_http_2_a_stream_that_nothing_is_taken_of_is_reset_and_the_others_go_on() {
    let world = World::new();
    world.set("limits.header_timeout", "\"300ms\"");
    world.set("limits.write_timeout", "\"1s\"");
    let scene = Scene::with(world);
    let mut bot = Http2::open(&scene.dialer);
    let ask = endless();
    // Each has room for 64 KiB, and so has the connection; more of it is told as it comes, and of the first stream nothing.
    for stream in [1, 3] {
        bot.send(HEADERS, END_HEADERS | END_STREAM, stream, &ask).unwrap();
    }
    let (begun, mut reset, mut taken) = (Instant::now(), None, 0);
    while begun.elapsed() < Duration::from_secs(5) {
        let frame = bot.read().expect("the connection is open");
        match (frame.kind, frame.stream) {
            (DATA, stream) => {
                let room = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
                bot.send(WINDOW_UPDATE, 0, 0, &room).unwrap();
                if stream == 3 {
                    bot.send(WINDOW_UPDATE, 0, 3, &room).unwrap();
                    taken += frame.payload.len();
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            (RST_STREAM, 1) => reset = Some((frame.payload, begun.elapsed())),
            (RST_STREAM | GOAWAY, _) => panic!("{frame:?}"),
            _ => {}
        }
    }
    let (code, after) = reset.expect("the stream that nothing is taken of is reset");
    assert_eq!(code, 8_u32.to_be_bytes(), "CANCEL");
    assert!(after > Duration::from_millis(900) && after < Duration::from_secs(4), "{after:?}");
    assert!(taken > 1 << 20, "the other one went on: {taken}");
}

#[test]
fn over_http_2_a_client_that_reads_nothing_at_all_is_let_go_of() {
    let world = World::new();
    world.set("limits.header_timeout", "\"300ms\"");
    world.set("limits.write_timeout", "\"1s\"");
    let scene = Scene::with(world);
    let mut bot = Http2::dial(&scene.dialer);
    bot.raw(frames::PREFACE).unwrap();
    // Windows without end: what holds it up is TCP.
    let window = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    bot.send(SETTINGS, 0, 0, &window).unwrap();
    bot.send(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()).unwrap();
    let ask = endless();
    bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &ask).unwrap();
    let idle_since = Instant::now();
    wait_until("the client that reads nothing is let go of", || {
        (scene.world.status()["connections_open"] == 0).then_some(())
    });
    assert!(idle_since.elapsed() > Duration::from_millis(900), "{:?}", idle_since.elapsed());
}

#[test]
fn no_more_connections_are_served_at_once_than_the_limit_says_and_the_others_wait() {
    const LIMIT: usize = 4;
    const MORE: usize = 3;
    let world = World::new();
    world.set("limits.connections", &LIMIT.to_string());
    world.daemon();
    let upstream = Upstream::http1(&world);
    let dialer = Dialer::new(&world);
    let mut streams: Vec<_> = (0..LIMIT + MORE).map(|_| dialer.tls(RAW, "raw.test")).collect();
    let ask = b"GET /v1/slow-head HTTP/1.1\r\nhost: raw.test\r\nconnection: close\r\n\r\n";
    std::thread::scope(|scope| {
        let clients: Vec<_> = streams
            .iter_mut()
            .map(|stream| {
                scope.spawn(move || {
                    stream.write_all(ask).unwrap();
                    Reply::read(stream)
                })
            })
            .collect();
        upstream.wait_for(LIMIT);
        wait_until("a connection that waits to be accepted", || {
            let queue = world.enter(None).args(["ss", "-Hltn", "sport = :15001"]).output().unwrap();
            let queue = String::from_utf8_lossy(&queue.stdout).into_owned();
            let waiting =
                queue.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok());
            (waiting.sum::<u32>() >= 1).then_some(())
        });
        assert_eq!(world.status()["connections_open"], LIMIT);
        assert_eq!(upstream.count(), LIMIT, "more were served than the limit says");
        upstream.open_gate(LIMIT + MORE);
        for client in clients {
            assert_eq!(client.join().unwrap().text(), "late");
        }
    });
}

#[test]
fn a_limit_of_one_connection_serves_one_after_the_other() {
    let world = World::new();
    world.set("limits.connections", "1");
    world.daemon();
    for _ in 0..3 {
        assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
        assert_eq!(world.curl(&["-6", "https://api.test/v1/x"]).status, 200);
    }
}
