//! `*.test.toml`: calls that nobody made, and what is expected of each.
//!
//! A file may also say by `[[given]]` which grants an identity has that is only there for the tests, so that a role is
//! tested before somebody has it, and by `[credential.NAME]` which credentials these grants name.

use crate::conditions::Conditions;
use crate::diagnostic::{Problem, quote};
use crate::draft::{IdentityDraft, read_grant, read_mode, read_unmatched};
use crate::host::Host;
use crate::model::Scheme;
use crate::names::Names;
use crate::operation::is_token;
use crate::place::{Place, Spanned};
use crate::read::{Reader, Section, check_name};
use crate::suggest;
use crate::until::Moment;

/// How the files of tests end. They are no part of a policy.
pub const TEST_SUFFIX: &str = ".test.toml";

/// A call that nobody made, and what is expected of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rehearsal {
    /// Where it stands.
    pub place: Place,
    /// The label of the file.
    pub file: String,
    /// The name of the identity that would make it.
    pub identity: Spanned<String>,
    /// The request.
    pub request: Spoken,
    /// What the client would send besides, in the order of the file.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<String>,
    /// What is known of the process.
    pub workload: Attributes,
    /// When; without it, now.
    pub time: Option<Moment>,
    /// What is expected.
    pub expect: Expect,
    /// The operation that is expected to decide.
    pub rule: Option<String>,
    /// The name of the credential that is expected to be attached; empty: none.
    pub credential: Option<String>,
    /// A part of the reason that is expected.
    pub reason: Option<String>,
}

/// What conditions can look at of a process that is not there. What is not said is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Path of the executable.
    pub exe: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The path of the cgroup.
    pub cgroup: Option<String>,
    /// Real user id.
    pub uid: Option<u32>,
    /// Real group id.
    pub gid: Option<u32>,
}

/// What is expected of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// It may go on.
    Allow,
    /// It is refused.
    Deny,
    /// It goes on only because it is observed.
    Observe,
}

impl Expect {
    const NAMES: [&'static str; 3] = ["allow", "deny", "observe"];

    /// As in a file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Observe => "observe",
        }
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            "observe" => Ok(Self::Observe),
            other => Err(Problem::new(
                format!("\"expect\" cannot be {}", quote(other)),
                suggest::help(other, Self::NAMES, "expectation"),
            )),
        }
    }
}

/// A request as one writes it: `GET https://api.stripe.com/v1/invoices?limit=3`, with `websocket` or `grpc` for the method
/// of an upgrade or a gRPC call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// As it was written.
    pub text: String,
    /// The method.
    pub method: String,
    /// What it is besides a request.
    pub besides: Option<Besides>,
    /// The scheme of the URL.
    pub scheme: Scheme,
    /// The host, with the port if the URL has one.
    pub host: Host,
    /// Host and port as they were written.
    pub authority: String,
    /// Path and query as they were written; `/` if the URL has none.
    pub target: String,
}

/// A request that is more than a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Besides {
    /// The upgrade to a WebSocket.
    WebSocket,
    /// A gRPC call.
    Grpc,
}

impl Spoken {
    /// Reads a request. What is asked for is not judged here: a path that is refused is a request that is refused.
    ///
    /// # Errors
    /// It has not the shape of one; what is wrong with it and what to do, each as a sentence.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        Self::read(text).map_err(|problem| (problem.message, problem.help))
    }

    pub(crate) fn read(text: &str) -> Result<Self, Problem> {
        let shape = "write METHOD and URL with one space between: \"GET https://api.example.com/path?query\"";
        let bad = |what: &str| Problem::new(format!("the request {} {what}", quote(text)), shape);
        let (word, url) = text.split_once(' ').ok_or_else(|| bad("has no method"))?;
        let (method, besides) = match word {
            "websocket" => ("GET", Some(Besides::WebSocket)),
            "grpc" => ("POST", Some(Besides::Grpc)),
            method if !method.is_empty() && method.bytes().all(is_token) => (method, None),
            _ => return Err(bad("does not begin with a method")),
        };
        let (scheme, rest) = match url.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            _ => return Err(bad("has no URL that begins with https:// or http://")),
        };
        if let Some(found) = rest.chars().find(|c| c.is_whitespace() || *c == '#') {
            let what = if found == '#' { "has a fragment" } else { "has a space in its URL" };
            return Err(bad(what));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let host = Host::parse(authority).map_err(|error| bad(&format!("has a bad host: {error}")))?;
        let target = match target.starts_with('/') {
            true => target.to_owned(),
            false => format!("/{target}"),
        };
        Ok(Self {
            text: text.to_owned(),
            method: method.to_owned(),
            besides,
            scheme,
            host,
            authority: authority.to_owned(),
            target,
        })
    }

    /// The port that is connected to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.host.port().unwrap_or_else(|| self.scheme.default_port())
    }
}

/// What is in a file of tests besides calls: identities, which no workload has.
pub(crate) fn read_given(root: &Section<'_>, reader: &mut Reader<'_>) -> Vec<IdentityDraft> {
    let mut given = Vec::new();
    for section in reader.sections(root, "given") {
        reader.check_keys(&section, &["name", "unmatched", "mode", "grant"], |key| match key {
            "role" | "api" | "allow" | "deny" | "credential" | "with" => Some(Problem::new(
                format!("{} does not stand in a [[given]]", quote(key)),
                "move it below [[given.grant]]",
            )),
            _ => None,
        });
        let name = reader.required(&section, "name", "name the identity that the calls below are made as");
        let unmatched = read_unmatched(&section, reader);
        let mode = read_mode(&section, reader);
        let grants = reader.sections(&section, "grant").iter().map(|it| read_grant(it, reader)).collect();
        let Some(name) = name else { continue };
        if let Err(problem) = check_name("an identity", &name) {
            reader.findings.problem(name.place, problem);
        }
        given.push(IdentityDraft {
            conditions: Conditions::none(name.place),
            name,
            description: None,
            comparable: false,
            unmatched,
            mode,
            limits: crate::limit::Limits::default(),
            grants,
        });
    }
    given
}

/// The calls of a file.
pub(crate) fn read_calls(root: &Section<'_>, file: &str, reader: &mut Reader<'_>) -> Vec<Rehearsal> {
    const KEYS: [&str; 10] =
        ["as", "request", "headers", "body", "workload", "time", "expect", "rule", "credential", "reason"];
    let mut calls = Vec::new();
    for section in reader.sections(root, "call") {
        reader.check_keys(&section, &KEYS, |key| match key {
            "identity" | "method" | "url" | "path" | "host" => Some(Problem::new(
                format!("{} does not stand in a [[call]]", quote(key)),
                "write as = \"IDENTITY\" and request = \"METHOD URL\"",
            )),
            _ => None,
        });
        let identity = reader.required(&section, "as", "name the identity that makes the call");
        let request = reader.required(&section, "request", "write request = \"GET https://host/path\"");
        let request = request.and_then(|text| reader.parse(&text, Spoken::read));
        let expect = reader.required(&section, "expect", "write expect = \"allow\", \"deny\" or \"observe\"");
        let expect = expect.and_then(|text| reader.parse(&text, Expect::parse));
        let headers = read_headers(&section, reader);
        let body = reader.string(&section, "body").map(|it| it.value);
        let workload = read_workload(&section, reader);
        let time = reader.datetime(&section, "time").and_then(|value| match Moment::of("time", &value) {
            Ok(moment) => Some(moment),
            Err(problem) => {
                reader.findings.problem(value.place, problem);
                None
            }
        });
        let mut text = |key| reader.string(&section, key).map(|it| it.value);
        let (rule, credential, reason) = (text("rule"), text("credential"), text("reason"));
        let (Some(identity), Some(request), Some(expect)) = (identity, request, expect) else { continue };
        calls.push(Rehearsal {
            place: section.place,
            file: file.to_owned(),
            identity,
            request: request.value,
            headers,
            body,
            workload,
            time,
            expect: expect.value,
            rule,
            credential,
            reason,
        });
    }
    calls
}

fn read_workload(section: &Section<'_>, reader: &mut Reader<'_>) -> Attributes {
    let help = "write workload = { unit = \"invoice.service\", uid = 1000 }";
    let Some(table) = reader.section(section, "workload", "\"workload\"", help) else {
        return Attributes::default();
    };
    reader.check_keys(&table, &["exe", "unit", "cgroup", "uid", "gid"], |key| match key {
        "user" | "group" => Some(Problem::new(
            format!("conditions look at numbers, not at {}", quote(key)),
            "write uid = 1000, or gid = 1000",
        )),
        _ => None,
    });
    let mut number = |key| {
        let number = reader.integer(&table, key)?;
        let small = u32::try_from(number.value).ok();
        if small.is_none() {
            let message = format!("\"{key}\" cannot be {}", number.value);
            reader.findings.error(number.place, message, "write the number of a user or group");
        }
        small
    };
    let (uid, gid) = (number("uid"), number("gid"));
    let mut text = |key| reader.string(&table, key).map(|it| it.value);
    Attributes { exe: text("exe"), unit: text("unit"), cgroup: text("cgroup"), uid, gid }
}

fn read_headers(section: &Section<'_>, reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, value) in reader.string_table(section, "headers") {
        if name.value.is_empty() || !name.bytes().all(is_token) {
            let message = format!("{} is not the name of a header", quote(&name));
            reader.findings.error(name.place, message, "header names have letters, digits and -");
        } else if value.chars().any(|c| c.is_control() && c != '\t') {
            let message = format!("the header {} has a character that no header has", quote(&name));
            reader.findings.error(value.place, message, "write it without control characters");
        } else {
            headers.push((name.value, value.value));
        }
    }
    headers
}

/// Reports calls of identities that are not there.
pub(crate) fn check_identities(
    calls: &[Rehearsal],
    identities: &Names<'_>,
    findings: &mut crate::diagnostic::Findings,
) {
    for call in calls {
        identities.find(&call.identity, findings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_method_and_a_url_of_which_nothing_is_changed() {
        let read = |text: &str| {
            let spoken = Spoken::parse(text).unwrap();
            format!("{} {} {} {}", spoken.method, spoken.scheme, spoken.port(), spoken.target)
        };
        assert_eq!(read("GET https://a.example/x/../y?z=/"), "GET https 443 /x/../y?z=/");
        assert_eq!(read("get http://A.example:8080"), "get http 8080 /");
        assert_eq!(read("GET https://a.example?x"), "GET https 443 /?x");
        assert_eq!(read("grpc https://a.example/p.S/M"), "POST https 443 /p.S/M");
        assert_eq!(Spoken::parse("websocket https://a.example/").unwrap().besides, Some(Besides::WebSocket));
    }

    #[test]
    fn what_is_no_request_is_told_with_the_shape_of_one() {
        for bad in [
            "",
            "GET",
            "https://a.example/",
            "GET a.example/x",
            "GET ftp://a.example/x",
            "GET https://",
            "GET https:///x",
            "GET https://u@a.example/",
            "GET https://a.example/x#y",
            "GET https://a.example/x y",
            "G@T https://a.example/",
        ] {
            let (message, help) = Spoken::parse(bad).unwrap_err();
            assert!(message.starts_with("the request ") && help.contains("METHOD"), "{bad}: {message}");
        }
    }
}
