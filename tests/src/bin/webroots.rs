//! A client with the web's roots compiled in, as Rust programs with `webpki-roots` are: nothing on the host adds to them.
//!
//! ```text
//! webroots HOST PATH
//! ```
#![allow(clippy::unwrap_used, reason = "a client that cannot call says so")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (host, path) = (arguments.next().unwrap(), arguments.next().unwrap());
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let client = ClientConnection::new(config, host.clone().try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(client, TcpStream::connect((host.as_str(), 443)).unwrap());
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    println!("{}", answer.lines().next().unwrap_or_default());
}
