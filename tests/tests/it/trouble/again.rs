//! Requests that nobody processed are sent once more, and no others: nothing is done twice.

use std::sync::{Arc, Mutex};

use tests::World;
use tests::frames::{Incoming, Origin};
use tests::upstream::Upstream;

use super::outcome;

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Streams that came, as (connection, stream, body).
type Came = Arc<Mutex<Vec<(usize, u32, Vec<u8>)>>>;

/// An upstream that does this with the first requests of its first `bad` connections, and answers all others.
fn origin(world: &World, bad: usize, act: Act) -> (Origin, Came) {
    let came = Came::default();
    let all = Arc::clone(&came);
    let origin = Origin::start(world, move |number, connection| {
        while let Some((stream, body)) = connection.request() {
            all.lock().unwrap().push((number, stream, body));
            if number < bad { act(connection, stream) } else { connection.answer(stream) }
        }
    });
    (origin, came)
}

/// Uploads to `raw.test`.
fn upload(world: &World, version: &str, path: &str, body: &[u8]) -> u16 {
    let file = world.path("upload");
    std::fs::write(&file, body).unwrap();
    let url = format!("https://raw.test{path}");
    world.curl(&[version, "-H", "expect:", "-T", file.to_str().unwrap(), &url]).status
}

/// What is done with a request on this stream.
type Act = fn(&mut Incoming, u32);

const REFUSALS: [(&str, Act); 4] = [
    ("the stream is refused", |connection, stream| connection.reset(stream, REFUSED_STREAM)),
    ("the server goes away and has processed none", |connection, _| connection.go_away(0, NO_ERROR)),
    ("it goes away twice, as servers do", |connection, _| {
        connection.go_away(i32::MAX as u32, NO_ERROR);
        connection.go_away(0, NO_ERROR);
    }),
    ("it goes away with an error of its own", |connection, _| connection.go_away(0, INTERNAL_ERROR)),
];

#[test]
fn a_request_that_the_server_says_it_did_not_process_is_sent_once_more_whole() {
    let world = World::start();
    for (what, act) in REFUSALS {
        for version in ["--http1.1", "--http2"] {
            let (origin, came) = origin(&world, 1, act);
            assert_eq!(world.curl(&[version, "https://raw.test/v1/x"]).status, 200, "{what}");
            assert_eq!(*came.lock().unwrap(), [(0, 1, vec![]), (1, 1, vec![])], "{what}");
            assert_eq!(origin.connections(), 2, "{what}");
            drop(origin);
            let (origin, came) = self::origin(&world, 1, act);
            let body = vec![b'u'; 40_000];
            let path = "/v1/upload";
            assert_eq!(upload(&world, version, path, &body), 200, "{what}");
            let came = came.lock().unwrap();
            assert!(came.len() == 2 && came.iter().all(|(_, _, got)| *got == body), "{what}: {}", came.len());
            let outcome = outcome(&world, path);
            assert_eq!(
                (&outcome["status"], &outcome["bytes_sent"], &outcome["repeated"]),
                (&200.into(), &40_000.into(), &true.into()),
                "{outcome}"
            );
            drop(origin);
        }
    }
}

#[test]
fn a_server_that_refuses_for_ever_is_asked_twice_and_is_to_blame() {
    let world = World::start();
    for (what, act) in REFUSALS {
        let (origin, came) = origin(&world, usize::MAX, act);
        let path = format!("/v1/{}", what.replace(' ', "-"));
        assert_eq!(world.curl(&[&format!("https://raw.test{path}")]).status, 502, "{what}");
        let outcome = outcome(&world, &path);
        assert_eq!(outcome["blame"], "upstream", "{outcome}");
        assert_eq!((came.lock().unwrap().len(), origin.connections()), (2, 2), "{what}");
    }
}

#[test]
fn a_request_that_may_have_been_processed_is_never_sent_again() {
    let world = World::start();
    let acts: [(&str, Act); 6] = [
        ("the stream fails", |connection, stream| connection.reset(stream, INTERNAL_ERROR)),
        ("the stream is cancelled", |connection, stream| connection.reset(stream, CANCEL)),
        ("it goes away after this one", |connection, stream| {
            connection.go_away(stream, NO_ERROR);
            connection.reset(stream, CANCEL);
        }),
        ("it goes away after this one, with an error, and closes", |connection, stream| {
            connection.go_away(stream, INTERNAL_ERROR);
            connection.end();
        }),
        ("it closes", |connection, _| connection.end()),
        ("it is told to calm down", |connection, _| connection.go_away(0, ENHANCE_YOUR_CALM)),
    ];
    for (what, act) in acts {
        let (origin, came) = origin(&world, usize::MAX, act);
        assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 502, "{what}");
        assert_eq!((came.lock().unwrap().len(), origin.connections()), (1, 1), "{what}");
    }
    // More of a body than is kept.
    let (_origin, came) =
        origin(&world, usize::MAX, |connection, stream| connection.reset(stream, REFUSED_STREAM));
    assert_eq!(upload(&world, "--http1.1", "/v1/large", &vec![b'u'; 100_000]), 502);
    assert_eq!(came.lock().unwrap().len(), 1);
}

#[test]
fn requests_that_one_connection_refused_together_share_the_next_one() {
    const TOGETHER: usize = 20;
    let world = World::start();
    let (origin, came) = origin(&world, 1, |connection, stream| {
        // The first is answered, so that the others come together.
        match stream {
            1 => connection.answer(stream),
            _ if stream as usize == 1 + 2 * TOGETHER => connection.go_away(1, NO_ERROR),
            _ => {}
        }
    });
    assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 200);
    let bots: Vec<_> = (0..TOGETHER)
        .map(|_| {
            world
                .bot("curl")
                .args(["-s", "-o", "/dev/null", "-w", "%{http_code}\n", "https://raw.test/v1/x"])
                .spawn()
        })
        .collect();
    for mut bot in bots {
        assert_eq!(bot.line(), "200");
    }
    assert_eq!(origin.connections(), 2);
    assert_eq!(came.lock().unwrap().len(), 1 + 2 * TOGETHER);
}

#[test]
fn over_http1_what_may_be_done_twice_is_sent_again_when_a_kept_connection_was_closed() {
    let world = World::new();
    world.policy(
        "policies/curl.toml",
        "[identity]\nexe = \"{root}/bots/curl\"\n\n\
         [[grant]]\napi = \"demo\"\nallow = [\"* /v1/**\"]\ncredential = \"demo-key\"\n",
    );
    world.daemon();
    let upstream = Upstream::http1(&world);
    let call = |method: &str, act: &str| {
        let (connections, count) = (upstream.connections(), upstream.count());
        // One that is kept, and will be closed.
        assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 200);
        let body: &[&str] = if method == "GET" || method == "DELETE" { &[] } else { &["-d", "body"] };
        let url = format!("https://raw.test/v1/{method}/{act}");
        let answer = world.curl(&[&["-X", method, &url], body].concat());
        let bodies =
            upstream.seen().split_off(count + 1).into_iter().map(|seen| seen.body.len()).collect::<Vec<_>>();
        let repeated = outcome(&world, &format!("/v1/{method}/{act}"))["repeated"] == true;
        assert_eq!(
            repeated,
            bodies.len() == 2,
            "{method} {act}: the journal does not tell how often it was sent"
        );
        (answer.status, bodies, upstream.connections() - connections)
    };
    // So that one is kept from now on.
    assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 200);
    for (method, length) in [("GET", 0), ("PUT", 4), ("DELETE", 0)] {
        assert_eq!(call(method, "close-kept"), (200, vec![length, length], 1), "{method}");
    }
    for act in ["reset-kept", "cut-kept"] {
        assert_eq!(call("GET", act), (200, vec![0, 0], 1), "{act}");
    }
    for method in ["POST", "PATCH"] {
        assert_eq!(call(method, "close-kept"), (502, vec![4], 0), "{method}");
        assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 200);
    }
    assert_eq!(call("GET", "half-kept"), (502, vec![0], 0), "it had begun to answer");
}
