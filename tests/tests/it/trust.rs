//! What bots are shown: by whom it is signed, who accepts it, and what somebody who took the keys could do.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tests::{Finished, Running, World, finish, wait_until};

/// A bot that reads what it trusts once, at its start, as most long-running programs do; then it calls what it is told to.
const LOYAL: &str = r#"
import http.client, ssl, sys
context = ssl.create_default_context()
print("ready", flush=True)
for line in sys.stdin:
    host, path = line.split()
    try:
        connection = http.client.HTTPSConnection(host, context=context, timeout=10)
        connection.request("GET", path)
        print(connection.getresponse().status, flush=True)
    except ssl.SSLCertVerificationError as error:
        print("untrusted", error.verify_message, flush=True)
"#;

struct Loyal(Running);

impl Loyal {
    fn start(world: &World) -> Self {
        let mut running = world.bot("python3").args(["-c", LOYAL]).spawn();
        assert_eq!(running.line(), "ready");
        Self(running)
    }

    fn call(&mut self, host: &str) -> String {
        self.0.say(&format!("{host} /v1/x"));
        self.0.line()
    }
}

/// Lets the bots of a world call `other.test` as well.
fn also_other(world: &World, generation: u64) {
    let apis = fs::read_to_string(world.path("etc/apis/apis.toml")).unwrap();
    world.policy("apis/apis.toml", &apis.replace("\"raw.test\"", "\"raw.test\", \"other.test\""));
    world.wait_for_generation(generation);
}

fn generations(world: &World) -> Vec<String> {
    let ca = fs::read_dir(world.path("state/ca")).unwrap();
    let mut names: Vec<_> = ca.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with('g'));
    names.sort();
    names
}

#[test]
fn a_new_host_is_trusted_by_who_starts_later_and_running_programs_go_on_with_the_others() {
    let world = World::start();
    let mut before = Loyal::start(&world);
    assert_eq!(before.call("api.test"), "200");
    let old = fs::read_to_string(world.path("bots.pem")).unwrap();
    also_other(&world, 2);
    assert_eq!(generations(&world), ["g0001", "g0002"]);
    let record = world.record("ca", |record| record["generation"] == 2);
    assert!(record["by"].is_null() && record["reason"].as_str().unwrap().contains("hosts"), "{record}");
    assert_ne!(fs::read_to_string(world.path("bots.pem")).unwrap(), old);

    let mut after = Loyal::start(&world);
    assert_eq!([after.call("api.test"), after.call("other.test")], ["200", "200"]);
    assert_eq!(before.call("api.test"), "200", "nothing changed for who was there before");
    let refused = before.call("other.test");
    assert!(refused.starts_with("untrusted"), "it cannot know the new root: {refused}");
    for url in ["https://api.test/v1/x", "https://other.test/v1/x"] {
        let answer = world.curl(&[url]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn nobody_sees_a_rotation_and_one_that_ends_the_others_at_once_is_seen_by_who_was_there() {
    let world = World::start();
    let mut before = Loyal::start(&world);
    assert_eq!(before.call("api.test"), "200");
    let planned = world.vouchsafe(&["ca", "rotate", "--dry-run"]);
    assert!(planned.stdout.contains("would make generation 2"), "{planned:?}");
    assert_eq!(generations(&world), ["g0001"]);
    let rotated = world.vouchsafe(&["ca", "rotate"]);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    assert!(rotated.stdout.contains("generation 1 goes on until"), "{rotated:?}");
    let record = world.record("ca", |record| record["generation"] == 2);
    assert_eq!((&record["by"]["uid"], &record["former"]), (&0.into(), &json!([1])), "{record}");
    assert_eq!(before.call("api.test"), "200", "who was there before");
    world.trust();
    assert_eq!(Loyal::start(&world).call("api.test"), "200", "who comes after");

    let at_once = world.vouchsafe(&["ca", "rotate", "--at-once"]);
    assert_eq!(at_once.code, Some(0), "{at_once:?}");
    assert_eq!(generations(&world), ["g0003"]);
    let refused = before.call("api.test");
    assert!(refused.starts_with("untrusted"), "{refused}");
    world.trust();
    assert_eq!(Loyal::start(&world).call("api.test"), "200");
    let shown = world.vouchsafe(&["ca", "show"]);
    assert!(
        shown.stdout.contains("generation   3 (newest)") && !shown.stdout.contains("former"),
        "{shown:?}"
    );
    let status = world.status();
    assert_eq!((&status["ca"]["generation"], &status["ca"]["former"]), (&Value::from(3), &Value::from(0)));
}

#[test]
fn a_policy_whose_hosts_cannot_be_certified_is_refused_and_the_old_trust_goes_on() {
    let world = World::start();
    // Nothing can be put in its place.
    fs::create_dir_all(world.path("state/ca/g0002/in-the-way")).unwrap();
    world.policy("apis/other.toml", "[api.other]\nhosts = [\"other.test\"]\n");
    let refused = world.reload();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("state/ca/g0002"), "{refused:?}");
    assert_eq!(world.status()["policy"]["generation"], 1);
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    fs::remove_dir_all(world.path("state/ca/g0002")).unwrap();
    assert_eq!(world.reload().code, Some(0));
    assert_eq!(generations(&world), ["g0001", "g0002"]);
}

/// A disk of its own for the CA, as small as given; gone when dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn of(world: &World, size: &str) -> Self {
        let place = world.path("state/ca");
        fs::create_dir_all(&place).unwrap();
        let option = format!("size={size},mode=0755");
        let mounted = finish(Command::new("mount").args(["-t", "tmpfs", "-o", &option, "ca"]).arg(&place));
        assert_eq!(mounted.code, Some(0), "{mounted:?}");
        Self(place)
    }

    /// Leaves no room for a byte more.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_a_policy_that_needs_a_new_ca_is_refused_and_calls_go_on() {
    let world = World::new();
    let disk = Disk::of(&world, "256k");
    world.daemon();
    disk.fill();
    let roots = fs::read_to_string(world.path("state/ca/ca.pem")).unwrap();
    let apis = fs::read_to_string(world.path("etc/apis/apis.toml")).unwrap();
    world.policy("apis/apis.toml", &apis.replace("\"raw.test\"", "\"raw.test\", \"other.test\""));
    let refused = world.reload();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("No space left") && refused.stderr.contains("state/ca"), "{refused:?}");
    let asked = world.vouchsafe(&["ca", "rotate"]);
    assert!(asked.code == Some(1) && asked.stderr.contains("No space left"), "{asked:?}");
    assert_eq!(generations(&world), ["g0001"]);
    assert_eq!(fs::read_to_string(world.path("state/ca/ca.pem")).unwrap(), roots);
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    // The daemon sees the changed file by itself as well, and may just now try again.
    wait_until("a place without what was begun", || {
        let mut left = fs::read_dir(world.path("state/ca")).unwrap().map(|entry| entry.unwrap().file_name());
        left.all(|name| !name.to_string_lossy().starts_with(".new-")).then_some(())
    });
    fs::remove_file(world.path("state/ca/filler")).unwrap();
    assert_eq!(world.reload().code, Some(0));
    assert_eq!(world.curl(&["https://other.test/v1/x"]).status, 200);
    assert_eq!(world.terminate(), Some(0));
}

#[test]
fn a_daemon_killed_at_any_moment_of_a_rotation_has_a_whole_ca_afterwards() {
    let world = World::start();
    let mut before = Loyal::start(&world);
    assert_eq!(before.call("api.test"), "200");
    for pause in [0, 20, 60, 120, 180, 250, 350] {
        let mut rotating = world.vouchsafe_command(&["ca", "rotate"]);
        let silent = std::process::Stdio::null;
        let mut rotating = rotating.stdout(silent()).stderr(silent()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        world.kill9();
        rotating.wait().unwrap();
        world.daemon();
        assert_eq!(before.call("api.test"), "200", "after {pause} ms");
        assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200, "after {pause} ms");
        let roots = fs::read_to_string(world.path("state/ca/ca.pem")).unwrap();
        assert_eq!(roots.matches("BEGIN CERTIFICATE").count(), 2 * generations(&world).len());
    }
}

#[test]
fn a_client_that_verifies_rsa_alone_gets_a_chain_of_rsa_alone() {
    let world = World::new();
    world.identity("openssl", "exe = \"/usr/bin/openssl\"");
    world.daemon();
    let old = ["--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"];
    let answer = world.curl(&[&old[..], &["https://api.test/v1/x"]].concat());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["key"], "ours");

    // In TLS 1.3 suites say nothing about it, the list of signatures does.
    let shown = |signatures: &str| {
        let connect = ["-connect", "api.test:443", "-servername", "api.test", "-verify_return_error"];
        let roots = world.path("bots.pem");
        let more = ["-CAfile", roots.to_str().unwrap(), "-sigalgs", signatures, "-showcerts"];
        world.bot("/usr/bin/openssl").arg("s_client").args(connect).args(more).run().stdout
    };
    let rsa = shown("RSA-PSS+SHA256:RSA+SHA256");
    assert!(rsa.contains("Verify return code: 0") && rsa.contains("a:PKEY: rsaEncryption, 2048"), "{rsa}");
    assert!(!rsa.contains("id-ecPublicKey"), "no certificate that it cannot verify: {rsa}");
    let both = shown("ECDSA+SHA256:RSA-PSS+SHA256:RSA+SHA256");
    assert!(both.contains("Verify return code: 0") && both.contains("id-ecPublicKey, 256"), "{both}");
}

/// A server on this host that proves itself with what a thief made of the CA's key.
fn stolen(world: &World, name: &str, alternative: &str, port: u16) {
    let generation = world.path("state/ca/g0001");
    let script = format!(
        "openssl req -new -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN=thief 2>/dev/null\n\
         printf 'subjectAltName={alternative}\\nextendedKeyUsage=serverAuth\\n' >{name}.ext\n\
         openssl x509 -req -in {name}.csr -CA {ca}/ecdsa.pem -CAkey {ca}/ecdsa.key -CAcreateserial -CAserial {name}.srl \
             -days 1 -extfile {name}.ext -out {name}.pem 2>/dev/null\n",
        ca = generation.display(),
    );
    let made = Command::new("sh").args(["-ec", &script]).current_dir(world.path("")).status().unwrap();
    assert!(made.success());
    let (accept, file) = (format!("127.0.0.1:{port}"), |end: &str| format!("{name}.{end}"));
    let issuer = world.path("state/ca/g0001/ecdsa.pem");
    let arguments =
        ["s_server", "-accept", &accept, "-cert", &file("pem"), "-key", &file("key"), "-www", "-cert_chain"];
    world.server(name, "openssl", &[&arguments[..], &[issuer.to_str().unwrap()]].concat(), &accept);
}

/// A client in Java, and a store of its own with these roots.
fn java_trusts(world: &World, roots: &str) {
    world.write(
        "Call.java",
        "class Call { public static void main(String[] urls) throws Exception { \
            System.out.println(((javax.net.ssl.HttpsURLConnection) new java.net.URL(urls[0]).openConnection()).getResponseCode()); } }",
    );
    java_store(world, roots);
}

/// A store for Java with these roots: `java.p12`, under the password that all have.
pub(super) fn java_store(world: &World, roots: &str) {
    for (at, root) in roots_of(roots).into_iter().enumerate() {
        let file = world.write("root.pem", &root);
        let mut keytool = Command::new("keytool");
        keytool.args([
            "-importcert",
            "-noprompt",
            "-storetype",
            "PKCS12",
            "-storepass",
            "changeit",
            "-keystore",
        ]);
        keytool.arg(world.path("java.p12")).args(["-alias", &at.to_string(), "-file"]).arg(file);
        let imported = finish(&mut keytool);
        assert_eq!(imported.code, Some(0), "{imported:?}");
    }
}

/// Each certificate of a file.
fn roots_of(file: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let text = fs::read_to_string(file).unwrap();
    text.split_inclusive(END).map(str::to_owned).filter(|one| one.ends_with(END)).collect()
}

#[test]
fn who_took_the_cas_keys_can_be_no_host_that_no_policy_names() {
    let world = World::start();
    stolen(&world, "governed", "DNS:api.test", 8001);
    stolen(&world, "foreign", "DNS:bank.test", 8002);
    stolen(&world, "address", "IP:127.0.0.1", 8003);
    let roots = fs::read_to_string(world.path("state/ca/ca.pem")).unwrap();
    let roots = world.write("roots.pem", &roots);
    let roots = roots.to_str().unwrap();

    let python = "import socket, ssl, sys\n\
        context = ssl.create_default_context(cafile=sys.argv[1])\n\
        context.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[3]))), server_hostname=sys.argv[2])";
    let node = "const [roots, host, port] = process.argv.slice(1);\n\
        const ca = require('fs').readFileSync(roots);\n\
        require('tls').connect({ host: '127.0.0.1', port: +port, servername: host, ca,\n\
            checkServerIdentity: (_, certificate) => require('tls').checkServerIdentity(host, certificate) },\n\
            () => process.exit(0)).on('error', () => process.exit(1));";
    let run = |command: &[&str]| -> Finished {
        finish(world.enter(None).args(["env", "-i", "PATH=/usr/bin:/bin"]).args(command))
    };
    // Java heeds no constraint of what it trusts: what holds there are the issuers'.
    java_trusts(&world, roots);
    world.write("hosts.java", "127.0.0.1 api.test bank.test\n");
    for (name, port, host, accepted) in [
        ("governed", "8001", "api.test", true),
        ("foreign", "8002", "bank.test", false),
        ("address", "8003", "127.0.0.1", false),
    ] {
        let resolve = format!("{host}:{port}:127.0.0.1");
        let url = format!("https://{host}:{port}/");
        let connect = format!("127.0.0.1:{port}");
        let name_option = if host == "127.0.0.1" { "-verify_ip" } else { "-verify_hostname" };
        let [store, hosts] = ["java.p12", "hosts.java"].map(|file| world.path(file));
        let store = format!("-Djavax.net.ssl.trustStore={}", store.display());
        let hosts = format!("-Djdk.net.hosts.file={}", hosts.display());
        let source = world.path("Call.java");
        let clients: [(&str, &[&str]); 5] = [
            (
                "java",
                &[
                    "java",
                    &store,
                    "-Djavax.net.ssl.trustStorePassword=changeit",
                    &hosts,
                    source.to_str().unwrap(),
                    &url,
                ],
            ),
            ("curl", &["curl", "-sS", "-m", "10", "--cacert", roots, "--resolve", &resolve, &url]),
            ("python", &["python3", "-c", python, roots, host, port]),
            ("node", &["node", "-e", node, roots, host, port]),
            (
                "openssl",
                &[
                    "openssl",
                    "s_client",
                    "-connect",
                    &connect,
                    "-CAfile",
                    roots,
                    "-verify_return_error",
                    name_option,
                    host,
                ],
            ),
        ];
        for (client, command) in clients {
            let finished = run(command);
            assert_eq!(finished.code == Some(0), accepted, "{client} at {name}: {finished:?}");
        }
    }
}
