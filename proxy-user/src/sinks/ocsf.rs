//! Spells a record as an event of the Open Cybersecurity Schema Framework, version 1.5 (<https://schema.ocsf.io/1.5.0>).
//!
//! A call is API Activity (6003), as its decision and as its outcome; both have its id as `metadata.correlation_uid`. A
//! connection without a request is Network Activity (4001), a trace Process Activity (1007), a policy, secret or CA Entity
//! Management (3004), start, stop and detach Application Lifecycle (6002). Whatever has no class is a Base Event (0). The fields that
//! have no place are below `unmapped`, under their own names; the table is in docs/sinks.md.

use proxy_journal::{
    CaChange, Content, Decision, Outcome, Person, PolicyResult, Record, SecretChange, SecretStep, Trace,
    Verdict, Workload,
};
use serde_json::{Map, Value, json};

use super::message::{Message, Severity};

const VERSION: &str = "1.5.0";

/// The methods that it has words for; another one is told by the operation alone.
const METHODS: [&str; 8] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE"];

/// Class and activity.
const API: u32 = 6003;
const NETWORK: u32 = 4001;
const PROCESS: u32 = 1007;
const ENTITY: u32 = 3004;
const LIFECYCLE: u32 = 6002;

/// One line of JSON. It has no control characters of its own, nor of what it says.
pub(super) fn spell(message: &Message, host: &str) -> String {
    let line = event(message, host).to_string();
    proxy_journal::text::escape_json(&line).into_owned()
}

fn event(message: &Message, host: &str) -> Value {
    let mut event = Event::new(message, host);
    let Content::Known(record) = &message.content else {
        event.unmapped(unmapped(message));
        return event.of(0, 99, Some("Other"));
    };
    match record {
        Record::Decision(decision) => {
            event.unmapped(without_mapped(unmapped(message)));
            event.decision(decision);
            event.of_call(decision, None)
        }
        Record::Connection(decision) => {
            event.unmapped(without_mapped(unmapped(message)));
            event.decision(decision);
            event.of(NETWORK, 1, None)
        }
        Record::Outcome(outcome) => {
            event.unmapped(unmapped(message));
            event.metadata("correlation_uid", json!(outcome.id));
            event.outcome(outcome);
            match &message.decision {
                Some(decision) => {
                    event.decision(decision);
                    event.of_call(decision, Some(outcome))
                }
                None => event.of(0, 99, Some("Outcome")),
            }
        }
        Record::Trace(trace) => event.trace(trace),
        Record::Policy(load) => {
            let refused = load.result == PolicyResult::Refused;
            event.status(!refused, load.errors.first().map(String::as_str));
            event.put("entity", json!({ "name": "policy", "type": "Policy", "uid": load.digest, "version": load.generation.to_string() }));
            event.unmapped(unmapped(message));
            event.of(ENTITY, 3, None)
        }
        Record::Secret(change) => event.secret(change, unmapped(message)),
        Record::Ca(change) => event.ca(change, unmapped(message)),
        Record::Start(start) => {
            event.app(&start.version);
            event.unmapped(unmapped(message));
            event.of(LIFECYCLE, 3, None)
        }
        Record::Stop(stop) => {
            event.app(env!("CARGO_PKG_VERSION"));
            event.put("status_detail", json!(stop.reason));
            event.of(LIFECYCLE, 4, None)
        }
        Record::Detach(detach) => {
            event.app(env!("CARGO_PKG_VERSION"));
            event.by(Some(&detach.by));
            event.status(detach.error.is_none(), detach.error.as_deref());
            event.unmapped(unmapped(message));
            event.of(LIFECYCLE, 7, None)
        }
        Record::Recovered(_)
        | Record::Bound(_)
        | Record::Key(_)
        | Record::Checkpoint(_)
        | Record::Segment(_)
        | Record::Retired(_) => {
            event.unmapped(unmapped(message));
            event.of(0, 99, Some("Other"))
        }
    }
}

/// The fields of the record itself, for what has no place of its own.
fn unmapped(message: &Message) -> Value {
    let Ok(Value::Object(mut all)) = serde_json::from_str(&message.line.text) else { return Value::Null };
    for envelope in ["v", "seq", "time", "prev", "hash"] {
        all.remove(envelope);
    }
    Value::Object(all)
}

/// Of a decision, what has no place: also what later versions add to it.
fn without_mapped(mut all: Value) -> Value {
    if let Value::Object(all) = &mut all {
        let mapped = [
            "kind", "id", "dst", "scheme", "api", "host", "port", "method", "path", "verdict", "rule",
            "reason",
        ];
        all.retain(|name, _| !mapped.contains(&name.as_str()));
    }
    all
}

/// An event in the making.
struct Event(Map<String, Value>);

impl Event {
    fn new(message: &Message, host: &str) -> Event {
        let severity = match message.severity() {
            Severity::Error => 4,
            Severity::Warning => 3,
            Severity::Notice | Severity::Info => 1,
        };
        let millis = message.line.time.micros() / 1000;
        let event = json!({
            "severity_id": severity,
            "time": millis,
            "message": message.sentence(),
            "metadata": {
                "version": VERSION,
                "uid": message.hash(),
                "sequence": message.line.seq,
                "event_code": message.kind(),
                "log_name": "journal",
                "logged_time": millis,
                "product": { "name": "Vouchsafe", "vendor_name": "Vouchsafe", "version": env!("CARGO_PKG_VERSION") },
                "profiles": ["host", "security_control"],
            },
            "device": { "hostname": host, "type_id": 0, "type": "Unknown" },
        });
        match event {
            Value::Object(event) => Event(event),
            _ => Event(Map::new()),
        }
    }

    fn put(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    fn metadata(&mut self, name: &str, value: Value) {
        if let Some(Value::Object(metadata)) = self.0.get_mut("metadata") {
            metadata.insert(name.to_owned(), value);
        }
    }

    /// Of a process in a container: the profile that has it.
    fn profile(&mut self, workload: &Workload) {
        if workload.container.is_some() {
            self.metadata("profiles", json!(["host", "security_control", "container"]));
        }
    }

    /// Adds to what has no place.
    fn unmapped(&mut self, more: Value) {
        match (self.0.get_mut("unmapped"), more) {
            (Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
            (_, Value::Object(more)) if more.is_empty() => {}
            (_, more @ Value::Object(_)) => self.put("unmapped", more),
            _ => {}
        }
    }

    /// With its class and activity it is done.
    fn of(mut self, class: u32, activity: u32, named: Option<&str>) -> Value {
        self.put("class_uid", json!(class));
        self.put("category_uid", json!(class / 1000));
        self.put("activity_id", json!(activity));
        self.put("type_uid", json!(u64::from(class) * 100 + u64::from(activity)));
        if let Some(name) = named {
            self.put("activity_name", json!(name));
        }
        Value::Object(self.0)
    }

    /// A call that has a request is of an API; what has none is a connection that was refused, opened or closed.
    fn of_call(self, decision: &Decision, outcome: Option<&Outcome>) -> Value {
        let Some(method) = &decision.method else {
            let activity = match (decision.verdict, outcome) {
                (Verdict::Deny, _) => 5,
                (Verdict::Allow, None) => 1,
                (Verdict::Allow, Some(_)) => 2,
            };
            return self.of(NETWORK, activity, None);
        };
        match method.as_str() {
            "POST" => self.of(API, 1, None),
            "GET" | "HEAD" | "OPTIONS" => self.of(API, 2, None),
            "PUT" | "PATCH" => self.of(API, 3, None),
            "DELETE" => self.of(API, 4, None),
            other => self.of(API, 99, Some(other)),
        }
    }

    fn status(&mut self, success: bool, detail: Option<&str>) {
        self.put("status_id", json!(if success { 1 } else { 2 }));
        if let Some(detail) = detail {
            self.put("status_detail", json!(detail));
        }
    }

    fn verdict(&mut self, allowed: bool) {
        self.put("action_id", json!(if allowed { 1 } else { 2 }));
        self.put("disposition_id", json!(if allowed { 1 } else { 2 }));
    }

    fn app(&mut self, version: &str) {
        self.put("app", json!({ "name": "Vouchsafe", "vendor_name": "Vouchsafe", "version": version }));
    }

    /// Who gave a command.
    fn by(&mut self, person: Option<&Person>) {
        let actor = match person {
            Some(person) => json!({
                "user": { "uid": person.login_uid.unwrap_or(person.uid).to_string() },
                "process": { "pid": person.pid, "user": { "uid": person.uid.to_string() } },
            }),
            None => json!({ "app_name": "Vouchsafe" }),
        };
        self.put("actor", actor);
    }

    fn decision(&mut self, decision: &Decision) {
        let allowed = decision.verdict == Verdict::Allow;
        self.verdict(allowed);
        if !self.0.contains_key("status_id") {
            self.status(allowed, Some(&decision.reason));
        }
        self.metadata("correlation_uid", json!(decision.id));
        self.profile(&decision.workload);
        self.put("actor", actor(&decision.workload, decision.identity.as_deref()));
        let mut source = Map::new();
        source.insert("svc_name".into(), json!(decision.identity.as_deref().unwrap_or("unknown")));
        source.insert(
            "name".into(),
            json!(decision.workload.unit.as_deref().unwrap_or(&decision.workload.comm)),
        );
        self.put("src_endpoint", Value::Object(source));
        let mut there = Map::new();
        if !decision.dst.ip().is_unspecified() {
            there.insert("ip".into(), json!(decision.dst.ip().to_canonical()));
        }
        there.insert("port".into(), json!(decision.port.unwrap_or(decision.dst.port())));
        if let Some(host) = &decision.host {
            there.insert("hostname".into(), json!(host));
        }
        if let Some(api) = &decision.api {
            there.insert("svc_name".into(), json!(api));
        }
        self.put("dst_endpoint", Value::Object(there));
        if let Some(rule) = &decision.rule {
            let name = format!("{}:{}", rule.file, rule.line);
            self.put(
                "firewall_rule",
                json!({ "name": name, "desc": rule.text, "version": decision.generation.to_string() }),
            );
        }
        if let Some(method) = &decision.method {
            let mut url = Map::new();
            for (name, value) in
                [("hostname", &decision.host), ("path", &decision.path), ("scheme", &decision.scheme)]
            {
                if let Some(value) = value {
                    url.insert(name.into(), json!(value));
                }
            }
            url.insert("port".into(), json!(decision.port.unwrap_or(decision.dst.port())));
            let mut request = json!({ "url": url, "uid": decision.id });
            if METHODS.contains(&method.as_str())
                && let Value::Object(request) = &mut request
            {
                request.insert("http_method".into(), json!(method));
            }
            self.put("http_request", request);
            let path = decision.path.as_deref().unwrap_or("");
            let service = decision.api.as_deref().or(decision.host.as_deref()).unwrap_or("unknown");
            self.put(
                "api",
                json!({ "operation": format!("{method} {path}"), "service": { "name": service } }),
            );
        }
        let mut more = Map::new();
        for (name, value) in [("credential", &decision.credential), ("identity", &decision.identity)] {
            if let Some(value) = value {
                more.insert(name.into(), json!(value));
            }
        }
        if decision.observed {
            more.insert("observed".into(), json!(true));
        }
        if let Some(proxy) = decision.proxy {
            more.insert("proxy".into(), json!(proxy.to_string()));
        }
        more.insert("has_query".into(), json!(decision.has_query));
        more.insert("generation".into(), json!(decision.generation));
        more.insert("workload".into(), json!(*decision.workload));
        if let Some(mistrust) = &decision.mistrust {
            more.insert("mistrust".into(), json!(mistrust));
        }
        self.unmapped(Value::Object(more));
    }

    fn outcome(&mut self, outcome: &Outcome) {
        let failed =
            outcome.error.is_some() || outcome.interrupted || outcome.status.is_some_and(|code| code >= 400);
        self.status(!failed, outcome.error.as_deref());
        if let Some(code) = outcome.status {
            self.put("status_code", json!(code.to_string()));
            self.put(
                "http_response",
                json!({ "code": code, "latency": outcome.ttfb_us.unwrap_or(0) / 1000 }),
            );
        }
        self.put("duration", json!(outcome.duration_us / 1000));
    }

    fn trace(mut self, trace: &Trace) -> Value {
        self.verdict(false);
        self.status(false, Some(&trace.reason));
        self.profile(&trace.workload);
        self.put("actor", actor(&trace.workload, trace.identity.as_deref()));
        let mut process = Map::new();
        process.insert("pid".into(), json!(trace.target.pid));
        if let Some(exe) = &trace.target.exe {
            process.insert("file".into(), file(exe));
        }
        self.put("process", Value::Object(process));
        self.unmapped(
            json!({ "access": trace.access, "target": trace.target, "generation": trace.generation }),
        );
        self.of(PROCESS, 3, None)
    }

    fn secret(mut self, change: &SecretChange, all: Value) -> Value {
        self.by(change.by.as_ref());
        self.status(change.error.is_none(), change.error.as_deref());
        let mut entity = json!({ "name": change.secret, "type": "Secret" });
        if let (Some(version), Value::Object(entity)) = (change.version, &mut entity) {
            entity.insert("version".into(), json!(version.to_string()));
        }
        self.put("entity", entity);
        self.unmapped(all);
        let ends = matches!(change.change, SecretStep::Removed | SecretStep::Ended | SecretStep::Discarded);
        self.of(ENTITY, if ends { 4 } else { 3 }, None)
    }

    fn ca(mut self, change: &CaChange, all: Value) -> Value {
        self.by(change.by.as_ref());
        self.status(true, Some(&change.reason));
        self.put("entity", json!({ "name": "certificate authority", "type": "CA", "version": change.generation.to_string() }));
        self.unmapped(all);
        self.of(ENTITY, 1, None)
    }
}

/// A process that called, and the identity that it has.
fn actor(workload: &Workload, identity: Option<&str>) -> Value {
    let mut process = Map::new();
    process.insert("pid".into(), json!(workload.pid));
    if !workload.exe.is_empty() {
        process.insert("file".into(), file(&workload.exe));
    }
    process.insert("user".into(), json!({ "uid": workload.uid.to_string() }));
    if let Some(container) = &workload.container {
        let name = container.name.as_deref().unwrap_or_default();
        process.insert(
            "container".into(),
            json!({ "uid": container.id, "name": name, "runtime": container.runtime }),
        );
    }
    let user =
        json!({ "name": identity.unwrap_or("unknown"), "uid": workload.uid.to_string(), "type_id": 3 });
    json!({ "process": process, "user": user })
}

fn file(path: &str) -> Value {
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path);
    json!({ "name": name, "path": path, "type_id": 1 })
}
