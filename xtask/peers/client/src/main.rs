//! A client that does what wrk and curl cannot: a connection for each request that resumes the session of an earlier one, and calls to
//! names that nobody has called before. One request on each connection.
//!
//! `peer-client resumed ADDRESS HOST ROOTS PATH AUTHORIZATION CONNECTIONS SECONDS` prints `requests errors resumed seconds`.
//! `peer-client first ADDRESS SUFFIX ROOTS PATH AUTHORIZATION CALLS` prints, of each call, `SECONDS-UNTIL-TLS SECONDS-UNTIL-ANSWER`.
//! `-` as AUTHORIZATION sends none.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Nobody waits for longer.
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["resumed", address, host, roots, path, key, connections, seconds] => {
            let client = Client::new(address, roots, path, key, Resumption::in_memory_sessions(256))?;
            resumed(Arc::new(client), host, connections.parse()?, Duration::from_secs(seconds.parse()?))
        }
        ["first", address, suffix, roots, path, key, calls] => {
            let client = Client::new(address, roots, path, key, Resumption::disabled())?;
            first(&client, suffix, calls.parse()?)
        }
        _ => Err("see the first lines of the source".into()),
    }
}

struct Client {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    path: String,
    authorization: String,
}

/// What became of a call that was answered well.
struct Answered {
    tls: Duration,
    answer: Duration,
    resumed: bool,
}

impl Client {
    fn new(address: &str, roots: &str, path: &str, key: &str, resumption: Resumption) -> Fallible<Self> {
        let mut trusted = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(roots)? {
            trusted.add(root?)?;
        }
        let mut config = ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
        config.resumption = resumption;
        let authorization = if key == "-" { String::new() } else { format!("Authorization: {key}\r\n") };
        Ok(Self { address: address.parse()?, config: Arc::new(config), path: path.to_owned(), authorization })
    }

    /// One call on a connection of its own.
    fn call(&self, host: &str) -> Fallible<Answered> {
        let begun = Instant::now();
        let mut tcp = TcpStream::connect_timeout(&self.address, LIMIT)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(LIMIT))?;
        let name = ServerName::try_from(host.to_owned())?;
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        let up = begun.elapsed();
        let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        let mut stream = StreamOwned::new(tls, tcp);
        let Self { path, authorization, .. } = self;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: close\r\n\r\n")?;
        stream.flush()?;
        let mut answer = Vec::with_capacity(1024);
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => answer.extend_from_slice(&piece[..read]),
                // A connection that is closed without a word of TLS; the answer has its length.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof && !answer.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            return Err(String::from_utf8_lossy(&answer)
                .lines()
                .next()
                .unwrap_or("no answer")
                .to_owned()
                .into());
        }
        Ok(Answered { tls: up, answer: begun.elapsed(), resumed })
    }
}

fn resumed(client: Arc<Client>, host: &str, connections: usize, length: Duration) -> Fallible<()> {
    // The session that all resume.
    client.call(host)?;
    let counts: Arc<[AtomicU64; 3]> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let callers: Vec<_> = (0..connections)
        .map(|_| {
            let (client, host, counts, over) =
                (Arc::clone(&client), host.to_owned(), Arc::clone(&counts), Arc::clone(&over));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let outcome = client.call(&host);
                    if let Err(error) = &outcome
                        && counts[1].load(Ordering::Relaxed) < 3
                    {
                        eprintln!("{error}");
                    }
                    counts[usize::from(outcome.is_err())].fetch_add(1, Ordering::Relaxed);
                    counts[2].fetch_add(u64::from(outcome.is_ok_and(|it| it.resumed)), Ordering::Relaxed);
                }
            })
        })
        .collect();
    std::thread::sleep(length);
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().map_err(|_| "a caller panicked")?;
    }
    let took = begun.elapsed().as_secs_f64();
    let [good, bad, resumed] = [0, 1, 2].map(|which| counts[which].load(Ordering::Relaxed));
    println!("{good} {bad} {resumed} {took}");
    Ok(())
}

fn first(client: &Client, suffix: &str, calls: u32) -> Fallible<()> {
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    for call in 0..calls {
        let answered = client.call(&format!("n{run}-{call}.{suffix}"))?;
        println!("{} {}", answered.tls.as_secs_f64(), answered.answer.as_secs_f64());
    }
    Ok(())
}
