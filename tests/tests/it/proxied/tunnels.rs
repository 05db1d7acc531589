//! What is wrong with a tunnel, or within one, and what attackers would try.

use super::*;

/// Sends back what it gets.
const ECHO: &str = "
import socket, threading
def serve(there):
    while data := there.recv(4096): there.sendall(data)
here = socket.create_server(('203.0.113.11', 443))
while True: threading.Thread(target=serve, args=here.accept()[:1], daemon=True).start()
";

/// Decisions to deny so far.
fn denials(world: &World) -> Vec<Value> {
    world.journal().into_iter().filter(|record| record["verdict"] == "deny").collect()
}

/// The reason of the one denial that came after `before` of them, waited for.
#[track_caller]
fn denied(world: &World, before: usize) -> String {
    wait_until("a denial", || (denials(world).len() > before).then_some(()));
    let all = denials(world);
    assert_eq!(all.len(), before + 1, "one record: {all:#?}");
    all[before]["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_tunnel_that_is_asked_for_ambiguously_is_400_and_nothing_behind_it_is_read() {
    let world = world();
    let dialer = Dialer::new(&world);
    let behind = "GET http://plain.test/v1/smuggled HTTP/1.1\r\nHost: plain.test\r\n\r\n";
    for (what, request) in [
        ("a length", "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nContent-Length: 5\r\n\r\n"),
        (
            "chunks",
            "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "a length and chunks",
            "CONNECT api.test:443 HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("a user", "CONNECT me:CANARY@api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n"),
        ("two hosts", "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nHost: api.test:443\r\n\r\n"),
        ("another host", "CONNECT api.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n"),
        ("no port", "CONNECT api.test HTTP/1.1\r\nHost: api.test\r\n\r\n"),
        ("port 0", "CONNECT api.test:0 HTTP/1.1\r\nHost: api.test:0\r\n\r\n"),
        ("a path", "CONNECT /v1/x HTTP/1.1\r\nHost: api.test:443\r\n\r\n"),
        ("a path behind", "CONNECT api.test:443/v1/x HTTP/1.1\r\nHost: api.test:443\r\n\r\n"),
        ("a URL", "CONNECT https://api.test:443/ HTTP/1.1\r\nHost: api.test:443\r\n\r\n"),
        ("a line feed", "CONNECT api.test:443 HTTP/1.1\nHost: api.test:443\n\n"),
        ("a fold", "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n x\r\n\r\n"),
        ("a number", "CONNECT 2130706433:443 HTTP/1.1\r\n\r\n"),
        ("nobody", "CONNECT 0.0.0.0:443 HTTP/1.1\r\n\r\n"),
        ("nobody in IPv6", "CONNECT [::]:443 HTTP/1.1\r\n\r\n"),
        ("nobody in IPv6, as IPv4", "CONNECT [::ffff:0.0.0.0]:443 HTTP/1.1\r\n\r\n"),
        ("another method's form", "GET plain.test:80 HTTP/1.1\r\nHost: plain.test:80\r\n\r\n"),
    ] {
        let before = denials(&world).len();
        let reply = dialer.ask(&format!("{request}{behind}"));
        assert_eq!(reply.status, 400, "{what}: {reply:?}");
        denied(&world, before);
    }
    assert!(world.seen().is_empty());
    let told = format!("{:?}{}", world.journal(), world.log());
    assert!(!told.contains("CANARY"), "a password in a target is told to nobody");
}

#[test]
fn behind_a_tunnel_that_is_refused_or_not_one_nothing_is_read_as_a_request() {
    let world = world();
    let dialer = Dialer::new(&world);
    let behind = "GET http://plain.test/v1/smuggled HTTP/1.1\r\nHost: plain.test\r\n\r\n";
    let reply =
        dialer.ask(&format!("CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n{behind}"));
    assert_eq!(reply.status, 403, "{reply:?}");
    // Behind another request it is none.
    let mut stream = dialer.dial(PROXY);
    let first = "GET http://plain.test/v1/first HTTP/1.1\r\nHost: plain.test\r\n\r\n";
    write!(stream, "{first}CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n{behind}").unwrap();
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    let mut rest = &came[..];
    assert_eq!(Reply::read_one(&mut rest).status, 200);
    let reply = Reply::read_one(&mut rest);
    assert_eq!(reply.status, 405, "{reply:?}");
    assert!(reply.text().contains("as the first request of a connection") && rest.is_empty(), "{reply:?}");
    // Nor over HTTP/2.
    let answer = world.curl(&["--http2-prior-knowledge", "-X", "CONNECT", &format!("{URL}/v1/x")]);
    assert_ne!(answer.status, 200, "{answer:?}");
    assert!(world.seen().iter().all(|seen| seen["uri"] != "/v1/smuggled"));
}

#[test]
fn what_a_client_says_before_the_tunnel_stands_is_the_beginning_of_what_is_within() {
    let world = world();
    let dialer = Dialer::new(&world);
    for pieces in [false, true] {
        let mut tls = dialer.client("api.test", &["http/1.1"]);
        let mut said = b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n".to_vec();
        tls.write_tls(&mut said).unwrap();
        let mut stream = dialer.dial(PROXY);
        stream.set_nodelay(true).unwrap();
        match pieces {
            false => stream.write_all(&said).unwrap(),
            true => said.chunks(7).for_each(|piece| stream.write_all(piece).unwrap()),
        }
        established(&mut stream);
        let mut tls = StreamOwned::new(tls, stream);
        tls.write_all(b"GET /v1/early HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").unwrap();
        let reply = Reply::read(&mut tls);
        assert_eq!((reply.status, reply.text().contains("ours")), (200, true), "{reply:?}");
    }
    // The same without TLS.
    let mut stream = dialer.dial(PROXY);
    let within = "GET /v1/early-plain HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n";
    write!(stream, "\r\nCONNECT plain.test:80 HTTP/1.0\r\n\r\n{within}").unwrap();
    established(&mut stream);
    assert_eq!(Reply::read(&mut stream).status, 200);
    assert_eq!(way(&world.decision(Some("/v1/early-plain"))), (format!("{ADDRESS}:80"), PROXY.to_owned()));
}

#[test]
fn within_a_tunnel_nothing_is_for_another_host() {
    let world = world();
    also(&world, "python", "unmatched = \"pass\"");
    world.wait_for_generation(2);
    let dialer = Dialer::new(&world);
    // Names that the policy would let through by themselves: an API's, and one that passes.
    for (asked, inner) in
        [("other.test:443", "api.test"), ("api.test:443", "other.test"), ("api.test:443", "raw.test")]
    {
        let before = denials(&world).len();
        let mut stream = tunnel(&dialer, asked);
        stream.write_all(&dialer.hello(inner)).unwrap();
        let mut came = Vec::new();
        stream.read_to_end(&mut came).unwrap();
        // unrecognized_name
        assert_eq!(came, [21, 3, 1, 0, 2, 2, 112], "{asked}: {inner}");
        let reason = denied(&world, before);
        assert!(
            reason.contains(&format!("the TLS handshake is for {inner}, the tunnel was for")),
            "{reason}"
        );
    }
    for (request, status) in [
        ("GET /v1/x HTTP/1.1\r\nHost: other.test\r\n\r\n", 421),
        ("GET /v1/x HTTP/1.1\r\nHost: plain.test:443\r\n\r\n", 421),
        ("GET http://other.test/v1/x HTTP/1.1\r\nHost: other.test\r\n\r\n", 421),
        ("GET http://other.test/v1/x HTTP/1.1\r\nHost: plain.test\r\n\r\n", 421),
        ("GET http://plain.test/v1/x HTTP/1.1\r\nHost: other.test\r\n\r\n", 400),
        ("CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n", 405),
        ("CONNECT plain.test:80 HTTP/1.1\r\nHost: plain.test:80\r\n\r\n", 405),
    ] {
        let mut stream = tunnel(&dialer, "plain.test:80");
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let reply = Reply::read(&mut stream);
        assert_eq!(reply.status, status, "{request}: {reply:?}");
    }
    // An API's host is decided call by call, whatever protocol it may be within.
    let before = denials(&world).len();
    let mut stream = tunnel(&dialer, "api.test:443");
    stream.write_all(b"\0not TLS\n").unwrap();
    let mut came = Vec::new();
    let _ = stream.read_to_end(&mut came);
    assert!(came.is_empty(), "{came:?}");
    assert!(denied(&world, before).contains("its calls are decided one by one"));
    assert!(world.seen().is_empty());
}

#[test]
fn without_a_name_in_its_handshake_tls_within_a_tunnel_is_for_the_host_of_the_tunnel() {
    let world = world();
    let answer = world.python(
        "import http.client, ssl, sys\n\
         c = http.client.HTTPSConnection('203.0.113.77', 3128)\n\
         c.set_tunnel('api.test', 443)\n\
         c._context.check_hostname = False\n\
         wrap = c._context.wrap_socket\n\
         c._context.wrap_socket = lambda s, server_hostname: wrap(s)\n\
         c.request('GET', '/v1/nameless')\n\
         print(c.getresponse().status, c.sock.getpeercert()['subjectAltName'])\n",
        &[],
    );
    assert_eq!(answer.stdout.trim(), "200 (('DNS', 'api.test'),)", "{answer:?}");
}

#[test]
fn no_tunnel_and_no_request_leads_to_an_address_at_which_the_api_may_not_be() {
    let world = world();
    let hosts = fs::read_to_string(world.path("hosts")).unwrap();
    for address in ["10.9.8.7", "169.254.169.254", "127.0.0.1"] {
        fs::write(
            world.path("hosts"),
            format!(
                "{address} api.test plain.test\n{}",
                hosts.replace("api.test", "").replace("plain.test", "")
            ),
        )
        .unwrap();
        let tunnelled = world.bot("curl").env("HTTPS_PROXY", URL).curl(&["https://api.test/v1/x"]);
        let absolute = world.bot("curl").env("http_proxy", URL).curl(&["http://plain.test/v1/x"]);
        let plain = world.bot("curl").curl(&["-p", "-x", URL, "http://plain.test/v1/x"]);
        for answer in [tunnelled, absolute, plain] {
            let problem = "urn:vouchsafe:problem:address-refused";
            assert_eq!((answer.status, &answer.json()["type"]), (403, &Value::from(problem)), "{answer:?}");
            assert!(answer.body.contains(address), "{answer:?}");
        }
    }
    // The literal address, with the API's name within.
    let dialer = Dialer::new(&world);
    for address in
        ["169.254.169.254", "127.0.0.1", "[::1]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]"]
    {
        let stream = tunnel(&dialer, &format!("{address}:443"));
        let mut tls = StreamOwned::new(dialer.client("api.test", &["http/1.1"]), stream);
        tls.write_all(b"GET /v1/x HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").unwrap();
        let reply = Reply::read(&mut tls);
        assert_eq!(
            (reply.status, reply.text().contains("address-refused")),
            (403, true),
            "{address}: {reply:?}"
        );
        let mut stream = tunnel(&dialer, &format!("{address}:80"));
        stream
            .write_all(
                b"GET /latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n",
            )
            .unwrap();
        let reply = Reply::read(&mut stream);
        assert_eq!(
            (reply.status, reply.text().contains("unknown-host")),
            (403, true),
            "{address}: {reply:?}"
        );
    }
    assert!(world.seen().is_empty());
}

#[test]
fn of_several_addresses_one_at_which_the_api_may_be_is_called() {
    let world = world();
    // The resolver gives what can be reached first: both can.
    let added = world.enter(None).args(["ip", "addr", "add", "10.9.8.7/32", "dev", "lo"]).status();
    assert!(added.unwrap().success());
    fs::write(world.path("hosts"), format!("10.9.8.7 api.test\n{ADDRESS} api.test\n")).unwrap();
    let answer = world.bot("curl").env("HTTPS_PROXY", URL).curl(&["https://api.test/v1/several"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    // What passes through goes on to the next one where nobody answers, as a client would.
    also(&world, "curl", "unmatched = \"pass\"");
    world.wait_for_generation(2);
    fs::write(world.path("hosts"), format!("{RAW_ADDRESS} other.test\n{ADDRESS} other.test\n")).unwrap();
    let answer = world.bot("curl").env("HTTPS_PROXY", URL).curl(&["https://other.test/v1/next"]);
    assert_eq!(answer.status, 401, "{answer:?}");
}

#[test]
fn the_proxy_itself_is_no_destination_and_a_name_that_means_nothing_is_told() {
    let world = world();
    also(&world, "python", "unmatched = \"pass\"");
    let text = fs::read_to_string(world.path("etc/policies/python.toml")).unwrap();
    world.policy("policies/python.toml", &format!("{text}\n[[grant]]\nnetwork = [\"tcp *:*\"]\n"));
    wait_until("the policy", || world.status()["policy"]["generation"].as_u64().filter(|it| *it > 1));
    let dialer = Dialer::new(&world);
    for own in ["127.0.0.1:15001", "127.0.0.2:15001", "[::1]:15001", "localhost:15001"] {
        let mut stream = tunnel(&dialer, own);
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut came = Vec::new();
        let _ = stream.read_to_end(&mut came);
        assert!(came.is_empty(), "{own}: {came:?}");
        drop(stream);
    }
    // Not even connected to: 127.0.0.2 is nobody, the others are the listener.
    let loops = || {
        let is_it =
            |record: &Value| record["error"].as_str().is_some_and(|it| it.contains("is this proxy itself"));
        world.journal().iter().filter(|record| is_it(record)).count()
    };
    wait_until("three loops", || (loops() == 3).then_some(()));
    let reply = dialer.ask("CONNECT nowhere.invalid:443 HTTP/1.1\r\nHost: nowhere.invalid:443\r\n\r\n");
    assert_eq!(reply.status, 502, "{reply:?}");
    assert!(reply.text().contains("the name nowhere.invalid cannot be resolved"), "{}", reply.text());
}

#[test]
fn a_tunnel_is_cut_when_the_policy_does_not_permit_it_any_more_and_counts_as_the_one_connection_that_it_is() {
    let world = World::new();
    world.set("kernel.ports", "[80, 443, 3128]");
    world.set("limits.connections_per_identity", "2");
    world.daemon();
    also(&world, "python", "unmatched = \"pass\"");
    world.wait_for_generation(2);
    let hosts = fs::read_to_string(world.path("hosts")).unwrap();
    fs::write(world.path("hosts"), format!("{RAW_ADDRESS} echo.test\n{hosts}")).unwrap();
    world.server("echo", "/usr/bin/python3", &["-c", ECHO], &format!("{RAW_ADDRESS}:443"));
    let dialer = Dialer::new(&world);
    let open: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = tunnel(&dialer, "echo.test:443");
            stream.write_all(b"\0hello").unwrap();
            let mut back = [0; 6];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"\0hello");
            stream
        })
        .collect();
    let mut third = dialer.dial(PROXY);
    let mut came = Vec::new();
    let _ = third.read_to_end(&mut came);
    assert!(came.is_empty(), "beyond the bound: {came:?}");
    let text = fs::read_to_string(world.path("etc/policies/python.toml")).unwrap();
    world.policy("policies/python.toml", &text.replace("unmatched = \"pass\"", ""));
    for mut stream in open {
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).is_err() || rest.is_empty(), "it ended by a reset");
    }
    let outcome = world.record("outcome", |record| record["blame"] == "policy");
    assert!(outcome["error"].as_str().unwrap().contains("not permitted any more"), "{outcome}");
}
