//! `kind = "exec"`: programs that print credentials, at an API that checks who made them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tests::{RAW_ADDRESS, STOLEN, World, wait_until};

use super::jwt::{assert_nowhere, received, told, world as world_of};

const API: &str = include_str!("receivers/exec.js");
const SECRET: &str = "d1c7a7be0f1f4f3f9f2a";
/// What a program prints for a name and some seconds.
const TOOL: &str = "echo \"$1\" >>{root}/runs\necho CANARY-of-standard-error >&2\nend=$(($(date +%s) + $2))\n\
                    mac=$(printf %s \"$1.$end\" | openssl dgst -sha256 -hmac \"$(cat {root}/tool.key)\" -r | cut -d' ' -f1)\n";
const PLAIN: &str = "echo \"{\\\"token\\\": \\\"$1.$end.$mac\\\", \\\"expires_in\\\": $2}\"\n";
const KUBECTL: &str = "echo \"{\\\"kind\\\": \\\"ExecCredential\\\", \\\"apiVersion\\\": \\\"client.authentication.k8s.io/v1\\\",\
                       \\\"status\\\": {\\\"token\\\": \\\"$1.$end.$mac\\\",\
                       \\\"expirationTimestamp\\\": \\\"$(date -u -d @$end +%Y-%m-%dT%H:%M:%SZ)\\\"}}\"\n";

/// A world whose credential is what the program prints; the daemon runs.
fn world(script: &str, arguments: &str, more: &str) -> World {
    let world = world_of("kind = \"exec\"\ncommand = [\"/nothing\"]");
    let root = world.path("").display().to_string();
    let root = root.trim_end_matches('/');
    let definition = format!("kind = \"exec\"\ncommand = [\"{root}/tool\"{arguments}]\n{more}");
    world.policy("credentials/token.toml", &format!("[credential.token]\n{definition}\n"));
    world.program("tool", &format!("#!/bin/sh\n{}", script.replace("{root}", root)));
    let key = world.write("tool.key", SECRET);
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    world.write("exec.js", API);
    let arguments = ["exec.js", RAW_ADDRESS, "api/server.pem", "api/server.key", SECRET];
    world.server("receiver", "node", &arguments, &format!("{RAW_ADDRESS}:443"));
    world.daemon();
    world
}

fn runs(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.path("runs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_bot_gets_what_the_program_prints_for_it_alone_and_keeps_it_until_it_ends() {
    let world = world(&format!("{TOOL}{PLAIN}"), ", \"{identity}\", \"300\"", "");
    let call = "import urllib.request as u; print(u.urlopen('https://raw.test/v1/x').read().decode())";
    for _ in 0..3 {
        assert_eq!(told(&world)["name"], "curl");
        assert_eq!(world.python(call, &[]).json()["name"], "python");
    }
    let mut runs = runs(&world);
    runs.sort();
    assert_eq!(runs, ["curl", "python"]);
    let stolen = format!("authorization: Bearer {STOLEN}");
    assert_eq!(world.curl(&["-H", &stolen, "https://raw.test/v1/x"]).json()["name"], "curl");
    for seen in received(&world) {
        assert_nowhere(&world, seen["authorization"].as_str().unwrap().trim_start_matches("Bearer "));
    }
    assert_nowhere(&world, "CANARY-of-standard-error");
}

#[test]
fn what_kubectl_takes_is_taken_and_printed_anew_before_it_ends() {
    let world = world(&format!("{TOOL}{KUBECTL}"), ", \"all\", \"5\"", "");
    // The API refuses what has ended.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        assert_eq!(told(&world)["name"], "all");
        std::thread::sleep(Duration::from_millis(200));
    }
    let runs = runs(&world).len();
    assert!((3..=10).contains(&runs), "{runs}");
}

/// The reason of a call that must be refused without having been sent.
#[track_caller]
fn refused(world: &World) -> String {
    let answer = world.curl(&["https://raw.test/v1/x"]);
    assert_eq!(
        (answer.status, answer.json()["type"].as_str()),
        (502, Some("urn:vouchsafe:problem:credential-unavailable")),
        "{answer:?}"
    );
    assert!(!answer.body.contains("tool"), "the bot learns nothing of the program: {answer:?}");
    assert!(received(world).is_empty(), "nothing was sent");
    world.decision(Some("/v1/x"))["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_program_that_fails_or_that_others_can_change_is_502_and_none_of_its_words_is_kept() {
    for (script, more, says) in [
        ("echo CANARY-that-is-long-enough; echo CANARY-that-is-long-enough >&2; exit 9\n", "", "status 9"),
        ("echo CANARY-that-is-long-enough\n", "", "not JSON"),
        ("sleep 600\n", "timeout = \"1s\"", "longer than 1 s"),
        ("yes CANARY-that-is-long-enough\n", "", "65536 bytes"),
    ] {
        let world = world(script, "", more);
        let reason = refused(&world);
        assert!(reason.starts_with("credential token:") && reason.contains(says), "{script}: {reason}");
        assert_nowhere(&world, "CANARY-that-is-long-enough");
    }
    let world = world(&format!("{TOOL}{PLAIN}"), ", \"all\", \"300\"", "");
    fs::set_permissions(world.path("tool"), fs::Permissions::from_mode(0o777)).unwrap();
    let reason = refused(&world);
    assert!(reason.contains("written by everybody"), "{reason}");
    assert!(runs(&world).is_empty());
    fs::set_permissions(world.path("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    wait_until("a call with the program put right", || {
        (world.curl(&["https://raw.test/v1/x"]).status == 200).then_some(())
    });
}

#[test]
fn a_program_is_governed_and_one_that_needs_its_own_credential_waits_until_its_time_is_over() {
    // Governed: its curl is a bot like any other, whose grant wants what the program is about to print.
    let script = format!(
        "{TOOL}{{root}}/bots/curl -sS --cacert {{root}}/bots.pem --max-time 60 https://raw.test/v1/own >&2\n{PLAIN}"
    );
    let world = world(&script, ", \"all\", \"300\"", "timeout = \"2s\"");
    let began = Instant::now();
    let reason = refused(&world);
    assert!(reason.contains("longer than 2 s"), "{reason}");
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(runs(&world).len(), 1, "it is not started for itself");
    // Nothing of it is left.
    let left = world.enter(None).args(["pgrep", "-f", &world.path("tool").display().to_string()]).output();
    assert!(left.unwrap().stdout.is_empty());
}

#[test]
fn a_program_of_a_user_has_neither_the_daemons_rights_nor_its_files() {
    let script = "{ id -u; id -G; grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs)' /proc/self/status; ls /proc/self/fd; env; }\
                  >>/tmp/{name} 2>&1\nexit 1\n";
    let name = format!("vouchsafe-exec-{}", std::process::id());
    let told = std::env::temp_dir().join(&name);
    let world = world(&script.replace("{name}", &name), "", "user = \"nobody\"");
    refused(&world);
    let text = fs::read_to_string(&told).unwrap();
    fs::remove_file(&told).unwrap();
    let mut lines = text.lines();
    assert_eq!((lines.next(), lines.next()), (Some("65534"), Some("65534")), "{text}");
    for says in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(text.contains(says), "{says}: {text}");
    }
    // The shell's own descriptors: standard ones, its script, what it kept aside; none of the daemon's sockets and maps.
    let open =
        text.lines().filter(|line| !line.is_empty() && line.bytes().all(|it| it.is_ascii_digit())).count()
            - 2;
    assert!(open <= 6, "{text}");
    assert!(!text.contains("NOTIFY_SOCKET") && !text.contains("RUST_BACKTRACE"), "{text}");
}
