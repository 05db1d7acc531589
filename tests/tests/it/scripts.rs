//! Identity by script: what an interpreter was started with, as the kernel saw it, and as nobody else could have arranged it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::Digest as _;
use tests::{Bot, World};

/// The user that bots run as, and somebody else.
const BOT: u32 = 4242;
const OTHER: u32 = 4343;

/// Calls with a path and prints the status. What it is told to do before stands in front.
const CALL: &str = r"
import socket, sys
def call(path):
    s = socket.create_connection(('203.0.113.10', 80), 10)
    s.sendall(('GET %s HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n' % path).encode())
    print(s.makefile().readline().split(' ')[1], flush=True)
";

/// What the script and everything that pretends to be it does.
const REPORT: &str = "call(sys.argv[-1])\n";

struct Scene {
    world: World,
    script: PathBuf,
    evil: PathBuf,
    calls: u32,
}

impl Scene {
    fn new(conditions: &str) -> Self {
        let world = World::new();
        world.without_identities();
        let script = program(&world, "scripts/report.py", REPORT);
        let evil = program(&world, "scripts/evil.py", REPORT);
        world.identity(
            "report",
            &format!(
                "exe = \"{{root}}/bots/python3\"\nuser = \"{BOT}\"\n{}",
                conditions.replace("{digest}", &sha256(&script))
            ),
        );
        world.daemon();
        Self { world, script, evil, calls: 0 }
    }

    fn python(&self) -> PathBuf {
        self.world.path("bots/python3")
    }

    fn bot(&self, program: impl AsRef<Path>) -> Bot<'_> {
        self.world.bot(program).user(BOT, BOT)
    }

    /// Runs a bot whose last argument is the path that it calls: its identity, and why it has none.
    #[track_caller]
    fn identity_of(&mut self, bot: impl FnOnce(&Self, &str) -> std::process::Command) -> (Value, String) {
        self.calls += 1;
        let path = format!("/v1/call-{}", self.calls);
        let told = bot(self, &path).output().unwrap();
        let status = String::from_utf8_lossy(&told.stdout).trim().to_owned();
        let complaint = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(!status.is_empty(), "it did not call at all: {complaint}");
        let decided = self.world.decision(Some(&path));
        let reason = decided["reason"].as_str().unwrap_or_default().to_owned();
        let expected = if decided["identity"].is_null() { "403" } else { "200" };
        assert_eq!(status, expected, "{decided}");
        (decided["identity"].clone(), reason)
    }

    /// The same of an interpreter with these arguments.
    #[track_caller]
    fn started_with(&mut self, arguments: &[&str]) -> (Value, String) {
        self.identity_of(|scene, path| scene.bot(scene.python()).args(arguments).arg(path).command())
    }
}

fn program(world: &World, name: &str, text: &str) -> PathBuf {
    let python = world.path("bots/python3");
    world.program(name, &format!("#!{}\n{CALL}{text}", python.display()))
}

fn sha256(file: &Path) -> String {
    let digest = sha2::Sha256::digest(fs::read(file).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn report() -> Value {
    Value::from("report")
}

const BY_PATH: &str = "script = \"{root}/scripts/report.py\"";

/// What a copy of the policy with another identity would have decided: the exit code, and what it says.
fn replayed(world: &World, name: &str, of: impl Fn(&str) -> String) -> (Option<i32>, String) {
    let to = world.path(name);
    for folder in ["apis", "credentials", "policies"] {
        fs::create_dir_all(to.join(folder)).unwrap();
        for file in fs::read_dir(world.path("etc").join(folder)).unwrap().map(Result::unwrap) {
            fs::write(to.join(folder).join(file.file_name()), of(&fs::read_to_string(file.path()).unwrap()))
                .unwrap();
        }
    }
    let told = world.vouchsafe(&["audit", "replay", "--policies", to.to_str().unwrap()]);
    (told.code, told.stdout)
}

#[test]
fn the_script_of_a_recorded_call_is_held_against_other_identities() {
    let mut scene = Scene::new("script = \"{root}/scripts/report.py\"");
    let script = scene.script.clone();
    assert_eq!(scene.started_with(&[script.to_str().unwrap()]).0, "report");
    let known = &scene.world.decision(Some("/v1/call-1"))["workload"]["known"];
    assert_eq!(
        (&known["exe"], &known["script"]),
        (&"own".into(), &script.to_str().unwrap().into()),
        "{known}"
    );
    let digest = sha256(&script);
    let with = |name: &str, other: &str| {
        let line = format!("script = \"{}\"", script.display());
        replayed(&scene.world, name, |text| text.replace(&line, other))
    };
    let folder = script.parent().unwrap().display();
    let (code, told) = with("any", &format!("script = \"{folder}/*.py\""));
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = with("evil", &format!("script = \"{folder}/evil.py\""));
    assert!(code == Some(1) && told.contains("now  nobody by unknown-workload"), "{told}");
    // Nobody asked for its content.
    let (code, told) = with("content", &format!("script_sha256 = \"{digest}\""));
    assert!(code == Some(3) && told.contains("hangs on script_sha256, which is not recorded"), "{told}");
}

#[test]
fn a_script_is_itself_however_it_is_started() {
    let mut scene = Scene::new(BY_PATH);
    let script = scene.script.display().to_string();
    assert_eq!(scene.started_with(&[&script]).0, report());
    assert_eq!(scene.world.decision(Some("/v1/call-1"))["workload"]["script"], script.as_str());
    assert_eq!(scene.started_with(&["-uB", "-I", &script, "--option", "x"]).0, report());
    // By its first line.
    let (who, why) = scene.identity_of(|scene, path| scene.bot(&scene.script).arg(path).command());
    assert_eq!(who, report(), "{why}");
    // Relative to the directory where it is started.
    let folder = scene.world.path("scripts").display().to_string();
    let relative = |scene: &Scene, script: &str, path: &str| {
        let program = format!("cd {folder} && exec {} {script} {path}", scene.python().display());
        scene.bot("/bin/sh").args(["-c", &program]).command()
    };
    for script in ["./report.py", "report.py", "./././report.py"] {
        let (who, why) = scene.identity_of(|scene, path| relative(scene, script, path));
        assert_eq!(who, report(), "{script}: {why}");
    }
    // By `PATH`, as `#!/usr/bin/env python3` does it.
    let bots = scene.world.path("bots").display().to_string();
    let by_path = format!("PATH=/usr/sbin:{bots}:/usr/bin; export PATH; exec python3 {script} $1");
    let (who, why) =
        scene.identity_of(|scene, path| scene.bot("/bin/sh").args(["-c", &by_path, "sh", path]).command());
    assert_eq!(who, report(), "{why}");
    // By another name that nobody else can change.
    symlink(&scene.script, scene.world.path("scripts/daily")).unwrap();
    let link = scene.world.path("scripts/daily").display().to_string();
    assert_eq!(scene.started_with(&[&link]).0, report());
    // And so are its children.
    let fork = "import os\nif os.fork() == 0:\n    call(sys.argv[-1])\n    os._exit(0)\nos.wait()\n";
    program(&scene.world, "scripts/report.py", fork);
    assert_eq!(scene.started_with(&[&script]).0, report());
}

#[test]
fn other_code_in_the_same_interpreter_is_not_the_script() {
    let mut scene = Scene::new(BY_PATH);
    let (script, evil) = (scene.script.display().to_string(), scene.evil.display().to_string());
    let code = format!("{CALL}{REPORT}");
    let module = scene.world.path("scripts").display().to_string();
    let module = format!(
        "import sys; sys.path.insert(0, '{module}'); sys.argv[0:1] = []; import runpy; runpy.run_path('{evil}')"
    );
    for arguments in [
        vec![evil.as_str()],
        vec!["-c", &code, &script],
        vec!["-u", "-c", &code, &script],
        vec!["-c", &module, &script],
        vec!["-Wignore", &script],
        vec![&evil, &script],
    ] {
        let (who, why) = scene.started_with(&arguments);
        assert_eq!(who, Value::Null, "{arguments:?}");
        assert!(why.contains("is not report") || why.contains("no policy knows"), "{why}");
    }
    let (who, _) = scene.identity_of(|scene, path| {
        let program = format!("exec {} - {script} {path} < {evil}", scene.python().display());
        scene.bot("/bin/sh").args(["-c", &program]).command()
    });
    assert_eq!(who, Value::Null, "from its input");
    // By descriptor: what it is called by says nothing.
    let (who, why) = scene.identity_of(|scene, path| {
        let program = format!("exec 5< {script}; exec {} /dev/fd/5 {path}", scene.python().display());
        scene.bot("/bin/sh").args(["-c", &program]).command()
    });
    assert_eq!(who, Value::Null, "by a descriptor: {why}");
}

#[test]
fn a_process_that_changes_its_arguments_later_is_what_it_was_started_as() {
    let mut scene = Scene::new(BY_PATH);
    let script = scene.script.display().to_string();
    // It overwrites its own argument area, as setproctitle does, with those of the script.
    let disguise = format!(
        "import ctypes\nfields = open('/proc/self/stat').read().rsplit(')', 1)[1].split()\n\
         start = int(fields[45])\nthen = sys.argv[-1]\nfake = b'python3\\0{script}\\0'\n\
         ctypes.memmove(start, fake, len(fake))\n\
         assert b'{script}' in open('/proc/self/cmdline', 'rb').read()\ncall(then)\n"
    );
    let evil = program(&scene.world, "scripts/disguised-as-another-one.py", &disguise).display().to_string();
    let (who, why) = scene.started_with(&[&evil, &script]);
    assert_eq!(who, Value::Null, "{why}");
    // The other way round it stays what it is.
    let shy = "import ctypes\nfields = open('/proc/self/stat').read().rsplit(')', 1)[1].split()\n\
               then = sys.argv[-1]\nctypes.memset(int(fields[45]), 0, 8)\ncall(then)\n";
    program(&scene.world, "scripts/report.py", shy);
    let (who, why) = scene.started_with(&[&script]);
    assert_eq!(who, report(), "{why}");
}

#[test]
fn a_script_that_others_could_exchange_is_nobody() {
    let mut scene = Scene::new(BY_PATH);
    let script = scene.script.display().to_string();
    chown(&scene.script, Some(OTHER), None).unwrap();
    let (who, why) = scene.started_with(&[&script]);
    assert!(who.is_null() && why.contains("belongs to uid 4343"), "{why}");
    chown(&scene.script, Some(BOT), None).unwrap();
    assert_eq!(scene.started_with(&[&script]).0, report(), "its own user may write it");
    chown(&scene.script, Some(0), None).unwrap();
    // A name in a folder of somebody else leads to it for now.
    let folder = scene.world.path("theirs");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(OTHER), None).unwrap();
    let link = folder.join("report.py");
    symlink(&scene.script, &link).unwrap();
    let (who, why) = scene.started_with(&[link.to_str().unwrap()]);
    assert!(who.is_null() && why.contains("belongs to uid 4343"), "{why}");
    // The folder that it stands in: its modules are imported from there.
    let scripts = scene.world.path("scripts");
    fs::set_permissions(&scripts, fs::Permissions::from_mode(0o777)).unwrap();
    let (who, why) = scene.started_with(&[&script]);
    assert!(who.is_null() && why.contains("can be written by everybody"), "{why}");
    fs::set_permissions(&scripts, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(scene.started_with(&[&script]).0, report());
}

#[test]
fn a_script_where_everybody_can_put_modules_is_nobody() {
    let mut scene = Scene::new("script = \"{root}/shared/report.py\"");
    let script = program(&scene.world, "shared/report.py", REPORT);
    let shared = scene.world.path("shared");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    // The file itself is root's, and nobody else can take it away. But the interpreter looks for modules beside it.
    let planted =
        format!("import sys\nsys.path.pop(0)\ndel sys.modules['socket']\n{CALL}{REPORT}sys.exit()\n");
    let planted = scene.world.write("shared/socket.py", &planted);
    chown(&planted, Some(OTHER), None).unwrap();
    let path = script.display().to_string();
    let (who, why) = scene.started_with(&[&path]);
    assert!(who.is_null() && why.contains("can be written by everybody"), "{who} {why}");
    fs::remove_file(&planted).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(scene.started_with(&[&path]).0, report());
}

#[test]
fn an_interpreter_that_is_called_by_a_foreign_name_is_nobody() {
    let mut scene = Scene::new(BY_PATH);
    let script = scene.script.display().to_string();
    // Python takes its library from beside the name that it is called by.
    let fake = scene.world.path("theirs/bin");
    fs::create_dir_all(&fake).unwrap();
    let python = scene.python();
    symlink(&python, fake.join("python3")).unwrap();
    for owner in [&fake, &scene.world.path("theirs")] {
        chown(owner, Some(OTHER), None).unwrap();
    }
    let fake_name = fake.join("python3").display().to_string();
    let call_as = |name: &str, path_variable: &str| {
        format!("PATH={path_variable}; export PATH; exec -a {name} {} {script} $1", python.display())
    };
    let bots = scene.world.path("bots").display().to_string();
    for (name, path, why_not) in [
        (fake_name.as_str(), "/usr/bin", "belongs to uid 4343"),
        ("/usr/bin/curl", "/usr/bin", "by the name of another file"),
        ("python3", &format!("{}:{bots}", fake.display()), "belongs to uid 4343"),
        ("python3", "/usr/bin", "by the name of another file"),
        ("python3-that-is-not-there", "/usr/bin", "which its PATH does not have"),
        (
            "python3",
            &format!("{}/nothing:{bots}", scene.world.path("theirs").display()),
            "belongs to uid 4343",
        ),
        ("python3", &format!("bin:{bots}"), "not absolute"),
    ] {
        let program = call_as(name, path);
        let (who, why) = scene
            .identity_of(|scene, path| scene.bot("/bin/bash").args(["-c", &program, "sh", path]).command());
        assert!(who.is_null() && why.contains(why_not), "{name} {path}: {who} {why}");
    }
    let program = call_as("python3", &bots);
    let (who, why) =
        scene.identity_of(|scene, path| scene.bot("/bin/bash").args(["-c", &program, "sh", path]).command());
    assert_eq!(who, report(), "{why}");
}

#[test]
fn a_name_that_means_another_file_to_the_process_is_not_the_script() {
    let mut scene = Scene::new(BY_PATH);
    let (script, evil, python) = (
        scene.script.display().to_string(),
        scene.evil.display().to_string(),
        scene.python().display().to_string(),
    );
    // Root of its own user namespace puts another file over the script, and takes it away again.
    let inside = format!("mount --bind {evil} {script} && exec {python} {script} $1");
    let (who, why) = scene.identity_of(|scene, path| {
        scene.bot("/usr/bin/unshare").args(["-Urm", "sh", "-c", &inside, "sh", path]).command()
    });
    assert!(who.is_null() && why.contains("user namespace"), "{why}");
    // What root arranges for it is seen through its own eyes.
    let (who, why) = scene.identity_of(|scene, path| {
        let user = format!("setpriv --clear-groups --reuid={BOT} --regid={BOT} {python} {script} {path}");
        let program = format!("mount --bind {evil} {script} && exec {user}");
        scene.world.bot("/usr/bin/unshare").args(["-m", "sh", "-c", &program]).command()
    });
    assert!(who.is_null() && why.contains("another file for the process"), "{why}");
    // Somebody shares its working directory and its root, and can change both behind it.
    let sharing = format!(
        "import ctypes, os\nCLONE_FS, SIGCHLD = 0x200, 17\n\
         if ctypes.CDLL(None).syscall(56, CLONE_FS | SIGCHLD, 0, 0, 0, 0) == 0:\n    \
             os.chdir('{}')\n    os.execv('{python}', ['{python}', 'report.py', sys.argv[-1]])\nos.wait()\n",
        scene.world.path("scripts").display()
    );
    let sharer = program(&scene.world, "scripts/sharer.py", &sharing).display().to_string();
    let (who, why) = scene.started_with(&[&sharer]);
    assert!(who.is_null() && why.contains("another process can change"), "{why}");
}

#[test]
fn a_script_with_another_content_is_not_the_one_that_is_pinned() {
    let mut scene = Scene::new(&format!("{BY_PATH}\nscript_sha256 = \"{{digest}}\""));
    let script = scene.script.display().to_string();
    assert_eq!(scene.started_with(&[&script]).0, report());
    let whole = fs::read_to_string(&scene.script).unwrap();
    fs::write(&scene.script, format!("{whole}# changed\n")).unwrap();
    let (who, why) = scene.started_with(&[&script]);
    assert!(who.is_null() && why.contains("its script has another SHA-256"), "{why}");
    fs::write(&scene.script, whole).unwrap();
    assert_eq!(scene.started_with(&[&script]).0, report());
    // A variable that brings code is no clean start.
    let (who, why) = scene.identity_of(|scene, path| {
        scene.bot(scene.python()).env("PYTHONSTARTUP", "/x").args([&script]).arg(path).command()
    });
    assert!(who.is_null() && why.contains("PYTHONSTARTUP"), "{why}");
}

#[test]
fn what_is_granted_to_a_script_in_the_kernel_is_not_granted_to_another_one() {
    let world = World::new();
    world.without_identities();
    let udp = "import time\nfor attempt in range(50):\n    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
               s.settimeout(2)\n    try:\n        s.sendto(b'x', ('203.0.113.10', 5353))\n        print('sent', flush=True)\n        \
               break\n    except PermissionError:\n        time.sleep(0.05)\nelse:\n    print('refused', flush=True)\n\
               if sys.argv[-1] == 'stay': sys.stdin.readline()\n";
    let granted = program(&world, "scripts/granted.py", udp);
    let other = program(&world, "scripts/other.py", udp);
    world.policy(
        "policies/granted.toml",
        &format!(
            "[identity]\nexe = \"{{root}}/bots/python3\"\nuser = \"{BOT}\"\nscript = \"{{root}}/scripts/granted.py\"\n\
             [[grant]]\nnetwork = [\"udp 203.0.113.10:5353\"]\n"
        ),
    );
    world.daemon();
    let start = |script: &Path, how: &str| {
        let mut bot = world.bot(world.path("bots/python3")).user(BOT, BOT).arg(script).arg(how).spawn();
        (bot.line(), bot)
    };
    let (told, mut stays) = start(&granted, "stay");
    assert_eq!(told, "sent");
    // The facts of both are the same but for the script, and the kernel knows those of the first by now.
    assert_eq!(start(&other, "go").0, "refused");
    assert_eq!(start(&granted, "go").0, "sent");
    assert_eq!(start(&other, "go").0, "refused");
    stays.say("end");
    stays.wait();
}

#[test]
fn who_shows_the_script_and_why_another_process_has_none() {
    let scene = Scene::new(BY_PATH);
    let waits = "print('up', flush=True); sys.stdin.readline()\n";
    let scripts = [
        (program(&scene.world, "scripts/report.py", waits), report()),
        (program(&scene.world, "scripts/evil.py", waits), Value::Null),
    ];
    for (script, who) in scripts {
        let mut bot = scene.bot(scene.python()).arg(&script).spawn();
        assert_eq!(bot.line(), "up");
        let told = scene.world.vouchsafe(&["who", "--json", &bot.pid().to_string()]).json();
        let process = &told["processes"][0];
        assert_eq!(process["identity"], who, "{told}");
        let conditions = process["identities"][0]["conditions"].as_array().unwrap();
        let condition = conditions.iter().find(|condition| condition["condition"] == "script").unwrap();
        assert_eq!(condition["found"], script.to_str().unwrap(), "{told}");
        assert_eq!(condition["holds"], !who.is_null());
        bot.say("end");
        bot.wait();
    }
}

#[test]
fn a_script_from_before_the_daemon_is_unknown_until_it_is_started_anew() {
    let world = World::new();
    world.without_identities();
    let waits = "print('up', flush=True)\nfor line in sys.stdin: call(line.strip())\n";
    let script = program(&world, "scripts/report.py", waits);
    world.identity("report", &format!("exe = \"{{root}}/bots/python3\"\nuser = \"{BOT}\"\n{BY_PATH}"));
    let start = || {
        let mut bot = world.bot(world.path("bots/python3")).user(BOT, BOT).arg(&script).spawn();
        assert_eq!(bot.line(), "up");
        bot
    };
    let mut before = start();
    world.daemon();
    before.say("/v1/before");
    assert_eq!(before.line(), "403");
    let reason = world.decision(Some("/v1/before"))["reason"].clone();
    assert!(reason.as_str().unwrap().contains("restart it"), "{reason}");
    let mut after = start();
    after.say("/v1/after");
    assert_eq!(after.line(), "200");
    // A daemon that takes over knows what the kernel side saw meanwhile.
    world.terminate();
    let mut between = start();
    world.daemon();
    between.say("/v1/between");
    assert_eq!(between.line(), "200");
    for mut bot in [before, after, between] {
        bot.rest();
        bot.wait();
    }
}

#[test]
fn a_variable_by_which_a_script_runs_code_of_whoever_starts_it_makes_it_nobody() {
    let scene = Scene::new(BY_PATH);
    // A shell that traces itself runs what stands in PS4.
    let shell = scene.world.write("scripts/report.sh", "set -x\ntrue\n");
    scene.world.identity(
        "shell",
        &format!("exe = \"/usr/bin/bash\"\nuser = \"{BOT}\"\nscript = \"{}\"", shell.display()),
    );
    scene.world.vouchsafe(&["reload"]);
    let prompt = "$(exec 3<>/dev/tcp/203.0.113.10/80; printf 'GET /v1/prompt HTTP/1.1\\r\\nHost: plain.test\\r\\n\\r\\n' >&3; \
                  read -r line <&3; echo \"$line\" >&2)";
    let told = scene.bot("/usr/bin/bash").env("PS4", prompt).arg(&shell).command().output().unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains("HTTP/1.1"), "{told:?}");
    let decided = scene.world.decision(Some("/v1/prompt"));
    assert_eq!(decided["identity"], Value::Null, "{decided}");
    assert!(decided["reason"].as_str().unwrap().contains("PS4"), "{decided}");
    // Python asks for more at the terminal of whoever started it.
    let quiet = program(&scene.world, "scripts/report.py", "");
    let python = scene.python().display().to_string();
    let session = format!(
        "import os, pty, sys\nchild, terminal = pty.fork()\n\
         if child == 0: os.execv('{python}', ['{python}', '{}'])\n\
         os.write(terminal, b'call(\"/v1/inspect\")\\nexit()\\n')\n\
         try:\n    while data := os.read(terminal, 4096): sys.stdout.buffer.write(data)\nexcept OSError: pass\n",
        quiet.display()
    );
    let session = scene.world.write("scripts/session.py", &session);
    let told = scene.bot(scene.python()).env("PYTHONINSPECT", "1").arg(&session).command().output().unwrap();
    let decided = scene.world.decision(Some("/v1/inspect"));
    assert_eq!(decided["identity"], Value::Null, "{decided} {told:?}");
    assert!(decided["reason"].as_str().unwrap().contains("PYTHONINSPECT"), "{decided}");
}
