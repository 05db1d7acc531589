//! What the h2 crate tells nobody, from the frames on both ways: that it reset the stream of a request that is none, and that a client
//! sends frames without end that ask for nothing (pings, settings, windows: CVE-2019-9512, -9515), which it takes all.
//!
//! Only the heads of frames are looked at.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// RFC 9113 §4.1: length, type, flags, stream.
const HEAD: usize = 9;
/// RFC 9113 §3.4.
const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// Of both.
const END_HEADERS: u8 = 4;
/// RFC 9113 §6.4: its payload is the error.
const RST_STREAM: u8 = 3;
const CODE: usize = 4;
/// RFC 9113 §7. The h2 crate gives it to malformed requests alone; what else ends a stream has other codes.
const PROTOCOL_ERROR: [u8; CODE] = [0, 0, 0, 1];

/// Frames that ask for nothing, beyond those that come with requests and bodies, within [`CALM_TIME`].
const MOST_IDLE: u32 = 10_000;
const CALM_TIME: Duration = Duration::from_secs(10);
/// How many of them each frame of a request, a response or a body may bring with it.
const WITH_EACH: u32 = 4;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    resets: AtomicU32,
    flooded: AtomicBool,
    within: AtomicBool,
    /// How often something was written, and whether the last time nothing could be.
    writes: AtomicU32,
    is_full: AtomicBool,
}

impl Findings {
    /// Streams that were reset because of what came, and were not taken yet: how many.
    pub fn take_resets(&self) -> Option<u32> {
        // They are rare, and this is asked often.
        (self.resets.load(Ordering::Relaxed) > 0).then(|| self.resets.swap(0, Ordering::Relaxed))
    }

    /// Whether part of a header came, and the rest did not.
    #[must_use]
    pub fn is_within_header(&self) -> bool {
        self.within.load(Ordering::Relaxed)
    }

    /// When the client takes no more at the moment: how often something was written until then.
    #[must_use]
    pub fn unwritten(&self) -> Option<u32> {
        self.is_full.load(Ordering::Relaxed).then(|| self.writes.load(Ordering::Relaxed))
    }

    fn written(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.is_full.store(false, Ordering::Relaxed);
    }

    fn full(&self) {
        self.is_full.store(true, Ordering::Relaxed);
    }

    /// Whether the connection was ended because of a flood.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }
}

/// A stream of HTTP/2 of a server, whose frames are followed.
#[derive(Debug)]
pub struct Watched<S> {
    inner: S,
    incoming: Frames,
    outgoing: Frames,
    calm: Calm,
    findings: Arc<Findings>,
}

/// Where in the frames of one direction we are.
#[derive(Debug, Default)]
struct Frames {
    /// The head of a frame, and behind it the code of one that resets a stream; as far as it came.
    head: [u8; HEAD + CODE],
    filled: usize,
    /// Bytes that nobody looks at.
    skip: usize,
    /// A header began.
    within: bool,
    /// The frame with its end did.
    is_last: bool,
}

impl Frames {
    /// Tells of each frame its type, its length, and whether it resets a stream with [`PROTOCOL_ERROR`].
    fn feed(&mut self, mut bytes: &[u8], mut note: impl FnMut(u8, usize, bool)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let taken = self.skip.min(bytes.len());
                self.skip -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
                self.end();
                continue;
            }
            // Only the head of a RST_STREAM stays until its payload is here.
            let wanted = if self.filled < HEAD { HEAD } else { HEAD + CODE };
            let space = self.head.get_mut(self.filled..wanted).unwrap_or_default();
            let taken = space.len().min(bytes.len());
            for (place, byte) in space.iter_mut().zip(bytes) {
                *place = *byte;
            }
            self.filled += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.filled < wanted {
                return;
            }
            let [a, b, c, kind, flags, ..] = self.head;
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            if wanted == HEAD {
                // Of another length it is none, and ends the connection.
                if kind == RST_STREAM && length == CODE {
                    continue;
                }
                self.skip = length;
                if matches!(kind, HEADERS | CONTINUATION) {
                    (self.within, self.is_last) = (true, flags & END_HEADERS != 0);
                    self.end();
                }
            }
            note(kind, length, wanted > HEAD && self.head.ends_with(&PROTOCOL_ERROR));
            self.filled = 0;
        }
    }

    /// Notes the end of a header, if all of it is here.
    fn end(&mut self) {
        if self.is_last && self.skip == 0 {
            (self.within, self.is_last) = (false, false);
        }
    }
}

/// Counts frames that ask for nothing.
#[derive(Debug, Default)]
struct Calm {
    idle: u32,
    /// When there were half as many as there may be.
    half: Option<Instant>,
}

impl Calm {
    fn carried(&mut self) {
        self.idle = self.idle.saturating_sub(WITH_EACH);
    }

    /// Whether it was one too many. The clock is looked at twice in thousands.
    fn is_over(&mut self) -> bool {
        self.idle += 1;
        if self.idle == MOST_IDLE / 2 {
            self.half = Some(Instant::now());
        }
        if self.idle < MOST_IDLE {
            return false;
        }
        self.idle = 0;
        self.half.take().is_some_and(|half| half.elapsed() < CALM_TIME)
    }
}

impl<S> Watched<S> {
    /// Follows what comes and goes over `inner`, from the client's preface on.
    #[must_use]
    pub fn new(inner: S) -> Self {
        let incoming = Frames { skip: PREFACE, ..Frames::default() };
        Self { inner, incoming, outgoing: Frames::default(), calm: Calm::default(), findings: Arc::default() }
    }

    /// What was found.
    #[must_use]
    pub fn findings(&self) -> &Arc<Findings> {
        &self.findings
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Self { outgoing, calm, findings, .. } = self;
        outgoing.feed(bytes, |kind, _, is_protocol_error| {
            if is_protocol_error {
                findings.resets.fetch_add(1, Ordering::Relaxed);
            }
            if matches!(kind, DATA | HEADERS) {
                calm.carried();
            }
        });
    }

    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { incoming, calm, findings, .. } = self;
        let mut is_over = false;
        incoming.feed(bytes, |kind, length, _| match kind {
            HEADERS => calm.carried(),
            DATA if length > 0 => calm.carried(),
            _ => is_over |= calm.is_over(),
        });
        findings.within.store(incoming.within, Ordering::Relaxed);
        if !is_over {
            return Ok(());
        }
        findings.flooded.store(true, Ordering::Relaxed);
        Err(io::Error::other("frames without end that ask for nothing"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        Poll::Ready(this.came(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Poll::Ready(count) = Pin::new(&mut this.inner).poll_write(cx, bytes)? else {
            this.findings.full();
            return Poll::Pending;
        };
        this.findings.written();
        this.sent(bytes.get(..count).unwrap_or(bytes));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        // What TLS has taken is not with the client yet.
        self.findings.is_full.store(flushed.is_pending(), Ordering::Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Poll::Ready(count) = Pin::new(&mut this.inner).poll_write_vectored(cx, parts)? else {
            this.findings.full();
            return Poll::Pending;
        };
        this.findings.written();
        let mut left = count;
        for part in parts {
            let written = part.get(..left.min(part.len())).unwrap_or(part);
            this.sent(written);
            left -= written.len();
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn a_reset_because_of_what_came_is_found_however_it_is_written() {
        let found = [frame(RST_STREAM, &PROTOCOL_ERROR), frame(4, &[]), frame(0, &[3; 300])].concat();
        let other = [frame(RST_STREAM, &[0, 0, 0, 8]), frame(0, &PROTOCOL_ERROR), frame(6, &found)].concat();
        let all = [&other[..], &found, &other, &found].concat();
        for size in 1..all.len() {
            let mut watched = Watched::new(());
            all.chunks(size).for_each(|piece| watched.sent(piece));
            let findings = watched.findings();
            assert_eq!(
                (findings.take_resets(), findings.take_resets()),
                (Some(2), None),
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn a_header_is_begun_from_its_first_byte_behind_a_frames_head_to_its_last_one() {
        let block = |kind, flags, payload: &[u8]| {
            let mut bytes = frame(kind, payload);
            bytes[4] = flags;
            bytes
        };
        let mut watched = Watched::new(());
        let mut is_within = |bytes: &[u8]| {
            watched.came(bytes).unwrap();
            watched.findings().is_within_header()
        };
        assert!(!is_within(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        let whole = block(HEADERS, END_HEADERS, &[1, 2]);
        assert!(is_within(&whole[..10]) && !is_within(&whole[10..]));
        assert!(!is_within(&[&whole[..], &frame(DATA, &[1])].concat()));
        assert!(is_within(&block(HEADERS, 0, &[1])));
        assert!(is_within(&block(CONTINUATION, 0, &[])));
        assert!(!is_within(&block(CONTINUATION, END_HEADERS, &[])));
    }

    #[test]
    fn frames_that_ask_for_nothing_are_too_many_unless_others_come_with_them() {
        let [ping, data] = [frame(6, &[0; 8]), frame(DATA, &[1])];
        let start = || {
            let mut watched = Watched::new(());
            watched.came(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            watched
        };
        let mut watched = start();
        for _ in 1..MOST_IDLE {
            watched.came(&ping).unwrap();
        }
        assert!(watched.came(&ping).is_err() && watched.findings().is_flooded());
        // Of a download: the client opens windows as data goes out. Of an upload, and of calls.
        for is_upload in [false, true] {
            let mut watched = start();
            for _ in 0..MOST_IDLE {
                watched.came(&ping.repeat(2)).unwrap();
                if is_upload { watched.came(&data).unwrap() } else { watched.sent(&data) }
            }
        }
    }
}
