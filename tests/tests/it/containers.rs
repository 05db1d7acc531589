//! Containers of a real Podman: who they are, and who only says so.

use std::fs;
use std::os::unix::fs::chown;
use std::time::Instant;

use serde_json::Value;
use tests::{Podman, Running, World, wait_until};

const PLAIN: &str = "203.0.113.10:80";

/// A world that knows where Podman's files are, with identities for containers alone, before the daemon starts.
fn prepared() -> World {
    let world = World::new();
    world.without_identities();
    world.set("containers.podman", &format!("\"{}\"", world.path("storage").display()));
    world.set("containers.podman_run", &format!("\"{}\"", world.path("run-storage").display()));
    world.identity("web", "container = \"podman:web-*\"");
    world.identity("db", "container = \"podman:db\"");
    world
}

fn world() -> World {
    let world = prepared();
    world.daemon();
    world
}

fn curl(url: &str) -> [&str; 9] {
    ["-sS", "--cacert", "/bots.pem", "-m", "15", "-w", " %{http_code}", "--", url]
}

/// The directory of the cgroup of the only container that runs, and the id that its name has.
fn cgroup_of_container(world: &World) -> (std::path::PathBuf, String) {
    let mut found = fs::read_dir(world.governed().join("bots")).unwrap().flatten().filter_map(|entry| {
        let id = entry.file_name().to_str()?.strip_prefix("libpod-")?.to_owned();
        (id.len() == 64).then(|| (entry.path(), id))
    });
    found.next().expect("no container runs")
}

#[track_caller]
fn waiting(mut process: Running) -> Running {
    assert_eq!(process.line(), "waiting");
    process
}

#[test]
fn a_container_calls_its_api_from_a_network_of_its_own_and_the_journal_says_which_it_is() {
    let world = world();
    let podman = Podman::new(&world);
    let told = podman.run("web-1", "/bots/curl", &curl("https://api.test/v1/box"));
    assert!(told.stdout.contains("\"ours\"") && told.stdout.ends_with(" 200"), "{told:?}");
    let record = world.decision(Some("/v1/box"));
    assert_eq!((&record["identity"], &record["credential"]), (&"web".into(), &"demo-key".into()));
    let container = &record["workload"]["container"];
    assert_eq!(
        (&container["runtime"], &container["name"]),
        (&"podman".into(), &"web-1".into()),
        "{container}"
    );
    assert_eq!(container["image"], "localhost/box:1");
    assert_eq!(container.get("claimed_by"), None);
    let id = container["id"].as_str().unwrap();
    let path = record["workload"]["cgroup_path"].as_str().unwrap();
    assert!(id.len() == 64 && path.contains(id), "{id} {path}");
    assert!(record["workload"]["mntns"].as_u64().unwrap() > 0);

    // What the policy does not grant is refused inside as outside.
    let told = podman.run("web-2", "/bots/curl", &curl("https://api.test/v2/beyond"));
    assert!(told.stdout.ends_with(" 403"), "{told:?}");
    let beyond = world.decision(Some("/v2/beyond"));
    assert_eq!((&beyond["identity"], &beyond["verdict"]), (&"web".into(), &"deny".into()));
    assert_eq!(beyond["workload"]["container"]["name"], "web-2");
    assert_ne!(beyond["workload"]["netns"], record["workload"]["netns"]);

    // By another name it is somebody else, or nobody.
    let told = podman.run("db", "/bots/curl", &curl("https://api.test/v1/db"));
    assert!(told.stdout.ends_with(" 200"), "{told:?}");
    assert_eq!(world.decision(Some("/v1/db"))["identity"], "db");
    let told = podman.run("db-2", "/bots/curl", &curl("https://api.test/v1/stranger"));
    assert!(told.stdout.ends_with(" 403"), "{told:?}");
    let stranger = world.decision(Some("/v1/stranger"));
    assert_eq!((&stranger["identity"], &stranger["verdict"]), (&Value::Null, &"deny".into()));
    assert_eq!(stranger["workload"]["container"]["name"], "db-2");
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));
}

#[test]
fn a_user_who_calls_his_cgroup_like_a_container_of_roots_is_not_that_container() {
    let world = world();
    let podman = Podman::new(&world);
    let mut real = waiting(podman.spawn("web-1", "/bots/actor", &["wait", PLAIN, "/v1/real"]));
    let (_, id) = cgroup_of_container(&world);
    // As systemd does with Delegate= and User=: what is below belongs to the user, names included.
    let delegated = world.governed().join("bot.service");
    fs::create_dir(&delegated).unwrap();
    chown(&delegated, Some(4242), Some(4242)).unwrap();
    let cgroup = format!("bot.service/libpod-{id}");
    let fake = world.bot("actor").user(4242, 4242).cgroup(&cgroup).args(["get", PLAIN, "/v1/fake"]).run();
    assert!(fake.stdout.starts_with("HTTP/1.1 403"), "{fake:?}");
    let record = world.decision(Some("/v1/fake"));
    assert_eq!(
        (&record["identity"], &record["workload"]["container"]["id"]),
        (&Value::Null, &id.as_str().into())
    );
    assert_eq!(record["workload"]["container"]["claimed_by"], "uid 4242");
    assert_eq!(record["workload"]["container"].get("name"), None, "root's files say nothing of it");
    real.say("go");
    assert!(real.rest().contains("200 OK"));
    assert_eq!(world.decision(Some("/v1/real"))["identity"], "web");
}

#[test]
fn an_executable_in_a_container_is_the_file_that_the_host_sees_and_who_shows_it() {
    // The overlay's merged folder is mounted where this test's Podman runs, and not where the daemon looks.
    for (driver, by_outer_path) in [("vfs", true), ("overlay", false)] {
        executable(driver, by_outer_path);
    }
}

fn executable(driver: &'static str, by_outer_path: bool) {
    let world = prepared();
    let podman = Podman::with_driver(&world, driver);
    let content = sha256(&fs::read(world.path("bots/actor")).unwrap());
    world.identity("by-content", &format!("sha256 = \"{content}\"\ncontainer = \"podman:box\""));
    world.identity("by-inner-path", "exe = \"/bots/actor\"\ncontainer = \"podman:box\"");
    world.identity(
        "by-outer-path",
        "exe = \"{root}/storage/vfs/dir/*/bots/actor\"\ncontainer = \"podman:box\"",
    );
    world.identity("by-copy", "exe = \"{root}/bots/actor\"\ncontainer = \"podman:box\"");
    world.daemon();
    let _box = waiting(podman.spawn("box", "/bots/actor", &["wait", PLAIN, "/v1/box"]));
    let (cgroup, id) = cgroup_of_container(&world);
    let pid = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().lines().next().unwrap().to_owned();
    let told = world.vouchsafe(&["who", "--json", &pid]);
    let report: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{told:?}"));
    let process = &report["processes"][0];
    assert_eq!((&process["container"]["id"], &process["container"]["name"]), (&id.into(), &"box".into()));
    assert_eq!(process["exe"], "/bots/actor", "as the container sees it: a label");
    let holds = |name: &str| {
        let identities = process["identities"].as_array().unwrap();
        identities.iter().find(|identity| identity["name"] == name).unwrap()["holds"].clone()
    };
    assert_eq!(
        ["by-content", "by-inner-path", "by-outer-path", "by-copy"].map(holds),
        [true, false, by_outer_path, false].map(Value::from),
        "{driver}: {process:#}"
    );
    let page = world.vouchsafe(&["who", &pid]).stdout;
    assert!(
        page.contains("container   podman box (") && page.contains("image       localhost/box:1\n"),
        "{page}"
    );
}

/// The name is written down by the runtime; here after the first packet of the container.
#[test]
fn a_container_that_its_runtime_has_not_written_down_yet_is_nobody_until_it_is_and_the_kernel_learns_it() {
    let world = prepared();
    let id = "58a2abcda25edca2ef835ed25e8318891e1745da1bcbdc6b5d62ae023d589fbc";
    world.policy(
        "policies/late.toml",
        "[identity]\ncontainer = \"podman:late\"\n[[grant]]\nnetwork = [\"udp *:5353\"]\n\
         [[grant]]\napi = \"plain\"\nallow = [\"GET /v1/**\"]\n",
    );
    world.daemon();
    let bot = || world.bot("actor").cgroup(&format!("libpod-{id}"));
    let send = || bot().args(["udp-send", "203.0.113.10:5353"]).run().stdout.contains("sent");
    assert!(!send() && !send());
    assert!(bot().args(["get", PLAIN, "/v1/early"]).run().stdout.starts_with("HTTP/1.1 403"));
    let record = world.decision(Some("/v1/early"));
    assert_eq!((&record["identity"], &record["workload"]["container"]["id"]), (&Value::Null, &id.into()));

    let list = format!(r#"[{{"id":"{id}","names":["late"],"metadata":""}}]"#);
    world.write("storage/overlay-containers/containers.json", &list);
    let begun = Instant::now();
    wait_until("that the kernel lets its datagrams go", || send().then_some(()));
    // Looked for again after two seconds. A verdict that the kernel keeps would be asked about again only after ten.
    assert!(begun.elapsed().as_secs() < 7, "{:?}", begun.elapsed());
    assert!(bot().args(["get", PLAIN, "/v1/late"]).run().stdout.starts_with("HTTP/1.1 200"));
    let record = world.decision(Some("/v1/late"));
    assert_eq!(
        (&record["identity"], &record["workload"]["container"]["name"]),
        (&"late".into(), &"late".into())
    );
}

fn sha256(content: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
