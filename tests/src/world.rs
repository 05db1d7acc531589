//! One host in small: folder, cgroups, network, policies, API server; see the crate's page.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::bot::{Answer, Bot, Running};
use crate::wait::wait_until;
use crate::{api, host};

/// Address of nginx: from a block for documentation (RFC 5737).
pub const ADDRESS: &str = "203.0.113.10";
/// The same over IPv6 (RFC 3849).
pub const ADDRESS6: &str = "2001:db8::10";
/// What an API says that is at such addresses.
pub const ADDRESSES: &str = "addresses = [\"203.0.113.0/24\", \"2001:db8::/32\"]";
/// Address of `raw.test`: nobody listens until a test starts a server.
pub const RAW_ADDRESS: &str = "203.0.113.11";

/// One host in small. Dropping it takes everything away.
pub struct World {
    name: String,
    root: PathBuf,
    cgroup: PathBuf,
    pub(crate) settings: RefCell<BTreeMap<String, String>>,
    pub(crate) child: RefCell<Option<Running>>,
    /// Of the daemon's environment.
    pub(crate) variables: RefCell<BTreeMap<String, String>>,
    /// Ended before everything else goes.
    servers: RefCell<Vec<Running>>,
}

impl World {
    /// A world with its API server, its policies and its secret, and without a running daemon.
    ///
    /// # Panics
    /// When this host cannot run the tests: without root, BPF, or a program that they need.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a world does much; it is not made by the way")]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        host::prepare();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{number}", host::PREFIX, std::process::id());
        let world = Self {
            root: std::env::temp_dir().join(&name),
            cgroup: host::cgroup2().join(&name),
            name,
            settings: RefCell::default(),
            child: RefCell::default(),
            variables: RefCell::default(),
            servers: RefCell::default(),
        };
        fs::create_dir(&world.root).unwrap();
        chmod(&world.root, 0o755);
        for child in ["governed/daemon", "governed/bots", "outside"] {
            fs::create_dir_all(world.cgroup.join(child)).expect("cannot make cgroups");
        }
        world.make_network();
        world.make_programs();
        world.make_policies();
        let nginx = api::nginx(&world);
        world.servers.borrow_mut().push(nginx);
        world.default_settings();
        world.secret("demo-key", api::CANARY);
        world
    }

    /// A world with a running daemon.
    #[must_use]
    pub fn start() -> Self {
        let world = Self::new();
        world.daemon();
        world
    }

    /// A path in the world's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The cgroup that the daemon attaches to.
    #[must_use]
    pub fn governed(&self) -> PathBuf {
        self.cgroup.join("governed")
    }

    /// The governed cgroup as the hierarchy names it (`/vouchsafe-test-…/governed`).
    #[must_use]
    pub fn governed_path(&self) -> String {
        format!("/{}/governed", self.name)
    }

    /// The pin directory of the daemon.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new(host::BPFFS).join(&self.name)
    }

    /// Writes a file in the world's folder; root's, and not writable by others.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        chmod(&path, 0o644);
        path
    }

    /// Writes a file below the policy root, such as `policies/robot.toml`; `{root}` in it is the world's folder, and
    /// `{governed}` the governed cgroup in the hierarchy. An API in it is at the world's addresses, unless the file says of one at
    /// which it is. A running daemon notices it.
    pub fn policy(&self, name: &str, text: &str) -> PathBuf {
        let root = self.root.to_str().unwrap();
        let text = text.replace("{root}", root).replace("{governed}", &self.governed_path());
        let text = at_world_addresses(&text);
        // Written aside and renamed, as an editor does: the daemon never reads half a file.
        let aside = self.write("aside", &text);
        let path = self.path("etc").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::rename(aside, &path).unwrap();
        path
    }

    /// Copies a program into the world's folder and returns its path: another program than the one it is a copy of.
    ///
    /// Another process writes it: what another test starts at this moment has our open files until it is executed, and a file that
    /// somebody can write is not executed (`ETXTBSY`, execve(2)).
    #[track_caller]
    pub fn copy(&self, from: impl AsRef<Path>, to: &str) -> PathBuf {
        let to = self.path(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(Command::new("cp").arg(from.as_ref()).arg(&to));
        to
    }

    /// Writes a script that can be executed, by the way of [`World::copy`].
    #[track_caller]
    pub fn program(&self, name: &str, text: &str) -> PathBuf {
        let written = self.write(&format!("{name}.text"), text);
        let path = self.path(name);
        run(Command::new("install").args(["-m", "755"]).arg(&written).arg(&path));
        fs::remove_file(written).unwrap();
        path
    }

    /// What nginx saw: one object per request (`host`, `method`, `uri`, `protocol`, `authorization`, `status` …).
    #[must_use]
    pub fn seen(&self) -> Vec<Value> {
        api::seen(self)
    }

    /// Waits until nginx has seen `count` requests, and returns them: its log is written after its answer.
    #[track_caller]
    pub fn seen_at_least(&self, count: usize) -> Vec<Value> {
        wait_until("a request at the server", || Some(self.seen()).filter(|seen| seen.len() >= count))
    }

    /// A program to run as a bot: a name is one of `bots/` (`curl`, `python3`, `actor`), a path is taken as it is.
    #[must_use]
    pub fn bot(&self, program: impl AsRef<Path>) -> Bot<'_> {
        Bot::new(self, program.as_ref())
    }

    /// Runs the bot curl with these arguments.
    pub fn curl(&self, arguments: &[&str]) -> Answer {
        self.bot("curl").curl(arguments)
    }

    /// Runs a script by the bot python3.
    pub fn python(&self, script: &str, arguments: &[&str]) -> crate::Finished {
        self.bot("python3").args(["-c", script]).args(arguments).run()
    }

    /// Starts a helper outside of the governed cgroup, in the world's network, and keeps it until the world ends. Waits
    /// until something listens at `listens` (`address:port`). Its stderr is in `NAME.log`.
    #[track_caller]
    pub fn server(&self, name: &str, program: &str, arguments: &[&str], listens: &str) {
        let log = fs::File::create(self.path(&format!("{name}.log"))).unwrap();
        let mut command = self.enter(None);
        command.arg(program).args(arguments).current_dir(&self.root);
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut server = Running::of(command.spawn().unwrap());
        let (address, port) = listens.rsplit_once(':').unwrap();
        wait_until("the start of a server", || {
            let said = || fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
            assert!(server.is_alive(), "{name} ended while it started: {}", said());
            let filter = format!("src {address} and sport = :{port}");
            let listening = self.enter(None).args(["ss", "-Hltn", &filter]).output().unwrap();
            (!listening.stdout.is_empty()).then_some(())
        });
        self.servers.borrow_mut().push(server);
    }

    /// A command that runs in the world's network and in this child of the governed cgroup, or (None) outside of it.
    #[must_use]
    pub fn enter(&self, child: Option<&str>) -> Command {
        let cgroup = child.map_or_else(|| self.cgroup.join("outside"), |child| self.governed().join(child));
        fs::create_dir_all(&cgroup).unwrap();
        let mut command = Command::new(self.path("enter"));
        command.arg(cgroup);
        command
    }

    fn make_network(&self) {
        let holder = self.write("net", "");
        let mut net = OsString::from("--net=");
        net.push(&holder);
        run(Command::new("unshare").arg(&net).arg("true"));
        let setup = format!(
            "ip link set lo up && ip addr add {ADDRESS}/32 dev lo && ip addr add {RAW_ADDRESS}/32 dev lo && \
             ip -6 addr add {ADDRESS6}/128 dev lo nodad"
        );
        run(Command::new("nsenter").arg(&net).args(["sh", "-c", &setup]));
        self.write(
            "hosts",
            &format!(
                "127.0.0.1 localhost\n{ADDRESS} api.test plain.test other.test\n{RAW_ADDRESS} raw.test\n\
                 {ADDRESS6} v6.test api.test\n"
            ),
        );
        let root = self.root.display();
        self.program(
            "enter",
            &format!(
                r#"#!/bin/sh
# enter CGROUP PROGRAM…: run a program in a cgroup and in the world's network.
set -e
echo $$ > "$1/cgroup.procs"
shift
exec nsenter --net={root}/net unshare --mount --propagation slave \
    sh -c 'mount --bind {root}/hosts /etc/hosts && exec "$@"' sh "$@"
"#
            ),
        );
    }

    fn make_programs(&self) {
        self.copy("/usr/bin/curl", "bots/curl");
        self.copy("/usr/bin/python3", "bots/python3");
        self.copy(host::built("actor"), "bots/actor");
        self.copy("/usr/bin/curl", "elsewhere/curl");
    }

    fn make_policies(&self) {
        self.policy(
            "apis/apis.toml",
            "[api.demo]\nhosts = [\"api.test\", \"raw.test\"]\n\
             inject = { header = \"authorization\", value = \"Bearer {secret}\" }\n\n\
             [api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\n",
        );
        self.policy(
            "credentials/demo-key.toml",
            "[credential.demo-key]\nkind = \"static\"\nsecret = \"vault:demo-key\"\n",
        );
        for (name, program) in [("curl", "curl"), ("python", "python3"), ("actor", "actor")] {
            self.identity(name, &format!("exe = \"{{root}}/bots/{program}\""));
        }
    }

    /// Writes `policies/NAME.toml`: an identity with these conditions and the grants that all of the first have.
    pub fn identity(&self, name: &str, conditions: &str) {
        self.policy(
            &format!("policies/{name}.toml"),
            &format!(
                "[identity]\n{conditions}\n\n[[grant]]\napi = \"demo\"\nallow = [\"GET|PUT|HEAD /v1/**\", \"websocket /v1/**\"]\n\
                 deny = [\"* /v1/forbidden/**\"]\ncredential = \"demo-key\"\n\n\
                 [[grant]]\napi = \"plain\"\nallow = [\"GET /v1/**\"]\n"
            ),
        );
    }

    /// Removes the identities that are there from the start.
    pub fn without_identities(&self) {
        for name in ["curl", "python", "actor"] {
            fs::remove_file(self.path("etc/policies").join(format!("{name}.toml"))).unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log());
        }
        drop(self.child.borrow_mut().take());
        self.servers.borrow_mut().clear();
        host::tear_down(&self.name);
    }
}

/// The same APIs, at the addresses that servers have in a world: nobody has them on the internet, so it must be said.
fn at_world_addresses(text: &str) -> String {
    if text.contains("addresses =") {
        return text.to_owned();
    }
    let mut lines = Vec::new();
    let mut in_api = false;
    // At the end of its table: what a test says of lines of the first one is true.
    for line in text.lines().chain(["["]) {
        if line.starts_with('[') {
            lines.extend(in_api.then_some(ADDRESSES));
            in_api = line.starts_with("[api.");
        }
        lines.push(line);
    }
    lines.pop();
    lines.join("\n") + "\n"
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
