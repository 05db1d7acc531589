//! Network namespaces of their own: their workloads are served by listeners inside, and nobody else's.

use std::time::Instant;

use tests::{World, wait_until};

/// Runs a script as a bot in a new network namespace with loopback only.
fn inside(world: &World, script: &str) -> tests::Finished {
    let script = format!("ip link set lo up\n{script}");
    world.bot("/usr/bin/unshare").args(["-n", "sh", "-c", &script]).run()
}

fn curl(world: &World, path: &str, more: &str) -> String {
    let (program, roots) = (world.path("bots/curl"), world.path("bots.pem"));
    format!(
        "{} -sS --cacert {} -m 10 {more} -w ' %{{http_code}}\\n' https://api.test{path}\n",
        program.display(),
        roots.display()
    )
}

#[test]
fn a_bot_in_a_network_of_its_own_calls_its_api_through_a_listener_inside() {
    let world = World::start();
    let begun = Instant::now();
    let told = inside(&world, &(curl(&world, "/v1/first", "") + &curl(&world, "/v1/second", "--http1.1")));
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line.contains("\"ours\"") && line.ends_with(" 200")),
        "{told:?}"
    );
    // The first SYN waits for the listener and comes again; no later call does.
    assert!(begun.elapsed().as_secs() < 8, "{:?}", begun.elapsed());
    let (first, second) = (world.decision(Some("/v1/first")), world.decision(Some("/v1/second")));
    assert_eq!((&first["identity"], &second["identity"]), (&"curl".into(), &"curl".into()));
    assert_eq!(first["workload"]["netns"], second["workload"]["netns"]);
    assert_eq!(world.curl(&["https://api.test/v1/home"]).status, 200);
    assert_ne!(world.decision(Some("/v1/home"))["workload"]["netns"], first["workload"]["netns"]);
    assert!(world.counter("held_back") >= 1);
    // The listener does not keep a namespace that nobody is in.
    wait_until("that the namespace is left", || (world.counter("namespaces_served") == 0).then_some(()));
    assert!(world.log().contains("left a network namespace"));
}

#[test]
fn a_policy_holds_inside_as_outside_and_nothing_else_is_carried_out_of_a_namespace() {
    let world = World::new();
    world.set("unidentified", "\"pass\"");
    world.daemon();
    let stranger = world.path("elsewhere/curl");
    let script = curl(&world, "/v1/forbidden/x", "")
        + &format!("{} -sSk -m 5 https://api.test/v1/stranger -w ' %{{http_code}}\\n'\n", stranger.display())
        + &format!("{} -sSk -m 5 https://other.test/v1/x -w ' %{{http_code}}\\n'\n", stranger.display())
        + &format!("{} -sSk -m 5 https://api.test:8443/v1/x -w ' %{{http_code}}\\n'\n", stranger.display());
    let told = inside(&world, &script);
    let codes: Vec<&str> = told.stdout.lines().filter_map(|line| line.strip_prefix(' ')).collect();
    assert_eq!(codes, ["403", "403", "000", "000"], "{told:?}");
    let record = world.record("decision", |record| record["host"] == "other.test");
    assert!(record["reason"].as_str().unwrap().contains("another network namespace"), "{record}");
    // In the host's own it passes.
    let answer = world.bot(&stranger).curl(&["-k", "https://other.test/v1/x"]);
    assert_eq!(answer.status, 401, "{answer:?}");
}

#[test]
fn whoever_takes_the_proxys_port_inside_first_gets_nothing() {
    let world = World::start();
    let script = format!(
        "/usr/bin/python3 -c \"
import socket
listener = socket.create_server(('127.0.0.1', 15001))
listener.settimeout(8)
try:
    listener.accept()
    print('squatter: got a connection', flush=True)
except TimeoutError:
    print('squatter: nothing', flush=True)
\" & squatter=$!
for _ in $(seq 100); do [ -n \"$(ss -Hltn)\" ] && break; sleep 0.05; done
{}
wait $squatter",
        curl(&world, "/v1/squatted", "-m 4").trim_end()
    )
    .replace(":15001", &format!(":{}", port(&world)))
    .replace("15001", &port(&world));
    let told = inside(&world, &script);
    assert!(told.stdout.contains("squatter: nothing"), "{told:?}");
    assert!(told.stdout.contains(" 000"), "{told:?}");
    assert!(world.log().contains("cannot serve a network namespace"), "{}", world.log());
}

/// The port of the world's daemon.
fn port(world: &World) -> String {
    let status = world.status();
    status["listeners"][0].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
}
