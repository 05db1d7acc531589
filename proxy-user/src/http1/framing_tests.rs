//! The framing of HTTP/1, in every division into pieces.

use super::*;

impl Framing {
    /// Follows what came, one request after another; of a response, its head alone.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Found> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.is_over() && (self.message == Message::Requests || self.is_interim()) {
                self.begin();
            }
            if self.message == Message::Responses && self.state != State::Head {
                return Ok(());
            }
            let (_, taken) = self.step(rest).map_err(|found| Found { at: at + found.at, ..found })?;
            at += taken;
        }
        Ok(())
    }
}

/// What a message is at fault with, the same however it comes in pieces.
#[track_caller]
fn read(message: Message, text: &str) -> Result<bool, Fault> {
    let bytes = text.as_bytes();
    let start = || Framing::new(message);
    let told = |framing: &Framing, fed: Result<(), Found>| {
        fed.map(|()| framing.is_over() || framing.is_new() || framing.head.empty_lines > 0)
            .map_err(|found| (found.fault, found.at))
    };
    let mut framing = start();
    let fed = framing.feed(bytes);
    let whole = told(&framing, fed);
    for cut in 1..bytes.len() {
        let mut framing = start();
        let fed = framing.feed(&bytes[..cut]).and_then(|()| {
            let fed = framing.feed(&bytes[cut..]);
            fed.map_err(|found| Found { at: found.at + cut, ..found })
        });
        assert_eq!(told(&framing, fed), whole, "{text:?} cut at {cut}");
    }
    let mut framing = start();
    let mut fed = Ok(());
    for (at, byte) in bytes.iter().enumerate() {
        fed = framing.feed(std::slice::from_ref(byte)).map_err(|found| Found { at: found.at + at, ..found });
        if fed.is_err() {
            break;
        }
    }
    assert_eq!(told(&framing, fed), whole, "{text:?} byte by byte");
    whole.map_err(|(fault, _)| fault)
}

fn request(rest: &str) -> Result<bool, Fault> {
    read(Message::Requests, &format!("POST /a HTTP/1.1\r\nHost: a.test\r\n{rest}"))
}

fn response(head: &str) -> Result<bool, Fault> {
    read(Message::Responses, head)
}

#[test]
fn honest_requests_are_followed_to_their_ends() {
    let long = format!("x-long: {}\r\n\r\n", "a".repeat(1000));
    for text in [
        "\r\n",
        "x: y\r\n\r\n",
        "content-length: 0\r\n\r\n",
        "content-length: 3\r\n\r\nabc",
        "Content-Length:\t 3 \r\n\r\n\r\n\n",
        "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n00A;x=\"y\"\r\n\r\n\r\n\r\n\r\n\n\n\r\n0;z\r\nx-sum: 1\r\ny:\r\n\r\n",
        "upgrade: h2c\r\ncontent-length: 1\r\n\r\nx",
        "content-lengths: 3\r\nx-content-length: 4\r\nxtransfer-encoding: z\r\n\r\n",
        &long,
        "content-length: 1\r\n\r\nxGET /b HTTP/1.1\r\n\r\n\r\nGET /c#",
    ] {
        let last = text.ends_with('#');
        assert_eq!(request(text), if last { Err(Fault::Fragment) } else { Ok(true) }, "{text:?}");
    }
    assert_eq!(read(Message::Requests, "\r\nGET / HTTP/1.1\r\n\r\n"), Ok(true));
}

#[test]
fn a_request_that_can_be_read_in_two_ways_is_found_however_it_comes() {
    use Fault::*;
    let digits = "1".repeat(30);
    for (text, fault) in [
        ("x: y\n\r\n", LineFeed),
        ("x: y\r\n\n", LineFeed),
        ("x: a\rb\r\n\r\n", Return),
        ("x: a\r\r\n\r\n", Return),
        ("content-length: 3\r\ncontent-length: 3\r\n\r\nabc", Lengths),
        ("content-length: 3\r\nCONTENT-LENGTH: 4\r\n\r\nabc", Lengths),
        ("content-length: 3, 3\r\n\r\nabc", Length),
        ("content-length: +3\r\n\r\nabc", Length),
        ("content-length: -3\r\n\r\nabc", Length),
        ("content-length: 03\r\n\r\nabc", Length),
        ("content-length: 0x3\r\n\r\nabc", Length),
        ("content-length: 3 3\r\n\r\nabc", Length),
        ("content-length: 3;\r\n\r\nabc", Length),
        ("content-length: \u{b}3\r\n\r\nabc", Length),
        ("content-length:\r\n\r\n", Length),
        (&format!("content-length: {digits}\r\n\r\n"), Length),
        (&format!("content-length: {}3\r\n\r\nabc", " ".repeat(200)), Length),
        ("content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", LengthAndCoding),
        ("transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n", LengthAndCoding),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Codings),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", Codings),
        ("transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Coding),
        ("transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", Coding),
        ("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", Coding),
        ("transfer-encoding: chunked\u{b}\r\n\r\n0\r\n\r\n", Coding),
        ("transfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Coding),
        ("transfer-encoding:\r\n\r\n", Coding),
        (&format!("upgrade:{}websocket\r\ncontent-length: 3\r\n\r\nabc", " ".repeat(200)), Upgrade),
        (&format!("upgrade: websocket{}\r\ncontent-length: 3\r\n\r\nabc", " ".repeat(200)), Upgrade),
        ("upgrade: websocket\r\ncontent-length: 3\r\n\r\nabc", UpgradeWithBody),
        ("upgrade: WebSocket\r\ntransfer-encoding: chunked\r\n\r\n", UpgradeWithBody),
    ] {
        // In the head: what follows the empty line is never looked at, and a head is never whole before the fault.
        assert_eq!(request(text), Err(fault), "{text:?}");
        let all = format!("POST /a HTTP/1.1\r\n{text}");
        let found = Framing::new(Message::Requests).feed(all.as_bytes()).unwrap_err();
        let end = all.find("\r\n\r\n").map_or(all.len(), |end| end + 4);
        assert!(found.at < end, "{text:?}: {found:?}");
    }
    for (text, fault) in [
        ("\nGET / HTTP/1.1\r\n\r\n", LineFeed),
        ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", EmptyLines),
        ("GET /a#b HTTP/1.1\r\n\r\n", Fragment),
        ("GET / HTTP/1.1\n\r\n", LineFeed),
        ("GET / HTTP/1.1\r\r\n\r\n", Return),
        ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n\n", LineFeed),
    ] {
        assert_eq!(read(Message::Requests, text), Err(fault), "{text:?}");
    }
}

#[test]
fn chunks_that_can_be_read_in_two_ways_are_found_however_they_come() {
    use Fault::*;
    for (body, fault) in [
        ("zz\r\n", ChunkSize),
        ("\r\n", ChunkSize),
        (";x\r\n", ChunkSize),
        (" 3\r\nabc\r\n", ChunkSize),
        ("3 \r\nabc\r\n", ChunkSize),
        ("3 ;x\r\nabc\r\n", ChunkSize),
        ("0x3\r\nabc\r\n", ChunkSize),
        ("+3\r\nabc\r\n", ChunkSize),
        ("-3\r\nabc\r\n", ChunkSize),
        ("3_0\r\nabc\r\n", ChunkSize),
        ("ffffffffffffffff\r\nabc\r\n", ChunkSize),
        ("10000000000000003\r\nabc\r\n", ChunkSize),
        ("0;a\nx\r\n\r\n", LineFeed),
        ("0;a\rx\r\n\r\n", Return),
        ("0;a\0\r\n\r\n", ChunkExtension),
        ("0;\r\n\r\n", ChunkExtension),
        (&format!("3;{}\r\nabc\r\n", "a".repeat(200)), ChunkExtension),
        ("3\nabc\r\n", LineFeed),
        ("3\r\nabc\n0\r\n\r\n", LineFeed),
        ("3\r\nabc0\r\n\r\n", ChunkEnd),
        ("1\r\nabc\r\n0\r\n\r\n", ChunkEnd),
        ("5\r\nabc\r\n0\r\n\r\n", ChunkEnd),
        ("0\n\n", LineFeed),
        ("0\r\nx: y\n\r\n", LineFeed),
        ("0\r\nx: y\r\n\n", LineFeed),
        ("0\r\nx: a\rb\r\n\r\n", Return),
    ] {
        let text = format!("transfer-encoding: chunked\r\n\r\n{body}");
        assert_eq!(request(&text), Err(fault), "{body:?}");
    }
}

#[test]
fn behind_a_websocket_nothing_is_looked_at() {
    let mut framing = Framing::new(Message::Requests);
    framing.feed(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\ncontent-length: 0\r\n\r\n\n\n\x81\n\r\r").unwrap();
    assert!(framing.is_free());
}

#[test]
fn behind_a_request_for_a_tunnel_nothing_is_looked_at_and_it_has_no_body() {
    let text =
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\ncontent-length: 0\r\n\r\n\n\n\x16\x03\n\r\r";
    for piece in [1, 7, text.len()] {
        let mut framing = Framing::new(Message::Requests);
        text.chunks(piece).for_each(|piece| framing.feed(piece).unwrap());
        assert!(framing.is_free(), "in pieces of {piece}");
    }
    for body in ["content-length: 3\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"] {
        let text = format!("CONNECT a.test:443 HTTP/1.1\r\n{body}");
        let found = Framing::new(Message::Requests).feed(text.as_bytes()).unwrap_err();
        assert_eq!(found.fault, Fault::ConnectWithBody, "{body:?}");
    }
    // Methods are case-sensitive, and this is the whole of one.
    for other in ["connect", "CONNECTX", "XCONNECT"] {
        let mut framing = Framing::new(Message::Requests);
        framing.feed(format!("{other} a HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        assert!(!framing.is_free(), "{other}");
    }
}

#[test]
fn responses_are_held_to_the_same_framing() {
    use Fault::*;
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\n\r\n";
    for text in [
        ok,
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\n\n\n",
        "HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n0\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n\n\r\r",
        &format!("{}{ok}\n", hints.repeat(usize::from(MAX_INTERIM))),
    ] {
        assert!(response(text).is_ok(), "{text:?}");
    }
    for (text, fault) in [
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", EmptyLines),
        ("HTTP/1.1 200 OK\n\n", LineFeed),
        ("HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n", Return),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", Lengths),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok", LengthAndCoding),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Coding),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", CodingOfOld),
        (&hints.repeat(usize::from(MAX_INTERIM) + 1), Interim),
        (&format!("{hints}HTTP/1.1 200 OK\n\n"), LineFeed),
    ] {
        assert_eq!(response(text), Err(fault), "{text:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_too_much_and_pieces_make_no_difference(
        bytes in "[ -~\r\n\t]{0,64}|(POST / HTTP/1.1\r\n)?(content-length: [0-9]{1,3}\r\n|transfer-encoding: chunked\r\n)?(\r\n)?[0-9a-f\r\n]{0,40}",
        cut in 0_usize..64,
    ) {
        let bytes = bytes.as_bytes();
        let mut whole = Framing::new(Message::Requests);
        let told = whole.feed(bytes);
        let cut = cut.min(bytes.len());
        let mut pieces = Framing::new(Message::Requests);
        let fed = pieces.feed(&bytes[..cut]).and_then(|()| {
            pieces.feed(&bytes[cut..]).map_err(|found| Found { at: found.at + cut, ..found })
        });
        proptest::prop_assert_eq!(fed, told);
    }
}
