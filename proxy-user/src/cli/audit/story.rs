//! One call in words: who asked for what, on what it was decided, and how it ended. Every field of its records is told.

use std::fmt::Write as _;

use proxy_journal::text::{escape, escape_word};
use proxy_journal::{
    Basis, Capture, CaptureEnd, Condition, Container, Decision, Fingerprint, Footing, Held, Known, NamedPath,
    Outcome, Question, RequestKind, Timestamp, Verdict, Workload, human,
};

pub(super) fn write_who(page: &mut String, decision: &Decision) -> std::fmt::Result {
    let part = |text: &Option<String>| text.as_deref().map(escape_word).unwrap_or_default().into_owned();
    let mut host =
        decision.host.as_deref().map_or_else(|| decision.dst.to_string(), |host| escape_word(host).into());
    let usual = matches!(
        (decision.scheme.as_deref(), decision.port),
        (Some("https"), Some(443)) | (Some("http"), Some(80))
    );
    if let (Some(port), Some(_), false) = (decision.port, &decision.host, usual) {
        host = format!("{host}:{port}");
    }
    match &decision.method {
        Some(method) => {
            let query = if decision.has_query { "?…" } else { "" };
            let (method, scheme, path) = (escape_word(method), part(&decision.scheme), part(&decision.path));
            write!(page, "request     {method} {scheme}://{host}{path}{query}, to {}", decision.dst)?;
        }
        None => write!(
            page,
            "request     a connection ({}) to {host}, to {}",
            part(&decision.scheme),
            decision.dst
        )?,
    }
    match decision.proxy {
        Some(proxy) => writeln!(page, ", by way of the proxy {proxy}")?,
        None => writeln!(page)?,
    }
    if let Some(api) = &decision.api {
        writeln!(page, "api         {}", escape_word(api))?;
    }
    let identity = decision.identity.as_deref().map_or("none".into(), escape_word);
    writeln!(page, "identity    {identity}")?;
    write_workload(page, &decision.workload)
}

fn write_workload(page: &mut String, workload: &Workload) -> std::fmt::Result {
    let Workload {
        pid,
        start_time_ns,
        exe,
        exe_dev,
        exe_ino,
        uid,
        gid,
        cgroup,
        cgroup_path,
        unit,
        netns,
        foreign,
        comm,
        invocation,
        mntns,
        container,
        script,
        ancestors,
        known,
    } = workload;
    let (exe, comm) = (escape_word(exe), escape_word(comm));
    writeln!(page, "process     {pid} {exe} (thread {comm}), uid {uid}, gid {gid}")?;
    writeln!(
        page,
        "            executable: device {exe_dev}, inode {exe_ino}; started {start_time_ns} ns after boot"
    )?;
    if let Some(known) = known {
        write_known(page, known)?;
    }
    let which = if *foreign { ", another one than the host's" } else { "" };
    write!(page, "namespaces  network {netns}{which}")?;
    match mntns {
        Some(mntns) => writeln!(page, "; mount {mntns}")?,
        None => writeln!(page)?,
    }
    if let Some(script) = script {
        writeln!(page, "script      {}", escape_word(script))?;
    }
    if let Some(unit) = unit {
        let run = invocation.as_deref().map(|run| format!(", run {}", escape_word(run)));
        writeln!(page, "unit        {}{}", escape_word(unit), run.unwrap_or_default())?;
    }
    let path = cgroup_path.as_deref().map_or("one that was gone".into(), escape_word);
    writeln!(page, "cgroup      {path} (id {cgroup})")?;
    if let Some(container) = container {
        write_container(page, container)?;
    }
    if !ancestors.is_empty() {
        let ancestors: Vec<_> = ancestors.iter().map(|exe| escape_word(exe)).collect();
        writeln!(page, "started by  {}", ancestors.join(" ← "))?;
    }
    Ok(())
}

/// What identities ask of a process besides what was captured.
fn write_known(page: &mut String, known: &Known) -> std::fmt::Result {
    let Known { exe, paths, sha256, environment, traced, script, script_shared, script_sha256 } = known;
    let told = |is: &Footing| match is {
        Footing::Own => "only root and its user can change what is at its path",
        Footing::Shared => {
            "it lies where everybody can put files: it counts only for an identity with a user"
        }
        Footing::Others => "others can change it, or put another file at its path",
        Footing::Elsewhere => "for the host, another file or none is at its path",
    };
    for NamedPath { path, is } in paths {
        writeln!(page, "            by {}: {}", escape_word(path), told(is))?;
    }
    write!(page, "            {}", told(exe))?;
    if let Some(digest) = sha256 {
        write!(page, "; SHA-256 {}", escape_word(digest))?;
    }
    writeln!(page)?;
    match environment.as_slice() {
        [] => {}
        [unknown] if unknown == "?" => writeln!(page, "            its environment could not be told")?,
        names => writeln!(page, "            started with {} in its environment", escape(&names.join(", ")))?,
    }
    if *traced {
        writeln!(page, "            others traced it, or could, when it was executed: it is nobody")?;
    }
    match script.as_deref() {
        None => {}
        Some("") => writeln!(page, "            it executes no script that counts for an identity")?,
        Some(path) => {
            write!(page, "            the script is {}", escape_word(path))?;
            if *script_shared {
                write!(page, ", which counts only for an identity with a user")?;
            }
            if let Some(digest) = script_sha256 {
                write!(page, "; SHA-256 {}", escape_word(digest))?;
            }
            writeln!(page)?;
        }
    }
    Ok(())
}

fn write_container(page: &mut String, container: &Container) -> std::fmt::Result {
    write!(page, "container   {} {}", escape_word(&container.runtime), escape_word(&container.id))?;
    let told =
        [("name", &container.name), ("image", &container.image), ("claimed by", &container.claimed_by)];
    for (what, text) in told {
        if let Some(text) = text {
            write!(page, ", {what} {}", escape(text))?;
        }
    }
    writeln!(page)?;
    let Some(pod) = &container.kubernetes else { return Ok(()) };
    write!(page, "pod         {}", escape_word(&pod.pod_uid))?;
    let told = [("namespace", &pod.namespace), ("name", &pod.pod), ("service account", &pod.service_account)];
    for (what, text) in told {
        if let Some(text) = text {
            write!(page, ", {what} {}", escape_word(text))?;
        }
    }
    writeln!(page)
}

pub(super) fn write_decision(page: &mut String, decision: &Decision) -> std::fmt::Result {
    let verdict = match (decision.verdict, decision.observed) {
        (Verdict::Allow, true) => "observed",
        (Verdict::Allow, false) => "allow",
        (Verdict::Deny, _) => "deny",
    };
    writeln!(page, "decided     {verdict}: {}", escape(&decision.reason))?;
    if let Some(refusal) = &decision.refusal {
        writeln!(page, "refusal     {}", escape_word(refusal))?;
    }
    if let Some(rule) = &decision.rule {
        writeln!(page, "rule        \"{}\" ({}:{})", escape(&rule.text), escape_word(&rule.file), rule.line)?;
    }
    if let Some(credential) = &decision.credential {
        writeln!(page, "credential  {}", escape_word(credential))?;
    }
    if let Some(mistrust) = &decision.mistrust {
        let certain = if mistrust.certain { "the client said so" } else { "the client only went away" };
        write!(page, "mistrust    {certain}")?;
        for (what, text) in
            [("runtime", &mistrust.runtime), ("cause", &mistrust.cause), ("to do", &mistrust.mend)]
        {
            if let Some(text) = text {
                write!(page, "; {what}: {}", escape(text))?;
            }
        }
        writeln!(page)?;
    }
    if let Some(basis) = &decision.basis {
        write_basis(page, basis)?;
    }
    for Fingerprint { place, fingerprint } in &decision.fingerprints {
        writeln!(page, "value       {}, fingerprint {}", escape(place), escape_word(fingerprint))?;
    }
    if decision.ech {
        writeln!(
            page,
            "            the handshake has another one encrypted inside, or pretends to: the host is the name outside"
        )?;
    }
    if let Some(most) = decision.capture {
        writeln!(page, "capture     at most {most} bytes of each body are kept for auditors")?;
    }
    Ok(())
}

/// What the decision was taken on.
fn write_basis(page: &mut String, basis: &Basis) -> std::fmt::Result {
    let Basis {
        of,
        now,
        kind,
        grant,
        conditions,
        limits,
        limit,
        several,
        unidentified_pass,
        host_observes,
        resolver,
        path_cut,
    } = basis;
    let of = match of {
        Question::Call => "about a call",
        Question::Passage => "about a connection as a whole",
        Question::Whole => "about a connection that is not looked into",
        Question::Network => "about traffic past the proxy",
    };
    let kind = match kind {
        None => "",
        Some(RequestKind::Grpc) => " of gRPC",
        Some(RequestKind::Websocket) => " that becomes a WebSocket",
    };
    let at = u64::try_from(*now).ok().and_then(|now| now.checked_mul(1_000_000));
    let at = at.map_or_else(|| now.to_string(), |us| Timestamp::from_micros(us).to_string());
    write!(page, "asked       {of}{kind}, for the moment {at}")?;
    if let Some(grant) = grant {
        write!(page, "; grant number {} of the identity allows it", grant.saturating_add(1))?;
    }
    writeln!(page)?;
    for Condition { at, key, held } in conditions {
        let held = match held {
            Held::Is(true) => "holds".into(),
            Held::Is(false) => "does not hold".into(),
            Held::Fault(word) => format!("could not be evaluated ({})", escape_word(word)),
        };
        writeln!(page, "condition   {} {held}, key {}", escape_word(at), escape_word(key))?;
    }
    for asked in limits {
        writeln!(page, "limit       {}", escape(asked))?;
    }
    if let Some(limit) = limit {
        writeln!(page, "            refused by {}", escape(limit))?;
    }
    if !several.is_empty() {
        let names: Vec<_> = several.iter().map(|name| escape_word(name)).collect();
        writeln!(page, "            several identities are met by it: {}", names.join(", "))?;
    }
    for (is, what) in [
        (*unidentified_pass, "workloads without an identity passed where no API is called"),
        (*host_observes, "the host denied nothing by policy (mode = \"observe\")"),
        (*resolver, "the destination was a resolver of the host"),
        (*path_cut, "the path is longer than what is recorded of it"),
    ] {
        if is {
            writeln!(page, "            {what}")?;
        }
    }
    Ok(())
}

pub(super) fn write_outcome(page: &mut String, outcome: &Outcome, ended: Timestamp) -> std::fmt::Result {
    let status = outcome.status.map_or_else(|| "no status".to_owned(), |status| format!("status {status}"));
    let took = human::duration(outcome.duration_us);
    if outcome.interrupted {
        writeln!(page, "outcome     interrupted: the daemon was stopped in mid-call, told {}", ended)?;
    } else {
        write!(page, "outcome     {status} after {took}")?;
        if let Some(first) = outcome.ttfb_us {
            write!(page, ", first byte after {}", human::duration(first))?;
        }
        let (sent, received) = (outcome.bytes_sent, outcome.bytes_received);
        writeln!(page, "; {sent} bytes sent, {received} received; ended {}", ended)?;
    }
    match (outcome.upstream, &outcome.proxied) {
        (Some(upstream), Some(proxied)) => {
            writeln!(page, "upstream    {upstream}, for {}", escape_word(proxied))?
        }
        (Some(upstream), None) => writeln!(page, "upstream    {upstream}")?,
        (None, Some(proxied)) => writeln!(page, "upstream    none, for {}", escape_word(proxied))?,
        (None, None) => {}
    }
    if let Some(error) = &outcome.error {
        let blame = outcome.blame.map(|blame| format!(" (blame: {blame:?})").to_lowercase());
        writeln!(page, "error       {}{}", escape(error), blame.unwrap_or_default())?;
    }
    for removed in &outcome.removed {
        let (place, fingerprint) = (escape(&removed.place), escape_word(&removed.fingerprint));
        writeln!(
            page,
            "removed     a credential that the client brought: {place}, fingerprint {fingerprint}"
        )?;
    }
    for (told, what) in [
        (outcome.reflected, "the upstream sent the credential back, and it was covered"),
        (outcome.repeated, "it was sent once more"),
        (outcome.answered, "the proxy answered it itself"),
    ] {
        if told {
            writeln!(page, "            {what}")?;
        }
    }
    for Capture { part, file, end, bytes, size, sha256 } in &outcome.captures {
        let end = match end {
            CaptureEnd::Whole => "all of it",
            CaptureEnd::Limit => "there was more",
            CaptureEnd::Broken => "it broke off",
            CaptureEnd::Killed => "the daemon was stopped in it",
        };
        let bytes = bytes.map_or_else(|| "an unknown number of".to_owned(), |bytes| bytes.to_string());
        writeln!(
            page,
            "kept        {bytes} bytes of the {} ({end}): {}, {size} bytes, SHA-256 {}",
            part.word(),
            escape_word(file),
            escape_word(sha256)
        )?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
