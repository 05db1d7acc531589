//! The way to a syslog server: RFC 5424 messages, counted in octets (RFC 6587 §3.4.1), over TCP or over TLS (RFC 5425).
//!
//! Syslog acknowledges nothing. What the server's host has acknowledged is held back for a while longer, and counts as arrived when
//! the connection still stands then: a server that ends with bytes unread resets it.

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

pub(super) struct Syslog {
    dial: Dial,
    link: Option<Link>,
    facility: u8,
    spelling: Spelling,
    frames: Vec<u8>,
}

impl Syslog {
    pub(super) fn new(dial: Dial, facility: u8, spelling: Spelling) -> Syslog {
        Syslog { dial, link: None, facility, spelling, frames: Vec::new() }
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
        self.link.as_mut().map_or(Ok(0), Link::waiting)
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
    use super::*;

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
