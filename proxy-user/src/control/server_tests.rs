//! The control socket through real sockets, real processes and real users.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream as Client;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::super::status::tests::healthy;
use super::super::{ReloadReport, SecretsReport, Status};
use proxy_journal::Person;

use super::*;

#[derive(Default)]
struct Daemon {
    reloads: AtomicU64,
}

impl Handler for Daemon {
    fn status(&self) -> Status {
        healthy()
    }

    fn reload(&self, _: Option<Person>) -> Result<ReloadReport, Failure> {
        let generation = self.reloads.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(ReloadReport { generation, changed: true, identities: 1, warnings: Vec::new() })
    }

    fn reload_secrets(&self, _: Option<Person>) -> Result<SecretsReport, Failure> {
        Err(Failure::new("secrets", "the store is damaged", "put it back"))
    }

    fn other(
        &self,
        _: Peer,
        command: &str,
        arguments: &Map<String, Value>,
    ) -> Option<Result<Value, Failure>> {
        match command {
            "echo" => Some(Ok(Value::Object(arguments.clone()))),
            "fail" => panic!("on purpose"),
            _ => None,
        }
    }
}

/// A served socket that anybody may connect to, so that what is tested is the check of the peer.
struct Served {
    _directory: tempfile::TempDir,
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

fn open_directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

impl Served {
    fn new(group: Option<&str>, idle: Duration) -> Self {
        let directory = open_directory();
        let path = directory.path().join("control.sock");
        let mut control = Control::bind(&path, group).unwrap();
        control.idle = idle;
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = control.serve(Arc::new(Daemon::default()), async move { drop(stopped.await) });
        Self { _directory: directory, path, stop: Some(stop), task: tokio::spawn(serving) }
    }

    fn connect(&self) -> Client {
        let client = Client::connect(&self.path).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }

    async fn ask(&self, bytes: impl AsRef<[u8]> + Send + 'static) -> Value {
        let client = self.connect();
        spawn_blocking(move || {
            let mut reader = BufReader::new(client.try_clone().unwrap());
            // A peer that was turned away may have closed already.
            drop((&client).write_all(bytes.as_ref()));
            read_reply(&mut reader)
        })
        .await
        .unwrap()
    }
}

fn read_reply(reader: &mut impl BufRead) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn code(reply: &Value) -> &str {
    reply["error"]["code"].as_str().unwrap_or("none")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_gets_its_reply_in_turn_on_one_connection() {
    let served = Served::new(None, IDLE);
    let client = served.connect();
    spawn_blocking(move || {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let mut ask = |line: &str| {
            writeln!(&client, "{line}").unwrap();
            read_reply(&mut reader)
        };
        assert_eq!(ask(r#"{"command":"ping"}"#), json!({"ok": true, "result": "pong"}));
        assert_eq!(ask(r#"{"command":"status"}"#)["result"]["pid"], healthy().pid);
        assert_eq!(ask(r#"{"command":"reload"}"#)["result"]["generation"], 1);
        assert_eq!(ask(r#"{"command":"reload"}"#)["result"]["generation"], 2);
        assert_eq!(ask(r#"{"command":"reload-secrets"}"#)["error"]["message"], "the store is damaged");
        assert_eq!(ask(r#"{"command":"echo","x":[1]}"#)["result"], json!({"x": [1]}));
        assert_eq!(code(&ask(r#"{"command":"halt"}"#)), "unknown-command");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_answered_and_the_connection_goes_on() {
    let served = Served::new(None, IDLE);
    let client = served.connect();
    spawn_blocking(move || {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        for line in ["", "status", "[]", "{}", r#"{"command":1}"#, "{\"command\":\"ping\"", "\u{1}\u{0}"] {
            writeln!(&client, "{line}").unwrap();
            assert_eq!(code(&read_reply(&mut reader)), "not-understood", "{line}");
        }
        (&client).write_all(b"\xff\xfe\n{\"command\":\"ping\"}\n").unwrap();
        assert_eq!(code(&read_reply(&mut reader)), "not-understood");
        assert_eq!(read_reply(&mut reader)["result"], "pong");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_line_without_its_end_is_answered_too() {
    let served = Served::new(None, IDLE);
    let client = served.connect();
    spawn_blocking(move || {
        (&client).write_all(br#"{"command":"ping"}"#).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = String::new();
        (&client).read_to_string(&mut all).unwrap();
        assert_eq!(all.lines().count(), 1);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_long_is_refused() {
    let served = Served::new(None, IDLE);
    assert_eq!(code(&served.ask(vec![b' '; MAX_REQUEST_BYTES]).await), "too-long");
    let mut longest = br#"{"command":"ping"}"#.to_vec();
    longest.resize(MAX_REQUEST_BYTES - 1, b' ');
    longest.push(b'\n');
    assert_eq!(served.ask(longest).await["result"], "pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_nothing_is_let_go() {
    let served = Served::new(None, Duration::from_millis(20));
    assert_eq!(code(&served.ask("").await), "idle");
    assert_eq!(code(&served.ask("{\"comm").await), "idle");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_panics_does_not_take_the_daemon_with_it() {
    let served = Served::new(None, IDLE);
    assert_eq!(code(&served.ask("{\"command\":\"fail\"}\n").await), "internal");
    assert_eq!(served.ask("{\"command\":\"ping\"}\n").await["result"], "pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_after_the_last_one_allowed_is_turned_away() {
    let served = Served::new(None, IDLE);
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let client = served.connect();
        let client = spawn_blocking(move || {
            (&client).write_all(b"{\"command\":\"ping\"}\n").unwrap();
            let mut byte = [0];
            (&client).read_exact(&mut byte).unwrap();
            client
        });
        open.push(client.await.unwrap());
    }
    assert_eq!(code(&served.ask("").await), "busy");
    // Each that ends makes room, however many there were.
    drop(open);
    for _ in 0..2 * MAX_CONNECTIONS {
        while code(&served.ask("{\"command\":\"ping\"}\n").await) == "busy" {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let served = Served::new(None, IDLE);
    let error = Control::bind(&served.path, None).unwrap_err();
    assert!(matches!(error, ControlError::AlreadyRunning { .. }), "{error}");
    // Also one that does not hold our lock.
    fs::remove_file(served.path.with_extension("lock")).unwrap();
    let error = Control::bind(&served.path, None).unwrap_err();
    assert!(matches!(error, ControlError::AlreadyRunning { .. }), "{error}");
    assert_eq!(served.ask("{\"command\":\"ping\"}\n").await["result"], "pong");
}

#[tokio::test]
async fn a_socket_that_a_killed_daemon_left_is_replaced() {
    let directory = open_directory();
    let path = directory.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let control = Control::bind(&path, None).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    drop(control);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_socket_belongs_to_its_group() {
    let directory = open_directory();
    let control = Control::bind(&directory.path().join("control.sock"), Some("daemon")).unwrap();
    let group = nix::unistd::Group::from_name("daemon").unwrap().unwrap();
    assert_eq!(fs::metadata(control.path()).unwrap().gid(), group.gid.as_raw());
}

#[tokio::test]
async fn a_socket_that_somebody_else_bound_in_place_of_ours_is_not_removed() {
    let directory = open_directory();
    let path = directory.path().join("control.sock");
    let control = Control::bind(&path, None).unwrap();
    fs::rename(&path, directory.path().join("moved.sock")).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(control);
    assert!(path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let directory = open_directory();
    let path = directory.path().join("control.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(Control::bind(&path, None), Err(ControlError::NotASocket { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_missing_runtime_directory_is_named() {
    let error = Control::bind(Path::new("/nonexistent/vouchsafe/control.sock"), None).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/vouchsafe"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_closes_open_connections_and_removes_the_socket() {
    let mut served = Served::new(None, IDLE);
    let client = served.connect();
    served.stop.take().unwrap().send(()).unwrap();
    (&mut served.task).await.unwrap();
    assert!(!served.path.exists());
    let rest = spawn_blocking(move || (&client).read(&mut [0; 1])).await.unwrap();
    assert!(!matches!(rest, Ok(1..)), "{rest:?}");
}

#[tokio::test]
async fn a_group_that_does_not_exist_leaves_the_socket_to_root() {
    let directory = open_directory();
    let control = Control::bind(&directory.path().join("control.sock"), Some("no-such-group")).unwrap();
    assert_eq!(control.access.missing_group(), Some("no-such-group"));
}

/// Asks the socket for a ping from a process of another user. `groups` is an option of setpriv(1).
async fn ask_as_nobody(served: &Served, gid: &str, groups: &str) -> String {
    assert!(nix::unistd::geteuid().is_root(), "this test switches users and needs root");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", &format!("--regid={gid}"), groups, "--", "/usr/bin/python3"]);
    command.args(["-c", ASK]).arg(&served.path).stdin(Stdio::null());
    let output = spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let reply = text.lines().find_map(|line| line.split_once("reply: "));
    reply
        .unwrap_or_else(|| panic!("no reply: {text} {}", String::from_utf8_lossy(&output.stderr)))
        .1
        .to_owned()
}

/// Another program, as another user: it may not need anything of this build's folder.
const ASK: &str = r#"
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
try:
    client.sendall(b'{"command":"ping"}\n')
except OSError:
    pass
print("reply: " + client.makefile().readline())
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_refused_with_a_reason_even_when_the_mode_of_the_socket_lets_it_in() {
    let served = Served::new(Some("daemon"), IDLE);
    let reply = ask_as_nobody(&served, "65534", "--clear-groups").await;
    assert!(reply.contains("\"not-allowed\"") && reply.contains("join the group daemon"), "{reply}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_the_group_is_admitted_by_primary_and_by_supplementary_group() {
    let served = Served::new(Some("daemon"), IDLE);
    let gid = nix::unistd::Group::from_name("daemon").unwrap().unwrap().gid.to_string();
    assert!(ask_as_nobody(&served, &gid, "--clear-groups").await.contains("pong"));
    assert!(ask_as_nobody(&served, "65534", &format!("--groups={gid}")).await.contains("pong"));
}
