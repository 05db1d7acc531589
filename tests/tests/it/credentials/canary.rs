//! Every kind of credential from every source, in calls that succeed and calls that fail; then everything that the daemon put out,
//! at the highest level of its log, is searched for every secret, in every spelling.

mod cast;
mod search;

use std::fs;
use std::io::{BufRead as _, BufReader, IoSliceMut, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use serde_json::Value;
use tests::{STOLEN, World, wait_until};

use cast::{Cast, ISSUER, Role, random_of};
use search::Canaries;

/// What somebody could have read: where, and what.
#[derive(Default)]
struct Heard(Vec<(String, Vec<u8>)>);

impl Heard {
    fn note(&mut self, place: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.to_owned(), bytes.into()));
    }

    /// Runs a command of the command line, and keeps all that it says.
    #[track_caller]
    fn command(&mut self, world: &World, arguments: &[&str], code: i32) {
        let finished = world.vouchsafe(arguments);
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert_eq!(finished.code, Some(code), "{arguments:?}: {said}");
        self.note(&format!("vouchsafe {}", arguments.join(" ")), said);
    }

    /// Every file below a folder.
    fn folder(&mut self, path: &Path) {
        for entry in fs::read_dir(path).unwrap().flatten() {
            let (kind, path) = (entry.file_type().unwrap(), entry.path());
            if kind.is_dir() {
                self.folder(&path);
            } else if kind.is_file() {
                self.note(&path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
}

/// A call of the bot with a credential, by what its path ends in; the status.
fn call(world: &World, role: &Role, what: &str, heard: &mut Heard) -> u16 {
    let Role { name, host, .. } = role;
    let stolen = format!("authorization: Bearer {STOLEN}");
    let url = format!("https://{host}/{name}/{what}");
    let mut arguments = vec!["-sS", "-i", "--max-time", "25", "-w", "\n%{http_code}", "-H", &stolen];
    if host.starts_with("placeholder") {
        arguments.extend(["-H", "content-type: application/json", "-d", "{\"key\": \"vouchsafe-canary\"}"]);
    }
    arguments.push(&url);
    let finished = world.bot("curl").args(arguments).run();
    heard.note(&format!("the answer of {url}"), format!("{}{}", finished.stdout, finished.stderr));
    finished.stdout.rsplit('\n').next().and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// Asks on the control socket itself.
fn ask(world: &World, command: &str) -> String {
    let mut socket = UnixStream::connect(world.path("run/control.sock")).unwrap();
    writeln!(socket, "{{\"command\":\"{command}\"}}").unwrap();
    let mut reply = String::new();
    BufReader::new(socket).read_line(&mut reply).unwrap();
    assert!(reply.starts_with("{\"ok\":"), "{command}: {reply}");
    reply
}

/// Reads memory of a process as another one of its user would that may not look into those that are not dumpable (`CAP_SYS_PTRACE`
/// is not in effect).
fn reads_memory_of(pid: u32) -> Result<usize, Errno> {
    let read = move || {
        let mut all = capabilities(None).unwrap();
        all.effective.remove(CapabilitySet::SYS_PTRACE);
        set_capabilities(None, all).unwrap();
        let mut byte = [0];
        let nowhere = RemoteIoVec { base: 0, len: 1 };
        process_vm_readv(Pid::from_raw(pid.cast_signed()), &mut [IoSliceMut::new(&mut byte)], &[nowhere])
    };
    // Capabilities are of a thread.
    std::thread::spawn(read).join().unwrap()
}

/// A program that makes a secret anew, and what it makes.
fn rotates(world: &World, cast: &mut Cast<'_>) {
    let made = random_of(&mut cast.canaries, "the secret that was made anew");
    cast.takes_also("static-vault", &made);
    for (name, script) in
        [("make", format!("cat >/dev/null\necho '{made}'\n")), ("revoke", "cat >/dev/null\n".into())]
    {
        let path = world.program(name, &format!("#!/bin/sh\n{script}"));
        world.set(&format!("rotation.static-vault.{name}"), &format!("[\"{}\"]", path.display()));
    }
    world.set("rotation.static-vault.overlap", "\"1s\"");
}

/// What the servers were shown or gave, as far as it is secret; and the signatures of calls, which are good for that one call.
fn harvest(world: &World) -> (Canaries, Canaries) {
    let (mut secrets, mut signatures) = (Canaries::default(), Canaries::default());
    for (number, line) in fs::read_to_string(world.path("secrets.log")).unwrap().lines().enumerate() {
        let seen: Value = serde_json::from_str(line).unwrap();
        let name = format!("what a server saw ({number})");
        match (seen["secret"].as_str(), seen["signature"].as_str()) {
            (Some(secret), _) => secrets.add(&name, secret.as_bytes()),
            (_, signature) => signatures.add(&name, signature.unwrap().as_bytes()),
        }
    }
    for line in fs::read_to_string(world.path("vault.tokens")).unwrap().lines() {
        secrets.add("the token of HashiCorp Vault", line.as_bytes());
    }
    (secrets, signatures)
}

#[test]
fn no_secret_of_any_kind_from_any_source_is_in_anything_that_the_daemon_puts_out() {
    let world = World::new();
    let mut cast = Cast::of(&world);
    rotates(&world, &mut cast);
    world.set("log.level", "\"trace\"");
    cast.enter();
    let mut heard = Heard::default();
    world.copy("/usr/bin/sleep", "elsewhere/sleep");
    world.daemon();

    // Calls that succeed, calls that a server refuses, and answers that send back what came.
    for role in &cast.roles {
        let Role { name, works, .. } = role;
        for (what, status) in [("ok", 200), ("echo", 200), ("refuse", 401)] {
            let expected = if *works { status } else { 502 };
            let got = call(&world, role, what, &mut heard);
            assert_eq!(got, expected, "{name} {what}: {}", world.decision(Some(&format!("/{name}/{what}"))));
        }
        let test = ["credential", "test", name, "--json"];
        let probed = world.vouchsafe(&test);
        heard.note(&test.join(" "), format!("{}{}", probed.stdout, probed.stderr));
        if role.host != "placeholder.raw.test" {
            assert_eq!(probed.code, Some(i32::from(!works)), "{name}: {probed:?}");
        }
        // Whether something is wrong may be known only once it is used.
        for arguments in [&["credential", "show", name, "--json"][..], &["credential", "show", name]] {
            let shown = world.vouchsafe(arguments);
            heard.note(&arguments.join(" "), format!("{}{}", shown.stdout, shown.stderr));
        }
    }
    assert!(cast.roles.len() > 90, "{}", cast.roles.len());

    // What the operator does, well or wrong.
    heard.command(&world, &["credential", "list"], 1);
    heard.command(&world, &["credential", "list", "--json"], 1);
    heard.command(&world, &["status"], 1);
    heard.command(&world, &["status", "--json"], 1);
    heard.command(&world, &["secret", "list"], 0);
    heard.command(&world, &["secret", "list", "--json"], 0);
    heard.command(&world, &["secret", "label", "static-vault", "team=billing", "--owner", "me"], 0);
    heard.command(&world, &["secret", "show", "static-vault", "--json"], 0);
    heard.command(&world, &["secret", "rotate", "static-vault"], 0);
    assert_eq!(
        call(&world, cast.roles.iter().find(|it| it.name == "static-vault").unwrap(), "echo", &mut heard),
        200
    );
    wait_until("the end of the one before", || {
        (!world.vouchsafe(&["secret", "list"]).stdout.contains("static-vault.previous")).then_some(())
    });
    heard.command(&world, &["secret", "rotate", "hmac-vault"], 1);
    heard.command(&world, &["reload"], 0);
    let word = random_of(&mut cast.canaries, "a secret in a policy");
    for (number, text) in [
        format!("[credential.x]\nkind = \"static\"\nsecret = \"{word}\"\n"),
        format!("[credential.x]\nkind = \"{word}\"\nsecret = \"vault:x\"\n"),
        format!("[credential.x]\nkind = \"static\"\nsecret = \"vault:{word}\"\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = world.policy("credentials/wrong.toml", &text);
        let reloaded = world.vouchsafe(&["reload"]);
        assert_eq!(reloaded.code, Some(1), "{reloaded:?}");
        // A kind is not a place for a secret: that one is repeated, as every word that is not known.
        if number != 1 {
            heard.note("a reload of a policy with a secret in it", reloaded.stdout + &reloaded.stderr);
        }
        fs::remove_file(path).unwrap();
    }
    heard.command(&world, &["reload"], 0);
    for command in ["status", "credentials", "reload-secrets", "reload", "nonsense"] {
        heard.note(&format!("the control socket, {command}"), ask(&world, command));
    }
    let tail = world.vouchsafe(&["audit", "tail"]);
    heard.note("audit tail", tail.stdout + &tail.stderr);
    heard.command(&world, &["audit", "verify"], 0);
    let published =
        world.enter(None).args(["curl", "-sS", &format!("{ISSUER}/.well-known/jwks.json")]).output();
    heard.note("what the issuer publishes", published.unwrap().stdout);

    // The process itself.
    let pid = world.daemon_pid();
    let proc = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap();
    heard.note("its command line", proc("cmdline"));
    heard.note("its name", proc("comm"));
    let environment = proc("environ");
    assert!(cast.variables.len() > 10);
    let (status, limits) =
        (String::from_utf8(proc("status")).unwrap(), String::from_utf8(proc("limits")).unwrap());
    let of = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert!(of("VmLck:") >= of("VmRSS:") && of("VmSwap:") == 0, "its memory is locked: {status}");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{limits}");

    // Not dumpable: nobody of the same user, and no core file, gets at its memory.
    let control = world.bot(world.path("elsewhere/sleep")).outside().arg("60").spawn();
    assert_ne!(reads_memory_of(control.pid()), Err(Errno::EPERM), "what everybody else's program allows");
    assert_eq!(reads_memory_of(pid), Err(Errno::EPERM));
    assert_eq!(world.terminate(), Some(0));

    let (seen, signatures) = harvest(&world);
    assert!(seen.len() > 100 && signatures.len() > 50, "{} {}", seen.len(), signatures.len());
    let mut canaries = cast.canaries.clone();
    canaries.extend(&seen);
    canaries.add("a key that a bot brought", STOLEN.as_bytes());
    let mut keys = Canaries::default();
    for name in ["store.key", "fingerprint.key"] {
        let key = fs::read_to_string(world.path("state").join(name)).unwrap();
        keys.add(name, key.trim().as_bytes());
    }
    // What an API sends back of the signature of a call is not covered.
    let of_answers = canaries.finder();
    canaries.extend(&signatures);
    let of_state = canaries.finder();
    canaries.extend(&keys);
    let finder = canaries.finder();
    let mut found: Vec<String> = Vec::new();
    let mut look = |finder: &search::Finder, place: &str, bytes: &[u8]| {
        found.extend(finder.find(bytes).into_iter().map(|what| format!("{place}: {what}")));
    };
    // Their own keys are in the files of the state, which is why these are root's alone.
    let mut state = Heard::default();
    state.folder(&world.path("state"));
    assert!(state.0.len() > 6);
    for (place, bytes) in &state.0 {
        look(if place.contains("/journal/") { &finder } else { &of_state }, place, bytes);
    }
    heard.folder(&world.path("run"));
    let log = fs::read(world.path("daemon.log")).unwrap();
    // Of HTTP/2, of the sockets, of the loader of programs, and our own.
    for word in
        ["FramedWrite::buffer", "registering event source", "relocating program", "a credential was tried"]
    {
        assert!(String::from_utf8_lossy(&log).contains(word), "it does not log everything: no {word}");
    }
    heard.note("its log", log);
    heard.note("what its programs were started with", fs::read(world.path("seen.log")).unwrap());
    for (place, bytes) in &heard.0 {
        look(if place.starts_with("the answer of") { &of_answers } else { &finder }, place, bytes);
    }
    let variables = environment.split(|byte| *byte == 0);
    for variable in variables.filter(|it| !cast.variables.iter().any(|name| it.starts_with(name.as_bytes())))
    {
        look(&finder, "its environment", variable);
    }
    assert!(found.is_empty(), "{} places have a secret in them:\n{}", found.len(), found.join("\n"));
}
