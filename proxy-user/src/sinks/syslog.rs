//! The way to a syslog server: RFC 5424 messages, counted in octets (RFC 6587 §3.4.1), over TCP or over TLS (RFC 5425).
//!
//! Syslog acknowledges nothing. What the server's host has acknowledged is held back for a while longer, and counts as arrived when
//! the connection still stands then, for a server that ends with bytes unread resets it, and when the room that the server has for more
//! shows that it reads. A server that seems not to is asked in the one way there is: by an end of the connection, which it answers
//! when it has read everything.

use std::fmt::Write as _;
use std::time::Duration;

use proxy_journal::{Content, Decision, Record, Verdict};

use super::link::{Dial, Link};
use super::message::{Message, Spelling};
use super::way::{Sent, Trouble, Way};

/// Names the structured data. The number is the one that RFC 5612 keeps for what has none of its own.
const SD_ID: &str = "vouchsafe@32473";
/// Longest value of structured data in bytes; the message has the whole of it.
const MAX_VALUE: usize = 1024;

/// How long a server may seem not to read until it is asked, and how long it has to answer.
const UNREAD_FOR: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct Syslog {
    dial: Dial,
    link: Option<Link>,
    facility: u8,
    spelling: Spelling,
    frames: Vec<u8>,
    patience: Duration,
}

impl Syslog {
    pub(super) fn new(dial: Dial, facility: u8, spelling: Spelling) -> Syslog {
        Syslog { dial, link: None, facility, spelling, frames: Vec::new(), patience: UNREAD_FOR }
    }
}

impl Way for Syslog {
    const HOLD: Duration = Duration::from_secs(5);

    async fn send(&mut self, messages: &[Message]) -> Result<Sent, Trouble> {
        let link = match &mut self.link {
            Some(link) => link,
            none => none.insert(self.dial.open().await?),
        };
        link.waiting()?;
        self.frames.clear();
        self.frames.shrink_to(1 << 20);
        for message in messages {
            frame(&mut self.frames, message, self.facility, &self.spelling);
        }
        link.write(&self.frames).await?;
        let bytes = u64::try_from(self.frames.len()).unwrap_or(u64::MAX);
        Ok(Sent { count: messages.len(), rejected: 0, bytes })
    }

    async fn waiting(&mut self) -> Result<u64, Trouble> {
        let Some(link) = &mut self.link else { return Ok(0) };
        let waiting = link.waiting()?;
        if link.unread_for() <= self.patience {
            return Ok(waiting);
        }
        let has_read = tokio::time::timeout(ANSWER_WITHIN, link.end()).await.unwrap_or(false);
        self.link = None;
        if has_read { Ok(0) } else { Err(Trouble::new("the receiver does not read what it is sent")) }
    }

    async fn end(&mut self) -> bool {
        match &mut self.link {
            Some(link) => link.end().await,
            None => false,
        }
    }

    fn reset(&mut self) {
        self.link = None;
    }
}

/// Adds a message behind its length.
fn frame(frames: &mut Vec<u8>, message: &Message, facility: u8, spelling: &Spelling) {
    let text = spell(message, facility, spelling);
    frames.extend_from_slice(text.len().to_string().as_bytes());
    frames.push(b' ');
    frames.extend_from_slice(text.as_bytes());
}

fn spell(message: &Message, facility: u8, spelling: &Spelling) -> String {
    let body = spelling.spell(message);
    let mut text = String::with_capacity(body.len() + 512);
    let priority = facility * 8 + message.severity() as u8;
    let (time, host, pid) = (message.line.time, spelling.host(), std::process::id());
    // Writing into a String does not fail.
    let _ = write!(text, "<{priority}>1 {time} {host} vouchsafe {pid} {} [{SD_ID}", message.kind());
    put(&mut text, "seq", &message.line.seq.to_string());
    put(&mut text, "hash", message.hash());
    if let Content::Known(record) = &message.content {
        match record {
            Record::Decision(decision) | Record::Connection(decision) => put_decision(&mut text, decision),
            Record::Outcome(outcome) => {
                match &message.decision {
                    Some(decision) => put_decision(&mut text, decision),
                    None => put(&mut text, "call", &outcome.id.to_string()),
                }
                if let Some(status) = outcome.status {
                    put(&mut text, "status", &status.to_string());
                }
            }
            Record::Trace(trace) => {
                put(&mut text, "identity", trace.identity.as_deref().unwrap_or("unknown"));
                put(&mut text, "verdict", "deny");
            }
            Record::Bound(bound) => {
                if let Some(whose) = bound.whose() {
                    put(&mut text, "identity", whose);
                }
            }
            _ => {}
        }
    }
    text.push_str("] ");
    text.push_str(&body);
    text
}

fn put_decision(text: &mut String, decision: &Decision) {
    put(text, "call", &decision.id.to_string());
    put(text, "identity", decision.identity.as_deref().unwrap_or("unknown"));
    put(text, "verdict", if decision.verdict == Verdict::Allow { "allow" } else { "deny" });
    let named = [("method", &decision.method), ("host", &decision.host), ("path", &decision.path)];
    for (name, value) in named {
        if let Some(value) = value {
            put(text, name, value);
        }
    }
}

/// One parameter of the structured data. What would end the value is escaped (RFC 5424 §6.3.3), and what would steer a terminal, or
/// end a line where the receiver writes it, is spelled out.
fn put(text: &mut String, name: &'static str, value: &str) {
    let _ = write!(text, " {name}=\"");
    for character in proxy_journal::text::shorten(value, MAX_VALUE).chars() {
        match character {
            '"' | '\\' | ']' => text.extend(['\\', character]),
            _ if character.is_control() || ('\u{2028}'..='\u{202e}').contains(&character) => {
                let _ = write!(text, "\\\\u{{{:x}}}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::super::link::Secrets;
    use super::*;
    use crate::config::Format;

    /// Most of what a server has room for that never read anything.
    const MOST: usize = 120_000;

    /// A way to a server that was sent so many bytes, and the server's end.
    async fn sent(bytes: usize) -> (Syslog, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let dial = Dial { host: "127.0.0.1".to_owned(), port, tls: None, secrets: Secrets::new(None) };
        let mut link = dial.open().await.unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(link.waiting(), Ok(0));
        for _ in 0..bytes / 2000 {
            // In parts, as messages are.
            let written = tokio::time::timeout(Duration::from_millis(300), link.write(&[b'x'; 2000])).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            if written.is_err() {
                break;
            }
        }
        let patience = Duration::from_millis(300);
        (
            Syslog { link: Some(link), patience, ..Syslog::new(dial, 10, Spelling::new(Format::Native)) },
            server,
        )
    }

    #[tokio::test]
    async fn nothing_has_arrived_at_a_server_that_does_not_read_and_all_of_it_when_it_has_read() {
        // More than it has room for, and less.
        for bytes in [64 << 20, MOST] {
            let (mut syslog, mut server) = sent(bytes).await;
            assert_eq!(syslog.waiting().await, Ok(u64::MAX), "{bytes}");
            if bytes == MOST {
                server.read_exact(&mut vec![0; bytes]).unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert_eq!(syslog.waiting().await, Ok(0));
                drop(server);
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(syslog.waiting().await.is_err());
            } else {
                // It goes away without having read.
                drop(server);
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(syslog.waiting().await.is_err());
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_seems_not_to_read_for_long_is_asked_by_an_end_of_the_connection() {
        let (mut syslog, mut server) = sent(MOST).await;
        assert_eq!(syslog.waiting().await, Ok(u64::MAX));
        tokio::time::sleep(Duration::from_millis(400)).await;
        // It did not read, and does now, to the end.
        let reader = std::thread::spawn(move || server.read_to_end(&mut Vec::new()).unwrap());
        assert_eq!(syslog.waiting().await, Ok(0));
        assert_eq!((reader.join().unwrap(), syslog.link.is_none()), (MOST, true));
        // One that goes away instead, with all of it unread.
        let (mut syslog, server) = sent(MOST).await;
        assert_eq!(syslog.waiting().await, Ok(u64::MAX));
        tokio::time::sleep(Duration::from_millis(400)).await;
        let gone = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(server);
        });
        let error = syslog.waiting().await.unwrap_err();
        assert!(error.what.contains("does not read"), "{error:?}");
        gone.join().unwrap();
    }

    #[test]
    fn no_value_ends_its_parameter_its_element_or_its_line() {
        let mut text = String::new();
        put(&mut text, "path", "/a\"] [x@1 verdict=\"allow\"]\\\n<34>1 \u{1b}[2J\u{202e}");
        assert_eq!(
            text,
            " path=\"/a\\\"\\] [x@1 verdict=\\\"allow\\\"\\]\\\\\\\\u{a}<34>1 \\\\u{1b}[2J\\\\u{202e}\""
        );
        text.clear();
        put(&mut text, "path", &"é".repeat(MAX_VALUE));
        assert!(text.len() <= MAX_VALUE + 16);
    }
}
