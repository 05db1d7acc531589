//! The clients: how each is run, and what is known of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::World;

use crate::credentials::packages;

/// What all of them call.
const URL: &str = "https://api.test/v1/x";
const BASE: &str = "https://api.test/v1";

/// One client, and what is expected of it.
pub(super) struct Client {
    pub(super) name: &'static str,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(&'static str, String)>,
    /// As the journal calls its runtime.
    pub(super) runtime: &'static str,
    /// It refuses by an alert; else it goes away after the handshake.
    pub(super) says_so: bool,
    /// It trusts us by the system's store.
    pub(super) by_store: bool,
    /// It trusts us by variables.
    pub(super) by_variables: bool,
    /// What the journal says is to be done.
    pub(super) mend: String,
    version: Vec<String>,
}

impl Client {
    /// The first words that its program, or its package, says of its version.
    pub(super) fn version(&self) -> String {
        let Some((program, arguments)) = self.version.split_first() else { return String::new() };
        let output = Command::new(program).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let version =
            text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
        let is_version = |word: &&str| word.contains('.') && word.bytes().any(|byte| byte.is_ascii_digit());
        version
            .into_iter()
            .find(is_version)
            .unwrap_or_default()
            .trim_start_matches(['v', 'g', 'o'])
            .to_owned()
    }

    /// Puts into its home what it needs there.
    pub(super) fn prepare(&self, home: &Path) {
        if self.name == "cargo" {
            let index = format!("[registries.private]\nindex = \"sparse+{BASE}/\"\n");
            fs::create_dir_all(home.join(".cargo")).unwrap();
            fs::write(home.join(".cargo/config.toml"), index).unwrap();
        }
    }
}

/// Who trusts us by what.
#[derive(Clone, Copy)]
struct By {
    store: bool,
    variables: bool,
}

const BOTH: By = By { store: true, variables: true };
const STORE: By = By { store: true, variables: false };
const VARIABLES: By = By { store: false, variables: true };
const NEITHER: By = By { store: false, variables: false };

const SYSTEM: &str = "vouchsafe trust install";
const RESTARTED: &str = "vouchsafe trust install && systemctl restart {unit}";
const UNIT: &str = "vouchsafe trust install --unit {unit} && systemctl restart {unit}";
const PATCHED: &str = "vouchsafe trust install --unit {unit} --file {packages}/stripe/data/ca-certificates.crt && systemctl restart {unit}";
const PASS: &str =
    "let it through undecrypted: `intercept = false` in its grant for this API (docs/policy.md)";

/// All of them; what they are made of is installed or built once for all runs.
pub(super) fn clients(world: &World) -> Vec<Client> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let client = |name, runtime, command: Vec<String>, says_so, by: By, mend: &str| {
        let version = vec![command[0].clone(), "--version".to_owned()];
        let By { store: by_store, variables: by_variables } = by;
        let mend = mended(mend, name);
        Client {
            name,
            command,
            environment: Vec::new(),
            runtime,
            says_so,
            by_store,
            by_variables,
            mend,
            version,
        }
    };
    let script = |name: &str, text: &str| world.write(name, text).display().to_string();
    let roots = tests::built("webroots").display().to_string();
    let mut all = vec![
        client("curl", "curl", words(&["/usr/bin/curl", "-sS", URL]), true, BOTH, SYSTEM),
        client("wget", "Wget", words(&["/usr/bin/wget", "-qO-", URL]), false, STORE, SYSTEM),
        client("git", "Git", words(&["/usr/bin/git", "ls-remote", URL]), false, BOTH, SYSTEM),
    ];
    let talk = "printf 'GET /v1/x HTTP/1.1\\r\\nHost: api.test\\r\\nConnection: close\\r\\n\\r\\n' | \
         /usr/bin/openssl s_client -ign_eof -verify_return_error -verify_hostname api.test -connect api.test:443";
    let mut openssl = client("openssl", "OpenSSL", words(&["/bin/sh", "-c", talk]), true, BOTH, SYSTEM);
    openssl.version = words(&["/usr/bin/openssl", "version"]);
    all.push(openssl);
    all.extend(python(&script("client.py", include_str!("client.py"))));
    all.extend(node());

    let mut roots = client(
        "webroots",
        "a static program with roots",
        vec![roots, "api.test".to_owned(), "/v1/x".to_owned()],
        true,
        NEITHER,
        PASS,
    );
    roots.version = Vec::new();
    all.push(roots);
    let build = Build::new();
    let go = build.go();
    let mut go = client("go", "Go 1.", vec![go, URL.to_owned()], true, BOTH, RESTARTED);
    go.version = words(&["/usr/bin/go", "version"]);
    all.push(go);
    let classes = build.java();
    let java = words(&["/usr/bin/java", "-cp", &classes, "Client", URL]);
    all.push(client("java", "Java", java, false, STORE, RESTARTED));
    let ruby = words(&["/usr/bin/ruby", &script("client.rb", include_str!("client.rb")), URL]);
    all.push(client("ruby", "Ruby", ruby, true, BOTH, SYSTEM));
    let php = words(&["/usr/bin/php", &script("client.php", include_str!("client.php")), URL]);
    all.push(client("php", "PHP", php, true, BOTH, SYSTEM));
    let perl = words(&["/usr/bin/perl", &script("client.pl", include_str!("client.pl")), URL]);
    all.push(client("perl", "Perl", perl, true, BOTH, SYSTEM));
    let cargo = words(&[env!("CARGO"), "search", "--registry", "private", "x"]);
    all.push(client("cargo", "Cargo", cargo, true, BOTH, SYSTEM));
    all
}

fn mended(mend: &str, name: &str) -> String {
    mend.replace("{unit}", &format!("{name}.service"))
}

fn python(script: &str) -> Vec<Client> {
    let packages = packages::install("runtimes-python", include_str!("requirements.txt"));
    let packages = packages.display().to_string();
    // Apart from the others, so that what is told of them is not about it.
    let apart = packages::install("runtimes-stripe", include_str!("requirements-stripe.txt"));
    let apart = apart.display().to_string();
    let client = |name: &'static str, arguments: &[&str], by: By, mend: &str| {
        let packages = if name == "stripe" { &apart } else { &packages };
        let command = ["/usr/bin/python3"].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        let package = match name {
            "aws" => "awscli",
            name => name,
        };
        let version = format!(
            "import importlib.metadata as m, sys; sys.path = ['{packages}']; print(m.version('{package}'))"
        );
        let version = match name {
            "urllib" => vec!["/usr/bin/python3".to_owned(), "--version".to_owned()],
            _ => vec!["/usr/bin/python3".to_owned(), "-c".to_owned(), version],
        };
        let environment = vec![
            ("PYTHONPATH", packages.clone()),
            ("AWS_ACCESS_KEY_ID", "none".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "none".to_owned()),
            ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
        ];
        let By { store: by_store, variables: by_variables } = by;
        let mend = mended(mend, name).replace("{packages}", packages);
        let (runtime, says_so) = ("Python 3.", !matches!(name, "aiohttp" | "grpcio"));
        Client { name, command, environment, runtime, says_so, by_store, by_variables, mend, version }
    };
    vec![
        client("urllib", &[script, "urllib", URL], BOTH, UNIT),
        client("requests", &[script, "requests", URL], VARIABLES, UNIT),
        client("httpx", &[script, "httpx", URL], VARIABLES, UNIT),
        client("aiohttp", &[script, "aiohttp", URL], BOTH, UNIT),
        client("urllib3", &[script, "urllib3", URL], BOTH, UNIT),
        client("boto3", &[script, "boto3", BASE], VARIABLES, UNIT),
        client("grpcio", &[script, "grpcio", URL], VARIABLES, UNIT),
        client("openai", &[script, "openai", BASE], BOTH, UNIT),
        client("anthropic", &[script, "anthropic", BASE], BOTH, UNIT),
        client("stripe", &[script, "stripe", URL], NEITHER, PATCHED),
        client("pip", &["-m", "pip", "download", "--no-deps", "--index-url", BASE, "x"], BOTH, UNIT),
        client("aws", &["-m", "awscli", "s3api", "list-buckets", "--endpoint-url", BASE], VARIABLES, UNIT),
    ]
}

fn node() -> Vec<Client> {
    let package = include_str!("package.json");
    let folder = packages::npm("runtimes-node", package, include_str!("package-lock.json"));
    // A module finds packages beside it only.
    let script = folder.join("client.mjs");
    fs::write(&script, include_str!("client.mjs")).unwrap();
    let script = script.display().to_string();
    let client = |name: &'static str, runtime, command: &[&str], says_so, mend: &str| Client {
        name,
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        environment: Vec::new(),
        runtime,
        says_so,
        by_store: VARIABLES.store,
        by_variables: VARIABLES.variables,
        mend: mended(mend, name),
        version: vec![command[0].to_owned(), "--version".to_owned()],
    };
    let (deno, bun) = match std::env::consts::ARCH {
        "x86_64" => ("@deno/linux-x64-glibc/deno", "@oven/bun-linux-x64/bin/bun"),
        _ => ("@deno/linux-arm64-glibc/deno", "@oven/bun-linux-aarch64/bin/bun"),
    };
    let program = |name: &str| folder.join("node_modules").join(name).display().to_string();
    let npm = program("npm/bin/npm-cli.js");
    let node = "/usr/bin/node";
    let registry = format!("--registry={BASE}/");
    // What the machine has set up for npm is no matter here.
    let (once, clean) = ("--fetch-retries=0", "--globalconfig=/dev/null");
    let mut clients = vec![
        client("node-https", "Node.js", &[node, &script, "https", URL], false, UNIT),
        client("node-fetch", "Node.js", &[node, &script, "fetch", URL], false, UNIT),
        client("undici", "Node.js", &[node, &script, "undici", URL], false, UNIT),
        client("axios", "Node.js", &[node, &script, "axios", URL], false, UNIT),
        client("npm", "npm", &[node, &npm, "view", "x", &registry, once, clean], false, UNIT),
        client("deno", "Deno", &[&program(deno), "run", "-A", &script, "fetch", URL], true, UNIT),
        client("bun", "Bun", &[&program(bun), &script, "fetch", URL], false, RESTARTED),
    ];
    for client in &mut clients {
        if matches!(client.name, "undici" | "axios") {
            let path = folder.join("node_modules").join(client.name).join("package.json");
            client.version = vec!["grep".to_owned(), "\"version\"".to_owned(), path.display().to_string()];
        }
        client.by_store |= client.name == "bun";
        if client.name == "npm" {
            client.version = vec![node.to_owned(), npm.clone(), "--version".to_owned()];
        }
    }
    clients
}

/// Where what is compiled goes.
struct Build(PathBuf);

impl Build {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runtimes-built");
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn run(&self, command: &mut Command) {
        let output = command.current_dir(&self.0).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn go(&self) -> String {
        fs::write(self.0.join("client.go"), include_str!("client.go")).unwrap();
        let mut go = Command::new("/usr/bin/go");
        go.args(["build", "-o", "go-client", "client.go"])
            .env("GOCACHE", self.0.join("cache"))
            .env("GOFLAGS", "-mod=mod");
        self.run(&mut go);
        self.0.join("go-client").display().to_string()
    }

    fn java(&self) -> String {
        fs::write(self.0.join("Client.java"), include_str!("Client.java")).unwrap();
        self.run(Command::new("/usr/bin/javac").arg("Client.java"));
        self.0.display().to_string()
    }
}
