//! What is reached through the proxy of a site, and what it is asked.

use tokio::net::TcpListener;

use super::*;

fn uplink(more: &str) -> Uplink {
    let text = format!("[upstream]\nproxy = \"http://proxy.test:3128\"\n{more}");
    Uplink::new(&crate::config::Config::parse(std::path::Path::new("v.toml"), &text).unwrap().upstream)
        .unwrap()
}

#[test]
fn everything_goes_through_but_this_host_and_what_is_named() {
    let uplink = uplink("no_proxy = [\".corp.test\", \"vault.test\", \"10.0.0.0/8\"]");
    let takes = |host: Option<&str>, address: &str| uplink.takes(host, address.parse().unwrap());
    for (host, address) in [
        (Some("api.test"), "192.0.2.1"),
        (Some("api.test"), "0.0.0.0"),
        (None, "192.0.2.1"),
        (None, "2001:db8::1"),
        (Some("xcorp.test"), "192.168.0.1"),
        (Some("192.0.2.1"), "0.0.0.0"),
    ] {
        assert!(takes(host, address), "{host:?} {address}");
    }
    for (host, address) in [
        (Some("a.corp.test"), "192.0.2.1"),
        (Some("vault.test"), "0.0.0.0"),
        (Some("api.test"), "10.1.2.3"),
        (Some("api.test"), "::ffff:10.1.2.3"),
        (Some("10.1.2.3"), "0.0.0.0"),
        (None, "10.1.2.3"),
        (Some("api.test"), "127.0.0.1"),
        (Some("api.test"), "::1"),
        (Some("127.0.0.1"), "0.0.0.0"),
        (Some("0.0.0.0"), "0.0.0.0"),
        (Some("localhost"), "0.0.0.0"),
        (Some("x.localhost"), "0.0.0.0"),
        (None, "0.0.0.0"),
        (None, "::"),
    ] {
        assert!(!takes(host, address), "{host:?} {address}");
    }
}

/// Asks a proxy that says this for a tunnel; what it was asked, what came of it, and what is left on the connection.
async fn ask(uplink: &Uplink, says: &'static str) -> (String, Result<(), UplinkError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let proxy = tokio::spawn(async move {
        let (mut there, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            if there.read_buf(&mut asked).await.unwrap() == 0 {
                break;
            }
        }
        there.write_all(says.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    });
    let result = uplink.ask(&mut stream, "api.test:443").await;
    stream.shutdown().await.unwrap();
    let mut left = String::new();
    let _ = stream.read_to_string(&mut left).await;
    (proxy.await.unwrap(), result, left)
}

#[tokio::test]
async fn a_tunnel_is_asked_for_by_name_and_what_is_within_is_left_for_whoever_reads_it() {
    let (asked, result, left) =
        ask(&uplink(""), "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nSSH-2.0-x\r\n").await;
    assert_eq!(asked, "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n");
    assert!(result.is_ok());
    assert_eq!(left, "SSH-2.0-x\r\n");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_with_what_to_do() {
    for (says, told) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "refuses a tunnel to api.test:443 (403)"),
        ("HTTP/1.1 302 x\r\nLocation: http://portal\r\n\r\n", "refuses a tunnel to api.test:443 (302)"),
        ("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n", "wants a login (407); store USER:PASSWORD"),
        ("HTTP/1.1 503 x\r\n\r\n", "does not reach api.test:443 (503)"),
        ("220 mail.test ESMTP\r\n", "gave no answer that is one: it is not HTTP"),
        ("HTTP/1.1 200 OK\r\n", "gave no answer that is one: it closed the connection"),
        ("", "it closed the connection"),
    ] {
        let error = ask(&uplink(""), says).await.1.unwrap_err().to_string();
        assert!(error.starts_with("the proxy proxy.test:3128 ") && error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_login_goes_to_the_proxy_and_without_it_nothing_is_asked() {
    let with = "proxy_credential = \"vault:site\"";
    let known = uplink(with);
    known.log_in(Box::new(|| Ok(Zeroizing::new(b"bWU6eA==".to_vec()))));
    let (asked, result, _) = ask(&known, "HTTP/1.1 200 OK\r\n\r\n").await;
    assert!(asked.ends_with("\r\nProxy-Authorization: Basic bWU6eA==\r\n\r\n") && result.is_ok(), "{asked}");
    let error = ask(&known, "HTTP/1.1 407 x\r\n\r\n").await.1.unwrap_err().to_string();
    assert!(error.contains("wants another login (407)") && !error.contains("bWU6"), "{error}");
    let missing = uplink(with);
    missing.log_in(Box::new(|| Err("nothing is stored under site".to_owned())));
    for uplink in [missing, uplink(with)] {
        let (asked, result, _) = ask(&uplink, "HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(asked.is_empty() && matches!(result, Err(UplinkError::NoLogin { .. })), "{asked}");
    }
}
