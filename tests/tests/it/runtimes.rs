//! Real, unmodified clients of each runtime, none of which trusts this host's CA at first: what they say, what the journal
//! makes of it, and by what they come to trust.
//!
//! Each runs three times with an empty environment: as it is; with a store of the system that has our roots; with the
//! variables that `vouchsafe trust env` names. The table goes to `docs/trust.md`.

mod browser;
mod clients;
mod doctor;
mod pinned;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use serde_json::Value;
use tests::World;

use clients::{Client, clients};

/// What bots are told of, so that they trust what is in this file.
const VARIABLES: [&str; 11] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "npm_config_cafile",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PERL_LWP_SSL_CA_FILE",
];

/// One way of running a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AsItIs,
    Store,
    Variables,
}

const MODES: [Mode; 3] = [Mode::AsItIs, Mode::Store, Mode::Variables];

impl Mode {
    /// The cgroup of a run. As it is, it is a unit, as bots are.
    fn cgroup(self, client: &Client) -> String {
        let name = client.name;
        match self {
            Self::AsItIs => format!("{name}.service"),
            Self::Store => format!("{name}-store"),
            Self::Variables => format!("{name}-variables"),
        }
    }
}

/// What the journal has of a run.
struct Seen {
    /// A request came, so the client trusts us.
    asked: bool,
    /// Where it does not: what the journal says.
    refusal: Option<Value>,
    /// Why what came of it was decided as it was.
    reasons: Vec<String>,
    output: Output,
}

impl Seen {
    fn of(world: &World, client: &Client, mode: Mode, output: Output) -> Self {
        let cgroup = format!("/{}", mode.cgroup(client));
        let records = world.journal();
        let own = || {
            records.iter().filter(|record| {
                record["kind"] == "decision"
                    && record["workload"]["cgroup_path"].as_str().is_some_and(|path| path.ends_with(&cgroup))
            })
        };
        let asked = own().any(|record| record["method"].is_string());
        let refusal = own().find(|record| record["mistrust"].is_object()).cloned();
        let reasons = own().map(|record| record["reason"].as_str().unwrap_or_default().to_owned()).collect();
        Self { asked, refusal, reasons, output }
    }

    fn said(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = format!("{}{}", text(&self.output.stdout), text(&self.output.stderr));
        said.chars().take(400).collect()
    }
}

/// A copy of the system's store with our roots in it, as `update-ca-certificates` would leave it.
fn store(world: &World, ours: &Path) -> PathBuf {
    let store = world.path("certs");
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run("cp", &["-a", "/etc/ssl/certs", store.to_str().unwrap()]);
    fs::copy(world.path("bundle.pem"), store.join("ca-certificates.crt")).unwrap();
    let java = store.join("java/cacerts");
    let java_text = java.to_str().unwrap();
    for (number, root) in
        fs::read_to_string(ours).unwrap().split_inclusive("-----END CERTIFICATE-----\n").enumerate()
    {
        let name = format!("vouchsafe-{number}.pem");
        let file = store.join(&name);
        fs::write(&file, root).unwrap();
        let file = file.to_str().unwrap();
        let hash = run("openssl", &["x509", "-noout", "-subject_hash", "-in", file]);
        std::os::unix::fs::symlink(&name, store.join(format!("{}.0", hash.trim()))).unwrap();
        let arguments = ["-importcert", "-noprompt", "-storepass", "changeit", "-alias", &name];
        run("keytool", &[&arguments[..], &["-file", file, "-keystore", java_text]].concat());
    }
    store
}

/// How a client runs. The private mounts are the harness's: what is mounted there ends with it.
fn command(world: &World, client: &Client, mode: Mode, store: &Path) -> Command {
    let cgroup = mode.cgroup(client);
    let mut command = world.enter(Some(&cgroup));
    command.args(["timeout", "60"]);
    if mode == Mode::Store {
        let mount = format!("mount --bind {} /etc/ssl/certs && exec \"$@\"", store.display());
        command.args(["sh", "-c", &mount, "sh"]);
    }
    let home = world.path("homes").join(&cgroup);
    fs::create_dir_all(&home).unwrap();
    client.prepare(&home);
    command.args(["env", "-i", "PATH=/usr/bin:/bin"]).arg(format!("HOME={}", home.display()));
    command.args(client.environment.iter().map(|(name, value)| format!("{name}={value}")));
    if mode == Mode::Variables {
        let bundle = world.path("bundle.pem");
        command.args(VARIABLES.map(|name| format!("{name}={}", bundle.display())));
        command.arg("DENO_TLS_CA_STORE=system");
    }
    command.args(&client.command).current_dir(home).stdin(Stdio::null());
    command
}

#[test]
fn every_runtime_is_told_what_it_lacks_and_trusts_us_by_what_it_is_said_to() {
    let world = World::new();
    world.daemon();
    let ours = world.path("state/ca/ca.pem");
    let bundle = world.vouchsafe(&["ca", "export", "--bundle"]);
    world.write("bundle.pem", &bundle.stdout);
    let store = store(&world, &ours);
    let clients = clients(&world);

    let runs = clients.iter().flat_map(|client| MODES.map(|mode| (client, mode)));
    let runs: VecDeque<_> =
        runs.map(|(client, mode)| (client, mode, command(&world, client, mode, &store))).collect();
    let (runs, done) = (Mutex::new(runs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some((client, mode, mut command)) = runs.lock().unwrap().pop_front() else { return };
                    let output = command.output().unwrap();
                    done.lock().unwrap().push((client, mode, output));
                }
            });
        }
    });

    let (mut wrong, mut table) = (Vec::new(), String::new());
    let mut rows: Vec<_> = done.into_inner().unwrap();
    rows.sort_by_key(|(client, mode, _)| {
        let place = |name| clients.iter().position(|client| client.name == name);
        (place(client.name), MODES.iter().position(|known| known == mode))
    });
    let mut rows = rows.into_iter();
    for client in &clients {
        let mut seen = || {
            let (client, mode, output) = rows.next().unwrap();
            Seen::of(&world, client, mode, output)
        };
        let [as_it_is, by_store, by_variables] = [seen(), seen(), seen()];
        let mut check = |holds: bool, what: &str, of: &Seen| {
            if !holds {
                wrong.push(format!("{}: {what}: {:?}; it said: {}", client.name, of.reasons, of.said()));
            }
        };
        check(!as_it_is.asked, "it trusted us from the start", &as_it_is);
        check(by_store.asked == client.by_store, "the system's store", &by_store);
        check(by_variables.asked == client.by_variables, "the variables", &by_variables);
        let refusal = as_it_is.refusal.clone().unwrap_or_default();
        let mistrust = &refusal["mistrust"];
        let reason = refusal["reason"].as_str().unwrap_or_default();
        let runtime = mistrust["runtime"].as_str().unwrap_or_default();
        let mend = mistrust["mend"].as_str().unwrap_or_default();
        check(runtime.starts_with(client.runtime), "the runtime", &as_it_is);
        check(mistrust["certain"] == client.says_so, "whether it says so", &as_it_is);
        check(mend == client.mend, "the command", &as_it_is);
        let unit = format!("{}.service", client.name);
        check(reason.contains(mend) && reason.contains(&unit), "the sentence", &as_it_is);
        // What the process has itself is looked at: its own mounts, its own variables.
        for (seen, never) in [(&by_store, "--system"), (&by_variables, "--unit")] {
            let mend = seen.refusal.as_ref().map(|refusal| refusal["mistrust"]["mend"].to_string());
            check(
                mend.is_none_or(|mend| mend.len() > 4 && !mend.contains(never)),
                "what is left to do",
                seen,
            );
        }
        let yes = |holds: bool| if holds { "yes" } else { "no" };
        let says = if client.says_so { "an alert" } else { "goes away" };
        let _ = writeln!(
            table,
            "| {} | {} | {says} | {} | {} | `{mend}` |",
            client.name,
            client.version(),
            yes(by_store.asked),
            yes(by_variables.asked),
        );
    }
    println!(
        "| client | version | refuses by | system store | variables | mend |\n| --- | --- | --- | --- | --- | --- |\n{table}"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
