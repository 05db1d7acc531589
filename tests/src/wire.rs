//! Connections of a bot in the hands of the test: the bot opens them and passes them here, the test speaks over them.
//!
//! What the kernel captured is the bot (`bots/python3`); what is said is the test's, down to the byte. For what an
//! ordinary client never says.

use std::io::{self, BufRead as _, BufReader, IoSliceMut, Read, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::bot::Running;
use crate::world::World;

/// Longer than any answer takes; a test must not hang.
const LIMIT: Duration = Duration::from_secs(30);

/// The bot: opens a connection for each line that names an address, and passes it over a UNIX socket.
const DIALER: &str = r"
import socket, sys
here = socket.socket(socket.AF_UNIX)
here.connect(sys.argv[1])
for line in here.makefile('r'):
    host, port = line.strip().rsplit(':', 1)
    try:
        there = socket.create_connection((host, int(port)))
        socket.send_fds(here, [b'.'], [there.fileno()])
        there.close()
    except OSError:
        here.sendall(b'!')
";

/// A TLS connection of a bot.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A bot that opens connections for the test.
pub struct Dialer {
    channel: UnixStream,
    roots: Arc<RootCertStore>,
    // Ends after the channel.
    _bot: Running,
}

impl Dialer {
    /// Starts the bot. The daemon must have run once, for its CA.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let path = world.path("dialer");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let bot = world.bot("python3").args(["-c", DIALER]).arg(&path).spawn();
        let (channel, _) = listener.accept().unwrap();
        channel.set_read_timeout(Some(LIMIT)).unwrap();
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(world.path("bots.pem")).unwrap() {
            roots.add(root.unwrap()).unwrap();
        }
        Self { channel, roots: Arc::new(roots), _bot: bot }
    }

    /// A connection to `ADDRESS:PORT`, or `None` when the bot could not connect.
    #[must_use]
    pub fn try_dial(&self, address: &str) -> Option<TcpStream> {
        writeln!(&self.channel, "{address}").unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        rustix::io::retry_on_intr(|| recvmsg(&self.channel, &mut buffers, &mut control, RecvFlags::empty()))
            .expect("the dialer is silent");
        let passed = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })?;
        let stream = TcpStream::from(passed);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Some(stream)
    }

    /// A connection to `ADDRESS:PORT`.
    #[must_use]
    #[track_caller]
    pub fn dial(&self, address: &str) -> TcpStream {
        self.try_dial(address).expect("the bot cannot connect")
    }

    /// TLS for `host`, over HTTP/1.1, before the handshake.
    #[must_use]
    #[track_caller]
    pub fn tls(&self, address: &str, host: &str) -> Tls {
        StreamOwned::new(self.client(host, &["http/1.1"]), self.dial(address))
    }

    /// Our side of TLS.
    #[must_use]
    pub fn client(&self, host: &str, alpn: &[&str]) -> ClientConnection {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        ClientConnection::new(self.config(alpn), name).unwrap()
    }

    /// The configuration of our side of TLS.
    #[must_use]
    pub fn config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config =
            builder.unwrap().with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|version| version.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Whom the bots of this world trust.
    #[must_use]
    pub fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    /// The bytes of a ClientHello for `host`.
    #[must_use]
    pub fn hello(&self, host: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.client(host, &["h2", "http/1.1"]).write_tls(&mut bytes).unwrap();
        bytes
    }

    /// Sends these bytes over TLS to `raw.test` and returns all that comes until the other side closes.
    #[must_use]
    #[track_caller]
    pub fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.tls(&format!("{}:443", crate::RAW_ADDRESS), "raw.test");
        let _ = stream.write_all(bytes).and_then(|()| stream.flush());
        let mut came = Vec::new();
        // One that ends without a word has ended all the same; one that does not end is a failure.
        if let Err(error) = stream.read_to_end(&mut came) {
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "the connection stays open: {came:?}");
        }
        came
    }

    /// Sends these bytes over TLS to `raw.test` and returns what comes until the end; nothing when it is closed.
    #[must_use]
    #[track_caller]
    pub fn say(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.tls(&format!("{}:443", crate::RAW_ADDRESS), "raw.test");
        // A server that has seen enough may close before it has read all.
        let _ = stream.write_all(bytes).and_then(|()| stream.flush());
        Reply::read(&mut stream)
    }
}

/// A response over HTTP/1.1.
#[derive(Debug, Default)]
pub struct Reply {
    /// The status; 0 when nothing came that is a response.
    pub status: u16,
    /// Names in lower case, and values; those of interim responses come first.
    pub headers: Vec<(String, String)>,
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Vec<(String, String)>,
    /// Whether the framing of the message says that this is all of it.
    pub whole: bool,
}

impl Reply {
    /// Reads one response.
    #[must_use]
    pub fn read(stream: impl Read) -> Self {
        let mut reply = Self::default();
        // What broke off is not whole; that is all that tests want to know.
        reply.whole = reply.fill(&mut BufReader::new(stream)).unwrap_or(false);
        reply
    }

    /// Reads one response of several, and leaves the others.
    #[must_use]
    pub fn read_one(bytes: &mut &[u8]) -> Self {
        let mut reply = Self::default();
        let mut reader = BufReader::with_capacity(1, &mut *bytes);
        reply.whole = reply.fill(&mut reader).unwrap_or(false);
        reply
    }

    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn fill(&mut self, stream: &mut BufReader<impl Read>) -> io::Result<bool> {
        loop {
            let start = line(stream)?;
            self.status = start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            fields(stream, &mut self.headers)?;
            if self.status >= 200 || self.status == 101 || self.status == 0 {
                break;
            }
        }
        if self.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&line(stream)?, 16).map_err(io::Error::other)?;
                if size == 0 {
                    break;
                }
                self.take(stream, size)?;
                line(stream)?;
            }
            fields(stream, &mut self.trailers)?;
        } else if let Some(length) = self.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            self.take(stream, length)?;
        } else {
            stream.read_to_end(&mut self.body)?;
        }
        Ok(true)
    }

    /// Takes so many bytes of the body, and keeps those that came before a break.
    fn take(&mut self, stream: &mut impl Read, count: usize) -> io::Result<()> {
        let got = stream.take(count as u64).read_to_end(&mut self.body)?;
        if got < count { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

fn line(stream: &mut BufReader<impl Read>) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn fields(stream: &mut BufReader<impl Read>, into: &mut Vec<(String, String)>) -> io::Result<()> {
    loop {
        let line = line(stream)?;
        if line.is_empty() {
            return Ok(());
        }
        if let Some((name, value)) = line.split_once(':') {
            into.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}
