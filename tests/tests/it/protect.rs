//! `protect = true`: none but root gets at the memory of governed workloads and of the daemon, and the journal says who
//! tried. Each way is also tried where it must work, so that no test passes because a way is broken.

use serde_json::Value;
use tests::{Running, World, wait_until};

/// A user of his own, who runs the bot and attacks it.
const USER: u32 = 4242;
const PLAIN: &str = "203.0.113.10:80";

/// A process with a secret: prints where it is, waits for a line, prints what became of it, and calls when told to.
const VICTIM: &str = r"
import ctypes, socket, sys
libc = ctypes.CDLL(None)
# Where Yama is, it must not be what refuses (PR_SET_PTRACER, PR_SET_PTRACER_ANY).
libc.prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)
secret = ctypes.create_string_buffer(b'SECRET', 64)
print(ctypes.addressof(secret), flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == 'show':
        print(secret.value.decode(), flush=True)
        continue
    s = socket.create_connection(('203.0.113.10', 80))
    s.sendall(f'GET {words[1]} HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n'.encode())
    print(s.recv(12).decode(), flush=True)
";

/// Tries ways into a process (`PID ADDRESS WAY…`) and prints a line for each: what it read, `done`, or the error.
const ATTACK: &str = r"
import ctypes, os, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = libc.syscall.restype = ctypes.c_long
pid, address = int(sys.argv[1]), int(sys.argv[2])
def check(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def trace(request, data=0): return check(libc.ptrace(request, pid, address, data))
class Part(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
def process_vm(number, text):
    own = ctypes.create_string_buffer(text, 7)
    here, there = Part(ctypes.addressof(own), 6), Part(address, 6)
    check(libc.syscall(number, pid, ctypes.byref(here), 1, ctypes.byref(there), 1, ctypes.c_long(0)))
    return own.value.decode()
def attach():
    trace(16)
    os.waitpid(pid, 0x40000000)
    word = libc.ptrace(1, pid, address, 0)
    libc.ptrace(17, pid, 0, 0)
    return struct.pack('l', word)[:6].decode()
def seize():
    check(libc.ptrace(0x4206, pid, 0, 0))
    return 'done'
def mem_read():
    with open(f'/proc/{pid}/mem', 'rb', 0) as mem:
        mem.seek(address)
        return mem.read(6).decode()
def mem_write():
    with open(f'/proc/{pid}/mem', 'r+b', 0) as mem:
        mem.seek(address)
        mem.write(b'SEIZED')
        mem.seek(address)
        mem.write(b'SECRET')
    return 'done'
def vm_read(): return process_vm(310, b'')
def vm_write():
    process_vm(311, b'SEIZED')
    return process_vm(311, b'SECRET') and 'done'
def descriptor():
    handle = check(libc.syscall(434, pid, 0))
    check(libc.syscall(438, handle, 0, 0))
    return 'done'
def kcmp():
    check(libc.syscall(312, pid, os.getpid(), 1, 0, 0))
    return 'done'
for way in sys.argv[3:]:
    try: print(way, globals()[way](), flush=True)
    except OSError as error: print(way, error.strerror, flush=True)
    if way == 'seize' and len(sys.argv) == 4: sys.stdin.readline()
";

const WAYS: [(&str, &str); 8] = [
    ("attach", "SECRET"),
    ("mem_read", "SECRET"),
    ("mem_write", "done"),
    ("vm_read", "SECRET"),
    ("vm_write", "done"),
    ("descriptor", "done"),
    ("kcmp", "done"),
    // Last: it ends with who did it.
    ("seize", "done"),
];

/// What each way must come to: success, or the kernel's no.
fn expected(succeeds: bool) -> String {
    let line = |(way, won): &(&str, &str)| match succeeds {
        true => format!("{way} {won}\n"),
        // The kernel says so of every file below /proc (`mm_access`).
        false if way.starts_with("mem_") => format!("{way} Permission denied\n"),
        false => format!("{way} Operation not permitted\n"),
    };
    WAYS.iter().map(line).collect()
}

struct Victim {
    running: Running,
    address: String,
}

impl Victim {
    fn of(mut running: Running) -> Self {
        let address = running.line();
        assert!(address.parse::<u64>().is_ok(), "{address}");
        Self { running, address }
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    fn ask(&mut self, what: &str) -> String {
        self.running.say(what);
        self.running.line()
    }
}

/// A bot of the user's, with the identity `python`.
fn bot(world: &World) -> Victim {
    Victim::of(world.bot("python3").user(USER, USER).args(["-c", VICTIM]).spawn())
}

/// Tries every way, behind a wrapper that makes the attacker who he is, outside of the governed cgroup.
fn attack(world: &World, wrapper: &[&str], victim: &Victim) -> String {
    attack_by(world, wrapper, victim.pid(), &victim.address)
}

fn attack_by(world: &World, wrapper: &[&str], pid: u32, address: &str) -> String {
    let mut words: Vec<&str> = wrapper.to_vec();
    let pid = pid.to_string();
    words.extend(["/usr/bin/python3", "-c", ATTACK, &pid, address]);
    words.extend(WAYS.iter().map(|(way, _)| *way));
    let (program, arguments) = words.split_first().unwrap();
    let told = world.bot(program).outside().args(arguments).run();
    assert_eq!(told.stderr, "", "{told:?}");
    told.stdout
}

const SAME_USER: [&str; 4] = ["/usr/bin/setpriv", "--clear-groups", "--reuid=4242", "--regid=4242"];
const WITH_CAPABILITY: [&str; 6] = [
    "/usr/bin/setpriv",
    "--clear-groups",
    "--reuid=4242",
    "--regid=4242",
    "--inh-caps=+sys_ptrace",
    "--ambient-caps=+sys_ptrace",
];
const WITHOUT_CAPABILITIES: [&str; 3] = ["/usr/bin/setpriv", "--bounding-set=-all", "--inh-caps=-all"];
const ROOT: [&str; 1] = ["/usr/bin/env"];

/// A world that protects, unless this kernel cannot: then the status must say so, and there is nothing to try.
fn protecting() -> Option<World> {
    let world = World::new();
    world.set("protect", "true");
    world.daemon();
    is_on(&world).then_some(world)
}

/// Whether the running daemon protects; where it cannot, its status and its log must say so, and why. `cargo xtask vm` fails
/// where the kernels of its table do not.
fn is_on(world: &World) -> bool {
    let protect = world.status()["kernel"]["protect"].clone();
    if protect["state"] == "on" {
        return true;
    }
    assert_eq!(protect["state"], "unavailable", "{protect}");
    let why = protect["problem"].as_str().unwrap();
    let active = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let is_active = active.trim().split(',').any(|module| module == "bpf");
    assert!(why.contains(if is_active { "does not load the program" } else { "lsm=" }), "{why}");
    assert!(world.log().contains("others than root are not kept from tracing"), "{}", world.log());
    let told = world.vouchsafe(&["status"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stdout.contains("problem   protect: it is off, though protect = true"), "{told:?}");
    eprintln!("this kernel cannot protect, so there is nothing to try: {why}");
    false
}

fn trace_of(world: &World, pid: u32, access: &str) -> Value {
    world.record("trace", |record| record["target"]["pid"] == pid && record["access"] == access)
}

fn move_into_governed(world: &World, pid: &str) {
    std::fs::write(world.governed().join("bots/cgroup.procs"), pid).unwrap();
}

#[test]
fn nobody_but_root_gets_into_a_governed_bot_and_the_journal_says_who_tried() {
    let Some(world) = protecting() else { return };
    let mut victim = bot(&world);
    assert_eq!(attack(&world, &SAME_USER, &victim), expected(false));
    assert_eq!(victim.ask("show"), "SECRET");

    let record = trace_of(&world, victim.pid(), "attach");
    assert_eq!(record["workload"]["uid"], USER);
    assert!(record["workload"]["exe"].as_str().unwrap().contains("python3"), "{record}");
    assert_eq!(record["target"]["exe"], world.path("bots/python3").to_str().unwrap());
    assert_eq!(record["target"]["cgroup_path"], format!("{}/bots", world.governed_path()));
    assert_eq!(record.get("identity"), None, "the attacker is nobody: {record}");
    trace_of(&world, victim.pid(), "inspect");
    assert!(world.counter("refused_trace") >= 8);
    let told = world.vouchsafe(&["audit", "tail", "-n", "100"]).stdout;
    assert!(told.contains(&format!("deny trace {}[", world.path("bots/python3").display())), "{told}");
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));

    // Also from within: another bot of the same user, which has an identity.
    let pid = victim.pid().to_string();
    let told = world.bot("python3").user(USER, USER).args(["-c", ATTACK, &pid, &victim.address, "vm_read"]);
    assert_eq!(told.run().stdout, "vm_read Operation not permitted\n");
    world.record("trace", |record| record["identity"] == "python" && record["target"]["pid"] == victim.pid());

    assert_eq!(attack(&world, &ROOT, &victim), expected(true));
    assert_eq!(victim.ask("call /v1/well"), "HTTP/1.1 200", "it is who it was");
}

#[test]
fn a_power_of_roots_is_not_root() {
    let Some(world) = protecting() else { return };
    // A debugger whose file has the capability is run by everybody.
    let victim = bot(&world);
    assert_eq!(attack(&world, &WITH_CAPABILITY, &victim), expected(false));
    // A service that runs as root without its powers, and another one.
    let mut confined = WITHOUT_CAPABILITIES[1..].to_vec();
    let python = world.path("bots/python3");
    confined.extend([python.to_str().unwrap(), "-c", VICTIM]);
    let victim = Victim::of(world.bot(WITHOUT_CAPABILITIES[0]).args(&confined).spawn());
    assert_eq!(attack(&world, &WITHOUT_CAPABILITIES, &victim), expected(false));
    assert_eq!(attack(&world, &ROOT, &victim), expected(true));
    // Root of a user namespace, over a process in it.
    let inside = ["--user", "--map-root-user", python.to_str().unwrap(), "-c", VICTIM];
    let victim = Victim::of(world.bot("/usr/bin/unshare").args(inside).spawn());
    let target = victim.pid().to_string();
    let enter = ["/usr/bin/nsenter", "--user", "--preserve-credentials", "--target", &target];
    assert_eq!(attack(&world, &enter, &victim), expected(false));

    // Without protection each of them gets in.
    world.set("protect", "false");
    world.restart();
    assert_eq!(attack(&world, &enter, &victim), expected(true));
    let victim = Victim::of(world.bot(WITHOUT_CAPABILITIES[0]).args(&confined).spawn());
    assert_eq!(attack(&world, &WITHOUT_CAPABILITIES, &victim), expected(true));
    assert_eq!(attack(&world, &WITH_CAPABILITY, &bot(&world)), expected(true));
}

#[test]
fn a_process_that_is_not_governed_is_its_users_as_before() {
    let Some(world) = protecting() else { return };
    let free = world.bot("/usr/bin/python3").outside().user(USER, USER).args(["-c", VICTIM]).spawn();
    let free = Victim::of(free);
    assert_eq!(attack(&world, &SAME_USER, &free), expected(true));
}

#[test]
fn tools_that_show_processes_to_their_user_work_on() {
    let Some(world) = protecting() else { return };
    let victim = bot(&world);
    let pid = victim.pid();
    let script = format!(
        "cd /proc/{pid} && readlink exe fd/0 && ls -l fd ns && cat maps environ stat status cmdline statm io >/dev/null"
    );
    let told = world.bot("/bin/sh").outside().user(USER, USER).args(["-c", &script]).run();
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("bots/python3"), "{told:?}");
}

#[test]
fn protection_comes_and_goes_with_the_setting() {
    let world = World::start();
    let victim = bot(&world);
    let state = || world.status()["kernel"]["protect"]["state"].as_str().unwrap().to_owned();
    let is_pinned = || world.pins().join("v2/on_ptrace").exists();
    assert_eq!((state().as_str(), is_pinned()), ("off", false));
    assert!(world.vouchsafe(&["status"]).stdout.contains("protect   off (protect = false)"));
    assert_eq!(attack(&world, &SAME_USER, &victim), expected(true));

    world.set("protect", "true");
    world.restart();
    if !is_on(&world) {
        assert!(world.vouchsafe(&["status"]).stdout.contains("protect   off\n"));
        return;
    }
    assert!(world.vouchsafe(&["status"]).stdout.contains("protect   on"));
    assert_eq!(attack(&world, &SAME_USER, &victim), expected(false));
    // It outlives the daemon, and the next daemon takes it over.
    world.kill9();
    assert_eq!(attack(&world, &SAME_USER, &victim), expected(false));
    world.daemon();
    assert_eq!(attack(&world, &SAME_USER, &victim), expected(false));

    world.set("protect", "false");
    world.restart();
    assert_eq!((state().as_str(), is_pinned()), ("off", false));
    assert_eq!(attack(&world, &SAME_USER, &victim), expected(true));

    world.set("protect", "true");
    world.restart();
    assert_eq!(attack(&world, &SAME_USER, &victim), expected(false));
    assert_eq!(world.terminate(), Some(0));
    assert_eq!(world.vouchsafe(&["detach"]).code, Some(0));
    assert_eq!(attack(&world, &SAME_USER, &victim), expected(true));
}

#[test]
fn the_daemon_is_protected_wherever_it_runs() {
    let world = World::new();
    // Not governed itself.
    world.set("kernel.cgroup", &format!("\"{}\"", world.governed().join("bots").display()));
    world.set("protect", "true");
    world.daemon();
    if !is_on(&world) {
        return;
    }
    // The start of its stack is as good as any address.
    let stack = |pid: u32| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let line = maps.lines().find(|line| line.ends_with("[stack]")).unwrap().to_owned();
        let end = line.split(['-', ' ']).nth(1).unwrap();
        (u64::from_str_radix(end, 16).unwrap() - 64).to_string()
    };
    let read = |wrapper: &[&str]| {
        let pid = world.daemon_pid();
        let mut words: Vec<&str> = wrapper[1..].to_vec();
        let (pid, address) = (pid.to_string(), stack(pid));
        words.extend(["/usr/bin/python3", "-c", ATTACK, &pid, &address, "vm_read", "seize", "descriptor"]);
        world.bot(wrapper[0]).outside().args(words).run().stdout
    };
    let refused = "vm_read Operation not permitted\nseize Operation not permitted\n\
                   descriptor Operation not permitted\n";
    // The kernel itself refuses this one, and asks nobody.
    assert_eq!(read(&SAME_USER), refused);
    assert_eq!(read(&WITH_CAPABILITY), refused);
    let record = trace_of(&world, world.daemon_pid(), "attach");
    assert_eq!(record["workload"]["uid"], USER);
    assert_eq!(record["target"]["exe"], tests::daemon_binary().canonicalize().unwrap().to_str().unwrap());
    assert!(!read(&ROOT).contains("not permitted"));

    world.set("protect", "false");
    world.restart();
    assert!(!read(&WITH_CAPABILITY).contains("not permitted"));
}

/// Runs a program (`PROGRAM ARG…`) that asks to be traced, and traces it to its end: what somebody does who wants to put
/// code into a bot as it starts. Waits for a line in between, and keeps its memory open.
const TRACER: &str = r"
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
child = os.fork()
if child == 0:
    if libc.ptrace(0, 0, 0, 0) != 0:
        print('refused', os.strerror(ctypes.get_errno()), flush=True)
        os._exit(1)
    os.kill(os.getpid(), signal.SIGSTOP)
    os.execv(sys.argv[1], sys.argv[1:])
_, status = os.waitpid(child, 0)
if os.WIFSTOPPED(status):
    mem = open(f'/proc/{child}/mem', 'r+b', 0)
    print(child, flush=True)
    sys.stdin.readline()
    libc.ptrace(7, child, 0, 0)
    while True:
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status): break
        libc.ptrace(7, child, 0, 0)
";

/// The answer to the actor, executed in the governed cgroup under a tracer of this user, who began outside.
fn traced_actor(world: &World, user: u32, path: &str) -> String {
    let actor = world.path("bots/actor");
    let words = ["-c", TRACER, actor.to_str().unwrap(), "get", PLAIN, path];
    let mut tracer = world.bot("/usr/bin/python3").outside().user(user, user).args(words).spawn();
    let child = tracer.line();
    move_into_governed(world, &child);
    tracer.say("go on");
    tracer.rest()
}

#[test]
fn a_bot_that_is_executed_under_somebody_elses_tracer_is_nobody() {
    let Some(world) = protecting() else { return };
    let told = traced_actor(&world, USER, "/v1/traced");
    assert!(told.contains("HTTP/1.1 403"), "{told}");
    let record = world.decision(Some("/v1/traced"));
    assert_eq!(record.get("identity"), None, "{record}");
    assert!(record["reason"].as_str().unwrap().contains("others than root traced it"), "{record}");
    // Root debugs what it wants.
    let told = traced_actor(&world, 0, "/v1/debugged");
    assert!(told.contains("HTTP/1.1 200"), "{told}");
    assert_eq!(world.decision(Some("/v1/debugged"))["identity"], "actor");

    world.set("protect", "false");
    world.restart();
    let told = traced_actor(&world, USER, "/v1/unprotected");
    assert!(told.contains("HTTP/1.1 200"), "the way works: {told}");
}

#[test]
fn a_governed_process_is_not_given_to_its_parent_to_be_traced() {
    let Some(world) = protecting() else { return };
    let actor = world.path("bots/actor");
    let words = ["-c", TRACER, actor.to_str().unwrap(), "get", PLAIN, "/v1/x"];
    let told = world.bot("python3").user(USER, USER).args(words).run();
    assert_eq!(told.stdout, "refused Operation not permitted\n", "{told:?}");
    let record = world.record("trace", |record| record["access"] == "traceme");
    assert_eq!((&record["identity"], &record["workload"]["uid"]), (&"python".into(), &USER.into()));
    assert_ne!(record["workload"]["pid"], record["target"]["pid"], "the other one is the parent");
    // Root may have it.
    let mut traced = world.bot("python3").args(words).spawn();
    assert!(traced.line().parse::<u32>().is_ok());
    traced.say("go on");
    assert!(traced.rest().contains("HTTP/1.1 200"));
}

#[test]
fn a_bot_that_is_executed_before_it_is_governed_is_nobody() {
    let Some(world) = protecting() else { return };
    let call = |path: &str| {
        let mut bot = world.bot("actor").outside().user(USER, USER).args(["wait", PLAIN, path]).spawn();
        assert_eq!(bot.line(), "waiting");
        move_into_governed(&world, &bot.pid().to_string());
        bot.say("go on");
        bot.rest()
    };
    let told = call("/v1/moved");
    assert!(told.contains("HTTP/1.1 403"), "{told}");
    world.set("protect", "false");
    world.restart();
    let told = call("/v1/unprotected");
    assert!(told.contains("HTTP/1.1 200"), "{told}");
}

#[test]
fn a_bot_that_was_traced_before_protection_began_is_nobody_until_it_is_started_anew() {
    let world = World::start();
    let mut victim = bot(&world);
    let mut other = bot(&world);
    let words = ["-c", ATTACK, &victim.pid().to_string(), &victim.address, "seize"];
    let mut tracer = world.bot("/usr/bin/python3").outside().user(USER, USER).args(words).spawn();
    assert_eq!(tracer.line(), "seize done");
    assert_eq!(victim.ask("call /v1/before"), "HTTP/1.1 200");
    world.set("protect", "true");
    world.restart();
    if !is_on(&world) {
        return;
    }
    assert_eq!(victim.ask("call /v1/seized"), "HTTP/1.1 403");
    assert_eq!(other.ask("call /v1/other"), "HTTP/1.1 200");
    // The tracer goes; what it may have left does not.
    tracer.say("end");
    tracer.wait();
    wait_until("the end of the trace", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", victim.pid())).unwrap();
        status.contains("TracerPid:\t0\n").then_some(())
    });
    assert_eq!(victim.ask("call /v1/left"), "HTTP/1.1 403");
    assert_eq!(bot(&world).ask("call /v1/anew"), "HTTP/1.1 200");
}
