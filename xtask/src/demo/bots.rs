//! The bots: what each runs, what must come back, and how it is printed.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::ROOT;
use super::server::{HOST, Server};
use crate::sh;
use crate::stage::Stage;
use crate::stage::process::{self, Finished};

/// A bot that takes longer than this hangs; the clients give up after 20 s.
const LIMIT: Duration = Duration::from_secs(30);

/// One act of the demo.
struct Act {
    title: &'static str,
    /// The script of the stage that runs it: `as-bot` or `outside`.
    place: &'static str,
    command: Vec<String>,
    expected: Expected,
}

/// What must come back.
enum Expected {
    /// This status.
    Status(u16),
    /// This status with a reason that a person understands; the API must not be reached.
    Refused(u16),
    /// A refusal of any kind, HTTP or a connection that does not come about; the API must not be reached.
    Nothing,
    /// 200, and the API saw the proxy's key.
    ProxysKey,
}

/// Lets all bots play; returns how many calls were governed, and how many bots got something else than they should.
pub(super) fn play(stage: &Stage, server: &Server) -> Result<(usize, usize)> {
    let (mut calls, mut wrong) = (0, 0);
    for (number, act) in acts(server).into_iter().enumerate() {
        println!("\n{}  {}", number + 1, act.title);
        // What a bot keeps to itself must not be printed by us either.
        let typed = act.command.iter().map(|word| sh::quoted(word.as_ref())).collect::<Vec<_>>().join(" ");
        println!("   $ {}", typed.replace(&server.stolen, "demo_lost_…"));
        let before = server.requests();
        let mut command = Command::new(stage.path(act.place));
        let finished = process::finish(command.args(&act.command), LIMIT, &stage.stop)?;
        let answer = Answer::read(&finished);
        calls += usize::from(act.place == "as-bot");
        let reached = server.requests() > before;
        println!("   → {}", answer.shown());
        match act.expected.check(&answer, reached, server) {
            Ok(why) => println!("   ✓ {why}"),
            Err(why) => {
                wrong += 1;
                println!("   ✗ {why}");
            }
        }
    }
    Ok((calls, wrong))
}

fn acts(server: &Server) -> Vec<Act> {
    let url = format!("https://{HOST}/v1/invoices/7");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let script = format!("{ROOT}/invoices.py");
    vec![
        Act {
            title: "without the proxy: curl outside the governed cgroup, no key",
            place: "outside",
            command: words(&["curl", &url]),
            expected: Expected::Status(401),
        },
        Act {
            title: "a bot: curl, no key",
            place: "as-bot",
            command: words(&["curl", &url]),
            expected: Expected::ProxysKey,
        },
        Act {
            title: "a bot: a Python script, no key",
            place: "as-bot",
            command: words(&["python3", &script, "GET", &url]),
            expected: Expected::ProxysKey,
        },
        Act {
            title: "the same script with a method that its policy does not grant",
            place: "as-bot",
            command: words(&["python3", &script, "DELETE", &url]),
            expected: Expected::Refused(403),
        },
        Act {
            title: "a program that no policy knows: the same curl under another path",
            place: "as-bot",
            command: words(&[&format!("{ROOT}/elsewhere/curl"), &url]),
            expected: Expected::Nothing,
        },
        Act {
            title: "a bot that brings a key which it stole elsewhere",
            place: "as-bot",
            command: words(&["curl", "-H", &format!("Authorization: Bearer {}", server.stolen), &url]),
            expected: Expected::ProxysKey,
        },
    ]
}

/// What a bot got.
struct Answer {
    /// The HTTP status; None when there was no answer.
    status: Option<u16>,
    /// The body, or what the client complained about.
    text: String,
}

impl Answer {
    /// Both clients of the demo print `BODY [STATUS]`; curl prints status 000 when there was no answer.
    fn read(finished: &Finished) -> Self {
        let stdout = finished.stdout.trim();
        let parsed = stdout.rsplit_once('[').and_then(|(body, status)| {
            let status = status.strip_suffix(']')?.parse::<u16>().ok()?;
            (status >= 100).then(|| (body.trim().to_owned(), status))
        });
        match parsed {
            Some((text, status)) => Self { status: Some(status), text },
            None => {
                // The last line of a Python traceback says it all.
                let last = finished.stderr.trim().lines().next_back().unwrap_or("no answer");
                Self { status: None, text: last.to_owned() }
            }
        }
    }

    fn field(&self, name: &str) -> Option<String> {
        let body: Value = serde_json::from_str(&self.text).ok()?;
        Some(body.get(name)?.as_str()?.to_owned())
    }

    /// The reason of a refusal (RFC 9457).
    fn reason(&self) -> Option<String> {
        self.field("detail").or_else(|| self.field("title"))
    }

    fn shown(&self) -> String {
        let text = self.reason().unwrap_or_else(|| self.text.lines().collect::<Vec<_>>().join(" "));
        match self.status {
            Some(status) => format!("{status}  {text}"),
            None => format!("no answer  {text}"),
        }
    }
}

impl Expected {
    /// Why the answer is right (Ok) or wrong (Err).
    fn check(&self, answer: &Answer, reached: bool, server: &Server) -> Result<String, String> {
        let right_if = |right: bool, why: &str, wrong: &str| match right {
            true => Ok(why.to_owned()),
            false => Err(wrong.to_owned()),
        };
        match self {
            Self::Status(status) => right_if(
                answer.status == Some(*status),
                "the API wants a key",
                &format!("should have been {status}"),
            ),
            Self::Refused(_) | Self::Nothing if reached => {
                Err("reached the API, and should not have".to_owned())
            }
            Self::Refused(status) => right_if(
                answer.status == Some(*status) && answer.reason().is_some(),
                "refused with a reason; the API never saw the call",
                &format!("should have been {status} with a reason"),
            ),
            Self::Nothing => right_if(
                answer.status.is_none_or(|status| status == 403),
                "refused; the API never saw the call",
                "should have been refused",
            ),
            Self::ProxysKey => right_if(
                answer.status == Some(200) && answer.field("key_seen") == Some(server.key_shown()),
                "the API saw the key from the proxy's store, the bot never had it",
                &format!("should have been 200 with the key {}", server.key_shown()),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    fn answer(stdout: &str, stderr: &str) -> Answer {
        Answer::read(&Finished {
            status: std::process::ExitStatus::from_raw(0),
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }

    #[test]
    fn answers_of_both_clients_are_read() {
        let ok = answer("{\"a\":[1]} [200]\n", "");
        assert_eq!((ok.status, ok.text.as_str()), (Some(200), "{\"a\":[1]}"));
        let gone = answer(" [000]\n", "curl: (7) Failed to connect\n");
        assert_eq!((gone.status, gone.text.as_str()), (None, "curl: (7) Failed to connect"));
        assert_eq!(
            answer("", "Traceback\nurllib.error.URLError: reset\n").text,
            "urllib.error.URLError: reset"
        );
        assert_eq!(answer("", "").text, "no answer");
    }

    #[test]
    fn a_refusal_is_shown_by_its_reason() {
        let refused = answer(r#"{"title":"Forbidden","detail":"no grant allows DELETE"} [403]"#, "");
        assert_eq!(refused.shown(), "403  no grant allows DELETE");
    }
}
