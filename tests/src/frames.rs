//! HTTP/2 in the hands of the test, frame by frame (RFC 9113 §4.1): for what a library never sends.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustls::{ServerConnection, StreamOwned};

use crate::upstream::{Proof, server_config};
use crate::wire::{Dialer, Tls};
use crate::world::{RAW_ADDRESS, World};

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
pub const DATA: u8 = 0;
/// See [`DATA`].
pub const HEADERS: u8 = 1;
/// See [`DATA`].
pub const PRIORITY: u8 = 2;
/// See [`DATA`].
pub const RST_STREAM: u8 = 3;
/// See [`DATA`].
pub const SETTINGS: u8 = 4;
/// See [`DATA`].
pub const PUSH_PROMISE: u8 = 5;
/// See [`DATA`].
pub const PING: u8 = 6;
/// See [`DATA`].
pub const GOAWAY: u8 = 7;
/// See [`DATA`].
pub const WINDOW_UPDATE: u8 = 8;
/// See [`DATA`].
pub const CONTINUATION: u8 = 9;

/// Flags of frames.
pub const END_STREAM: u8 = 1;
/// See [`END_STREAM`].
pub const ACK: u8 = 1;
/// See [`END_STREAM`].
pub const END_HEADERS: u8 = 4;
/// See [`END_STREAM`].
pub const PADDED: u8 = 8;
/// See [`END_STREAM`].
pub const PRIORITIZED: u8 = 0x20;

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type.
    pub kind: u8,
    /// The flags.
    pub flags: u8,
    /// The stream.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// How the other side dealt with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dealt {
    /// A response; the status where the static table of HPACK has it, else 0.
    Answered(u16),
    /// The stream was reset with this error.
    Reset(u32),
    /// The connection was ended with this error.
    GoneAway(u32),
    /// It was closed.
    Closed,
}

/// A connection of a bot to `raw.test`, or of the daemon to an [`Origin`], after the preface and our settings.
pub struct Http2<S = Tls> {
    stream: S,
}

impl Http2 {
    /// Opens one.
    #[must_use]
    #[track_caller]
    pub fn open(dialer: &Dialer) -> Self {
        let mut this = Self::dial(dialer);
        this.raw(PREFACE).unwrap();
        this.send(SETTINGS, 0, 0, &[]).unwrap();
        this
    }

    /// Opens one over which nothing was sent.
    #[must_use]
    #[track_caller]
    pub fn dial(dialer: &Dialer) -> Self {
        let client = dialer.client("raw.test", &["h2"]);
        Self { stream: Tls::new(client, dialer.dial(&format!("{RAW_ADDRESS}:443"))) }
    }

    /// The TCP connection below.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        &self.stream.sock
    }
}

impl<S: Read + Write> Http2<S> {
    /// Sends bytes.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.raw(&frame(kind, flags, stream, payload))
    }

    /// The next frame; `None` at the end.
    pub fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// What becomes of a stream.
    pub fn dealt(&mut self, stream: u32) -> Dealt {
        let code = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        loop {
            let Some(frame) = self.read() else { return Dealt::Closed };
            match frame.kind {
                HEADERS if frame.stream == stream => {
                    let first = frame.payload.first().map_or(0, |byte| byte & 0x7f);
                    let status = [200, 204, 206, 304, 400, 404, 500];
                    let place = usize::from(first).checked_sub(8);
                    return Dealt::Answered(place.and_then(|place| status.get(place)).copied().unwrap_or(0));
                }
                RST_STREAM if frame.stream == stream => return Dealt::Reset(code(&frame.payload)),
                GOAWAY => return Dealt::GoneAway(code(&frame.payload[4..8])),
                _ => {}
            }
        }
    }
}

/// The bytes of a frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields in HPACK, spelled out and not indexed (RFC 7541 §6.2.2).
#[must_use]
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend(*text);
        }
    }
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else { return bytes.push(length as u8) };
    bytes.push(127);
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The daemon's connection.
pub type Incoming = Http2<StreamOwned<ServerConnection, TcpStream>>;

impl Incoming {
    /// Reads until the end of the request on the next stream: the stream, and its body.
    pub fn request(&mut self) -> Option<(u32, Vec<u8>)> {
        let (mut stream, mut body) = (0, Vec::new());
        loop {
            let frame = self.read()?;
            match frame.kind {
                HEADERS if stream == 0 || frame.stream == stream => stream = frame.stream,
                DATA if frame.stream == stream => body.extend(&frame.payload),
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                return Some((stream, body));
            }
        }
    }

    /// Answers 200 without a body.
    pub fn answer(&mut self, stream: u32) {
        let _ = self.send(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88]);
    }

    /// Resets a stream.
    pub fn reset(&mut self, stream: u32, code: u32) {
        let _ = self.send(RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    /// Begins an answer with 200.
    pub fn begin(&mut self, stream: u32) {
        let _ = self.send(HEADERS, END_HEADERS, stream, &[0x88]);
    }

    /// The TCP connection below.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    /// Closes the connection.
    pub fn end(&mut self) {
        self.stream.conn.send_close_notify();
        let _ = self.stream.flush();
        let _ = self.stream.sock.shutdown(std::net::Shutdown::Both);
    }

    /// Goes away: streams up to `last` may have been processed.
    pub fn go_away(&mut self, last: u32, code: u32) {
        let _ = self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat());
    }
}

/// Listens at `raw.test`, port 443, for what the test says there itself.
#[must_use]
pub fn listen(world: &World) -> TcpListener {
    let net = std::fs::File::open(world.path("net")).unwrap();
    // A namespace is a thread's.
    let binding = std::thread::spawn(move || {
        nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        TcpListener::bind((RAW_ADDRESS, 443)).unwrap()
    });
    binding.join().unwrap()
}

type Connections = Arc<Mutex<Vec<(TcpStream, JoinHandle<()>)>>>;

/// An upstream at `raw.test` that speaks HTTP/2 as the test says, frame by frame.
pub struct Origin {
    connections: Connections,
    listener: TcpListener,
}

impl Origin {
    /// Starts one. `play` gets each connection with its number, from 0, and ends it by its return.
    #[must_use]
    pub fn start(world: &World, play: impl Fn(usize, &mut Incoming) + Send + Sync + 'static) -> Self {
        let listener = listen(world);
        let mut tls = server_config(Proof::Good);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let (tls, play) = (Arc::new(tls), Arc::new(play));
        let connections = Connections::default();
        let (accepting, all) = (listener.try_clone().unwrap(), Arc::clone(&connections));
        std::thread::spawn(move || {
            while let Ok((tcp, _)) = accepting.accept() {
                let mut all = all.lock().unwrap();
                let (number, handle) = (all.len(), tcp.try_clone().unwrap());
                let (tls, play) = (Arc::clone(&tls), Arc::clone(&play));
                let thread = std::thread::spawn(move || {
                    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), tcp);
                    let mut preface = [0; 24];
                    if stream.read_exact(&mut preface).is_ok() {
                        let mut connection = Http2 { stream };
                        // A megabyte may come at once.
                        let _ = connection.send(SETTINGS, 0, 0, &[0, 4, 0, 16, 0, 0]);
                        let _ = connection.send(WINDOW_UPDATE, 0, 0, &[0, 16, 0, 0]);
                        play(number, &mut connection);
                        connection.end();
                    }
                });
                all.push((handle, thread));
            }
        });
        Self { connections, listener }
    }

    /// How many connections came.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }
}

/// Ends when the daemon has closed its connections, too.
impl Drop for Origin {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for (tcp, thread) in self.connections.lock().unwrap().drain(..) {
            let _ = tcp.shutdown(std::net::Shutdown::Write);
            let _ = thread.join();
        }
    }
}
