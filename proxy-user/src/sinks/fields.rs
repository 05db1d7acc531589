//! Spells a record in the native protocol of systemd's journal, so that `journalctl IDENTITY=invoice-bot` finds it.
//!
//! Protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>. A field is `NAME=value` and a newline; a value that has a
//! newline itself goes as `NAME`, newline, its length (64 bits, little-endian), the value, newline. Names are constants
//! of this file, and a value of the first form has no newline: no value can add a field.

use proxy_journal::{Content, Decision, Outcome, Record, Trace, Verdict, text};

use super::message::Message;

/// Longest value in bytes; the whole of it is in the journal file. All fields together stay below the 200 KiB that a
/// datagram holds by default.
const MAX_VALUE: usize = 8 << 10;

/// One datagram in the making.
struct Fields(Vec<u8>);

impl Fields {
    fn put(&mut self, name: &'static str, value: &str) {
        let value = text::shorten(value, MAX_VALUE);
        self.0.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.0.push(b'\n');
            let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
            self.0.extend_from_slice(&length.to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }

    fn maybe(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn begin(message: &str, priority: &str, kind: &str) -> Fields {
        let mut fields = Fields(Vec::with_capacity(1024));
        fields.put("MESSAGE", message);
        fields.put("PRIORITY", priority);
        fields.put("SYSLOG_IDENTIFIER", "vouchsafe");
        fields.put("VOUCHSAFE_KIND", kind);
        fields
    }

    fn decision(&mut self, decision: &Decision) {
        self.put("CALL_ID", &decision.id.to_string());
        self.put("IDENTITY", decision.identity.as_deref().unwrap_or("unknown"));
        let verdict = match decision.verdict {
            Verdict::Allow if decision.observed => "observed",
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        self.put("VERDICT", verdict);
        self.put("REASON", &decision.reason);
        self.maybe("METHOD", decision.method.as_deref());
        self.maybe("HOST", decision.host.as_deref());
        self.maybe("PATH", decision.path.as_deref());
        self.maybe("API", decision.api.as_deref());
        if let Some(rule) = &decision.rule {
            self.put("RULE", &format!("{}:{}", rule.file, rule.line));
        }
        if let Some(mistrust) = &decision.mistrust {
            self.maybe("RUNTIME", mistrust.runtime.as_deref());
            self.maybe("MEND", mistrust.mend.as_deref());
        }
        self.put("DESTINATION", &decision.dst.to_string());
        self.maybe("PROXY", decision.proxy.map(|proxy| proxy.to_string()).as_deref());
        self.put("EXE", &decision.workload.exe);
        self.maybe("SCRIPT", decision.workload.script.as_deref());
        self.put("BOT_PID", &decision.workload.pid.to_string());
        self.maybe("UNIT", decision.workload.unit.as_deref());
        self.maybe("UNIT_INVOCATION_ID", decision.workload.invocation.as_deref());
        if let Some(container) = &decision.workload.container {
            self.put("CONTAINER_ID_FULL", &container.id);
            self.maybe("CONTAINER_NAME", container.name.as_deref());
            let pod = container.kubernetes.as_ref();
            self.maybe("KUBERNETES_NAMESPACE", pod.and_then(|pod| pod.namespace.as_deref()));
            self.maybe("KUBERNETES_ACCOUNT", pod.and_then(|pod| pod.service_account.as_deref()));
        }
    }

    fn trace(&mut self, trace: &Trace) {
        self.put("IDENTITY", trace.identity.as_deref().unwrap_or("unknown"));
        self.put("VERDICT", "deny");
        self.put("REASON", &trace.reason);
        self.put("EXE", &trace.workload.exe);
        self.put("BOT_PID", &trace.workload.pid.to_string());
        self.maybe("UNIT", trace.workload.unit.as_deref());
        self.put("TARGET_PID", &trace.target.pid.to_string());
        self.maybe("TARGET_EXE", trace.target.exe.as_deref());
        self.maybe("TARGET_UNIT", trace.target.unit.as_deref());
    }

    fn outcome(&mut self, outcome: &Outcome) {
        self.maybe("STATUS", outcome.status.map(|status| status.to_string()).as_deref());
        self.put("DURATION_US", &outcome.duration_us.to_string());
        self.maybe("ERROR", outcome.error.as_deref());
        if outcome.interrupted {
            self.put("INTERRUPTED", "1");
        }
    }
}

/// The datagram for a record. The end of a call has the fields of its decision too: it is found by the same matches.
pub(super) fn spell(message: &Message) -> Vec<u8> {
    let priority = (message.severity() as u8).to_string();
    let mut fields = Fields::begin(&message.sentence(), &priority, &message.kind());
    fields.put("VOUCHSAFE_SEQ", &message.line.seq.to_string());
    fields.put("VOUCHSAFE_TIME", &message.line.time.to_string());
    let Content::Known(record) = &message.content else { return fields.0 };
    match record {
        Record::Decision(decision) | Record::Connection(decision) => fields.decision(decision),
        Record::Trace(trace) => fields.trace(trace),
        Record::Secret(change) => {
            fields.put("SECRET", &change.secret);
            fields.maybe("VERSION", change.version.map(|version| version.to_string()).as_deref());
            fields.maybe("ERROR", change.error.as_deref());
        }
        Record::Outcome(outcome) => {
            match &message.decision {
                Some(decision) => fields.decision(decision),
                None => fields.put("CALL_ID", &outcome.id.to_string()),
            }
            fields.outcome(outcome);
        }
        Record::Bound(bound) => {
            fields.maybe("IDENTITY", bound.whose());
            fields.put("COUNTER", &bound.counter);
            fields.put("COUNT", &bound.count.to_string());
        }
        _ => {}
    }
    fields.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_so_that_the_datagram_is_never_too_long() {
        let mut fields = Fields(Vec::new());
        fields.put("PATH", &"/é".repeat(MAX_VALUE));
        assert!(fields.0.len() <= MAX_VALUE + "PATH=\n".len());
        assert!(std::str::from_utf8(&fields.0).is_ok());
    }

    #[test]
    fn a_value_with_a_newline_goes_with_its_length() {
        let mut fields = Fields(Vec::new());
        fields.put("EXE", "/x\nIDENTITY=other");
        assert_eq!(fields.0, b"EXE\n\x11\0\0\0\0\0\0\0/x\nIDENTITY=other\n");
    }
}
