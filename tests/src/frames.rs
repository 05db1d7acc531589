//! HTTP/2 in the hands of the test, frame by frame (RFC 9113 §4.1): for what a library never sends.

use std::io::{self, Read, Write};

use crate::RAW_ADDRESS;
use crate::wire::{Dialer, Tls};

/// Types of frames.
pub const DATA: u8 = 0;
/// See [`DATA`].
pub const HEADERS: u8 = 1;
/// See [`DATA`].
pub const RST_STREAM: u8 = 3;
/// See [`DATA`].
pub const SETTINGS: u8 = 4;
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

/// A connection of a bot to `raw.test`, after the preface and our settings.
pub struct Http2 {
    stream: Tls,
}

impl Http2 {
    /// Opens one.
    #[must_use]
    #[track_caller]
    pub fn open(dialer: &Dialer) -> Self {
        let client = dialer.client("raw.test", &["h2"]);
        let stream = Tls::new(client, dialer.dial(&format!("{RAW_ADDRESS}:443")));
        let mut this = Self { stream };
        this.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        this.send(SETTINGS, 0, 0, &[]).unwrap();
        this
    }

    /// The TCP connection below.
    #[must_use]
    pub fn tcp(&self) -> &std::net::TcpStream {
        &self.stream.sock
    }

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
    pub fn next(&mut self) -> Option<Frame> {
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
            let Some(frame) = self.next() else { return Dealt::Closed };
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
