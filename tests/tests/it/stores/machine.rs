//! A host for a test of trust stores: `/etc`, `/usr` and `/var` of this one, with changes that it alone sees.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

/// Mount and network namespaces, held by a shell until this is dropped.
pub(super) struct Machine {
    dir: tempfile::TempDir,
    holder: Child,
}

/// Overlays, so that nothing of the host is written; without /run, so that its systemd is not spoken to.
const MAKE: &str = "set -e
mount --make-rprivate /
for name in etc usr var; do
    mkdir -p $1/up/$name $1/work/$name
    mount -t overlay overlay -o lowerdir=/$name,upperdir=$1/up/$name,workdir=$1/work/$name /$name
done
mount -t tmpfs tmpfs /run
ip link set lo up
# What somebody put there by hand is as the tool makes it, before anything is compared.
update-ca-certificates >/dev/null 2>&1
echo '127.0.0.1 localhost' >/etc/hosts
echo '127.0.0.1 api.demo.test' >>/etc/hosts
echo ready
read -r _";

/// A root of a CA, and what it signs.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        Self::until(name, OffsetDateTime::now_utc() + Duration::days(30))
    }

    pub(super) fn until(name: &str, end: OffsetDateTime) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
        params.not_after = end;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem().replace('\r', "");
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server's certificate and key, for `api.demo.test`.
    fn server(&self) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["api.demo.test".to_owned()]).unwrap();
        // Others of the same subject are told apart by it.
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        leaf.pem() + &key.serialize_pem()
    }
}

/// How a command ended.
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ended {
    #[track_caller]
    pub(super) fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    pub(super) fn failed_with(self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{}\n{}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "{word} is not in {}\n{}", self.err, self.out);
        }
    }
}

impl Machine {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--", "bash", "-c", MAKE, "bash"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the namespaces were not made");
        let machine = Self { dir, holder };
        fs::create_dir_all(machine.at("state/ca")).unwrap();
        fs::set_permissions(machine.at("state"), fs::Permissions::from_mode(0o700)).unwrap();
        let state = machine.at("state");
        fs::write(machine.at("vouchsafe.toml"), format!("state = \"{}\"\n", state.display())).unwrap();
        machine
    }

    /// A path that the machine and the test both see.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes these the living roots of the CA, as the daemon does.
    pub(super) fn roots(&self, authorities: &[&Authority]) {
        let text: String = authorities.iter().map(|authority| authority.pem.as_str()).collect();
        let (path, new) = (self.at("state/ca/ca.pem"), self.at("state/ca/new"));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// A command on the machine, without variables of ours.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount", "--net", "--", "env", "-i"]);
        command.args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", program]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(super) fn shell(&self, script: &str) -> Ended {
        self.command("bash").args(["-c", script]).output().unwrap().into()
    }

    /// `vouchsafe trust …`, not started yet.
    pub(super) fn trust(&self, arguments: &str) -> Command {
        let mut command = self.command(tests::daemon_binary().to_str().unwrap());
        command
            .arg("trust")
            .args(arguments.split_whitespace())
            .arg("--config")
            .arg(self.at("vouchsafe.toml"));
        command
    }

    pub(super) fn run(&self, arguments: &str) -> Ended {
        self.trust(arguments).output().unwrap().into()
    }

    /// Everything in these folders: kinds, modes, owners, where links lead, contents. Java's store is another file each
    /// time that it is made; it is compared by its aliases.
    pub(super) fn tree(&self, folders: &str) -> BTreeSet<String> {
        self.shell(&format!(
            "find {folders} -path /etc/ssl/certs/java -prune -o -printf '%p %y %m %U:%G %l\\n' | sort; \
             find {folders} -path /etc/ssl/certs/java -prune -o -type f -print0 | sort -z | xargs -0r sha256sum"
        ))
        .well()
        .lines()
        .map(str::to_owned)
        .collect()
    }

    /// Aliases in a keystore.
    pub(super) fn aliases(&self, keystore: &str) -> String {
        self.shell(&format!(
            "keytool -list -keystore {keystore} -storepass changeit | grep trustedCertEntry | cut -d, -f1 | sort"
        ))
        .well()
    }

    /// A server of this authority at https://api.demo.test; it serves until it is dropped.
    pub(super) fn serve(&self, authority: &Authority) -> Server {
        fs::write(self.at("server.pem"), authority.server()).unwrap();
        let mut server = self.command("openssl");
        server.args(["s_server", "-accept", "443", "-www", "-cert"]).arg(self.at("server.pem"));
        let mut server = server.spawn().unwrap();
        let mut out = BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ACCEPT") {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "the server does not start");
        }
        Server(server, out)
    }
}

/// `openssl s_server`, with what it goes on to say.
pub(super) struct Server(
    Child,
    #[expect(dead_code, reason = "it must not be closed")] BufReader<std::process::ChildStdout>,
);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its input ends, and with it the namespaces.
        drop(self.holder.stdin.take());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The number of certificates in a file.
pub(super) fn certificates(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().matches("BEGIN CERTIFICATE").count()
}

/// Both trees are the same; else only what differs is shown.
#[track_caller]
pub(super) fn same(now: &BTreeSet<String>, before: &BTreeSet<String>, why: &str) {
    let lines = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
        one.difference(other).cloned().collect::<Vec<_>>().join("\n")
    };
    let (new, gone) = (lines(now, before), lines(before, now));
    assert!(new.is_empty() && gone.is_empty(), "{why}\nnow:\n{new}\nbefore:\n{gone}");
}
