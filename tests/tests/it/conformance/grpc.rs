//! gRPC, by the stacks of two languages, each as client and as server: all four kinds of calls, deadlines, statuses and messages in
//! trailers, cancellation, large messages, and many calls at once.

use std::fs;

use tests::{RAW_ADDRESS, World, wait_until};

use super::{node_packages, python_packages};

/// What each client says of each server.
const TOLD: [&str; 12] = [
    "unary hello head 5 00ff",
    "down 124750",
    "up 5000",
    "both 50 Q49",
    "fail NOT_FOUND no such thing: ü 100 %",
    "late one RESOURCE_EXHAUSTED after one",
    "none UNIMPLEMENTED",
    "denied PERMISSION_DENIED",
    "slow DEADLINE_EXCEEDED",
    "cancel CANCELLED",
    "big True",
    "many 1000",
];

fn world() -> World {
    let world = World::new();
    for (name, program) in [("python", "{root}/bots/python3"), ("node", "/usr/bin/node")] {
        world.policy(
            &format!("policies/{name}.toml"),
            &format!(
                "[identity]\nexe = \"{program}\"\n\n[[grant]]\napi = \"demo\"\nallow = [\"grpc conf.Echo/*\"]\n\
                 credential = \"demo-key\"\n"
            ),
        );
    }
    world.set("log.level", "\"info\"");
    world.write("server.py", include_str!("grpc_server.py"));
    world.write("client.py", include_str!("grpc_client.py"));
    let node = node_packages();
    world.write("server.js", include_str!("grpc_server.js"));
    world.write("client.js", include_str!("grpc_client.js"));
    std::os::unix::fs::symlink(node.join("node_modules"), world.path("node_modules")).unwrap();
    world
}

/// Has both clients call this server; they are told the same, and the server knows what was given up.
fn both(program: &str, arguments: &[&str]) {
    let world = world();
    let packages = format!("PYTHONPATH={}", python_packages().display());
    let server = [&[packages.as_str(), program], arguments].concat();
    let server = [&server[..], &[RAW_ADDRESS, "api/server.pem", "api/server.key"]].concat();
    world.server("grpc", "env", &server, &format!("{RAW_ADDRESS}:443"));
    world.daemon();
    for (number, client) in ["python3", "/usr/bin/node"].into_iter().enumerate() {
        let script = world.path(if number == 0 { "client.py" } else { "client.js" });
        let bot = world.bot(client).env("PYTHONPATH", python_packages().to_str().unwrap());
        let told = bot.env("GRPC_DNS_RESOLVER", "native").arg(script).run();
        assert_eq!(told.stdout.lines().collect::<Vec<_>>(), TOLD, "{client} at {program}: {told:?}");
        let log = || fs::read_to_string(world.path("grpc.log")).unwrap();
        wait_until("the end of what was given up", || {
            let given_up = log().lines().filter(|line| line.ends_with("given up")).count();
            (given_up == 2 * (number + 1)).then_some(())
        });
        let deadlines = log().lines().filter(|line| *line == "slow deadline given up").count();
        assert_eq!(deadlines, number + 1, "the server was told the deadline: {}", log());
    }
    let decision = world.decision(Some("/conf.Echo/Unary"));
    assert_eq!((&decision["verdict"], &decision["method"]), (&"allow".into(), &"POST".into()), "{decision}");
}

#[test]
fn grpc_of_two_languages_is_carried_to_a_server_in_python() {
    both("/usr/bin/python3", &["server.py"]);
}

#[test]
fn grpc_of_two_languages_is_carried_to_a_server_in_node() {
    both("/usr/bin/node", &["server.js"]);
}
