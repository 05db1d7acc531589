//! A file of `policies/`: `[identity]`, its grants, and what it does with hosts that no API names.

use super::{GrantDraft, IdentityDraft, grant, not_supported_yet};
use crate::conditions::{Conditions, ExePattern, Pattern, parse_sha256};
use crate::container::{ContainerPattern, KubernetesPattern};
use crate::diagnostic::{Problem, quote};
use crate::model::{Mode, Unmatched};
use crate::place::Spanned;
use crate::read::{Reader, Section, check_name};
use crate::suggest;

const CONDITIONS: [&str; 10] = [
    "exe",
    "sha256",
    "user",
    "group",
    "cgroup",
    "unit",
    "container",
    "kubernetes",
    "script",
    "script_sha256",
];

/// Reads the identity of a file; `name` is the stem of the file.
pub(super) fn read(root: &Section<'_>, name: &str, reader: &mut Reader<'_>) -> Option<IdentityDraft> {
    let description = reader.string(root, "description").map(|text| text.value);
    let unmatched = read_unmatched(root, reader);
    let mode = read_mode(root, reader);
    let grants: Vec<GrantDraft> =
        reader.sections(root, "grant").iter().map(|section| grant::read(section, reader)).collect();
    if !root.has("identity") {
        reader.findings.error(
            root.place,
            "this file has no [identity]",
            "add [identity] with what the workload must be, or move roles, APIs and credentials to their own folders",
        );
        return None;
    }
    if let Err(problem) = check_name("an identity", name) {
        let help = format!("rename the file: {}", problem.help);
        reader.findings.error(root.place, problem.message, help);
    }
    let section =
        reader.section(root, "identity", "[identity]", "write [identity] and the conditions below it")?;
    let before = reader.findings.errors();
    let conditions = read_conditions(&section, reader);
    let comparable = reader.findings.errors() == before;
    let name = Spanned::new(name.to_owned(), section.place);
    Some(IdentityDraft { name, description, conditions, comparable, unmatched, mode, grants })
}

fn read_conditions(section: &Section<'_>, reader: &mut Reader<'_>) -> Conditions {
    let keys: Vec<&str> = CONDITIONS.into_iter().chain(["clean_environment"]).collect();
    reader.check_keys(section, &keys, hint);
    let conditions = Conditions {
        exe: reader.parsed(section, "exe", ExePattern::parse),
        sha256: reader.parsed(section, "sha256", |text| parse_sha256("sha256", text)),
        user: reader.parsed(section, "user", |text| parse_account("user", text)),
        group: reader.parsed(section, "group", |text| parse_account("group", text)),
        cgroup: reader.parsed(section, "cgroup", Pattern::cgroup),
        unit: reader.parsed(section, "unit", Pattern::unit),
        script: reader.parsed(section, "script", ExePattern::script),
        script_sha256: reader.parsed(section, "script_sha256", |text| parse_sha256("script_sha256", text)),
        clean_environment: reader.boolean(section, "clean_environment"),
        container: reader.parsed(section, "container", ContainerPattern::parse),
        kubernetes: reader.parsed(section, "kubernetes", KubernetesPattern::parse),
        ..Conditions::none(section.place)
    };
    // How it was started says nothing about who it is.
    if section.len() == usize::from(section.has("clean_environment")) {
        let help = format!("give at least one of {}", CONDITIONS.join(", "));
        reader.findings.error(
            section.place,
            "[identity] has no condition and would match every process",
            help,
        );
    }
    check_script(section, &conditions, reader);
    warn_if_not_pinned(&conditions, reader);
    if let Some(exe) = &conditions.exe {
        let text = exe.as_str();
        if let Some(c) = text.contains('*').then(|| text.chars().find(|c| "?[]{}".contains(*c))).flatten() {
            let help = "only * and ** are wildcards; write one file per identity for alternatives";
            reader.findings.warning(
                exe.place,
                format!("'{c}' in an \"exe\" pattern stands for itself"),
                help,
            );
        }
    }
    conditions
}

/// A script is what an interpreter does with it: the interpreter must be named, and who may start it, because whoever starts
/// one can put code into it (a home directory with modules of his own is enough).
fn check_script(section: &Section<'_>, conditions: &Conditions, reader: &mut Reader<'_>) {
    let place = match (&conditions.script, &conditions.script_sha256) {
        (Some(script), _) => script.place,
        (None, Some(digest)) => digest.place,
        (None, None) => return,
    };
    if !section.has("exe") {
        reader.findings.error(
            place,
            "a script without an interpreter: [identity] has no \"exe\"",
            "name the interpreter that executes it, such as exe = \"/usr/bin/python3\"",
        );
    }
    if !["user", "unit", "cgroup", "group", "container", "kubernetes"].iter().any(|key| section.has(key)) {
        reader.findings.error(
            place,
            "a script alone lets every user act as this identity: whoever starts an interpreter can put code into it",
            "add user, unit or cgroup, which a process cannot choose for itself",
        );
    }
}

/// Every user who may execute a file can start it with code of his own inside (by a debugger, or by variables such as
/// `LD_PRELOAD`; docs/threats.md). A group is as good as a user here: nobody takes one that he is not in.
fn warn_if_not_pinned(conditions: &Conditions, reader: &mut Reader<'_>) {
    if conditions.are_pinned() || conditions.group.is_some() || conditions.name_a_script() {
        return;
    }
    let (key, place) = match (&conditions.exe, &conditions.sha256) {
        (Some(exe), _) => ("exe", exe.place),
        (None, Some(sha256)) => ("sha256", sha256.place),
        (None, None) => return,
    };
    reader.findings.warning(
        place,
        format!("\"{key}\" alone lets every user who may execute the file act as this identity"),
        "add user, unit or cgroup, which a process cannot choose for itself",
    );
}

fn hint(key: &str) -> Option<Problem> {
    match key {
        "parent" => Some(not_supported_yet(key, "[identity]")),
        "comm" | "cmdline" | "pid" | "name" => Some(Problem::new(
            format!("{} is not a condition", quote(key)),
            "a process chooses it itself, so it says nothing about who it is: use exe, sha256, user or unit",
        )),
        "uid" => Some(Problem::new("unknown key \"uid\" in [identity]", "write user = \"1000\"")),
        "gid" => Some(Problem::new("unknown key \"gid\" in [identity]", "write group = \"1000\"")),
        "description" | "unmatched" | "mode" => Some(Problem::new(
            format!("{} is not a condition of [identity]", quote(key)),
            "move it to the top of the file, above every [table]",
        )),
        _ => None,
    }
}

fn parse_account(key: &str, text: &str) -> Result<String, Problem> {
    if text.is_empty()
        || text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/'))
    {
        let help = format!("write its name or number, such as {key} = \"billing\"");
        return Err(Problem::new(format!("{} is not the name of a {key}", quote(text)), help));
    }
    if text.contains('*') {
        let help = "write one file per identity, or use another condition";
        return Err(Problem::new(format!("\"{key}\" has no wildcards"), help));
    }
    Ok(text.to_owned())
}

/// `mode`, of an identity or a grant.
pub(crate) fn read_mode(section: &Section<'_>, reader: &mut Reader<'_>) -> Mode {
    let mode = reader.parsed(section, "mode", |text| match text {
        "enforce" => Ok(Mode::Enforce),
        "observe" => Ok(Mode::Observe),
        other => Err(Problem::new(
            format!("\"mode\" cannot be {}", quote(other)),
            suggest::nearest(other, ["enforce", "observe"]).map_or_else(
                || "write \"enforce\" (the default) or \"observe\"".to_owned(),
                |meant| format!("did you mean \"{meant}\"?"),
            ),
        )),
    });
    mode.map(|mode| mode.value).unwrap_or_default()
}

pub(crate) fn read_unmatched(section: &Section<'_>, reader: &mut Reader<'_>) -> Unmatched {
    reader.parsed(section, "unmatched", parse_unmatched).map(|it| it.value).unwrap_or_default()
}

fn parse_unmatched(text: &str) -> Result<Unmatched, Problem> {
    match text {
        "deny" => Ok(Unmatched::Deny),
        "pass" => Ok(Unmatched::Pass),
        other => Err(Problem::new(
            format!("\"unmatched\" cannot be {}", quote(other)),
            suggest::nearest(other, ["deny", "pass"]).map_or_else(
                || "write \"deny\" (the default) or \"pass\"".to_owned(),
                |meant| format!("did you mean \"{meant}\"?"),
            ),
        )),
    }
}
