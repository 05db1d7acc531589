//! Collectors of others: rotel, which is one in Rust, and the server of gRPC's own library.

use std::ffi::OsStr;
use std::process::Command;

use serde_json::Value;
use tests::{World, wait_until};

use super::authority::Authority;
use super::{lines, python, seqs, status};

/// The collector that reads by the official types.
pub(super) fn collector_command(world: &World, kind: &str, port: u16, key: &str, tls: &[&str]) -> Command {
    let mut command = world.enter(None);
    let script = world.write("collector.py", include_str!("collector.py"));
    command.args(["env", &format!("PYTHONPATH={}", python().display()), "/usr/bin/python3"]).arg(script);
    command.args([kind, &port.to_string()]).arg(world.path("otel.jsonl")).arg(key).args(tls);
    command.current_dir(world.path(""));
    command
}

/// It, until the world ends.
fn collector(world: &World, kind: &str, port: u16, key: &str, tls: &[&str]) {
    let command = collector_command(world, kind, port, key, tls);
    let arguments: Vec<&str> = command.get_args().filter_map(OsStr::to_str).collect();
    // The first one is the cgroup, which a server gets as well.
    world.server(&format!("collector-{kind}"), arguments[1], &arguments[2..], &format!("127.0.0.1:{port}"));
}

fn rotel(world: &World) {
    let program = python().join("rotel/rotel-agent").display().to_string();
    let (pid, log) =
        (world.path("rotel.pid").display().to_string(), world.path("rotel.out").display().to_string());
    let arguments = [
        "start",
        "--pid-file",
        &pid,
        "--log-file",
        &log,
        "--otlp-grpc-endpoint",
        "127.0.0.1:4317",
        "--otlp-http-endpoint",
        "127.0.0.1:4318",
        "--batch-timeout",
        "50ms",
        "--exporter",
        "otlp",
        "--otlp-exporter-protocol",
        "http",
        "--otlp-exporter-endpoint",
        "http://127.0.0.1:4320",
    ];
    world.server("rotel", &program, &arguments, "127.0.0.1:4317");
}

#[test]
fn rotel_passes_on_every_record_that_it_got_in_protobuf_in_json_and_by_grpc() {
    let world = World::new();
    let sinks = [
        ("protobuf", "http/protobuf", "http://127.0.0.1:4318/v1/logs", "native"),
        ("json", "http/json", "http://127.0.0.1:4318/v1/logs", "native"),
        ("grpc", "grpc", "http://127.0.0.1:4317", "ocsf"),
    ];
    for (name, protocol, url, format) in sinks {
        world.set(&format!("journal.sinks.{name}.kind"), "\"otlp\"");
        world.set(&format!("journal.sinks.{name}.protocol"), &format!("\"{protocol}\""));
        world.set(&format!("journal.sinks.{name}.url"), &format!("\"{url}\""));
        world.set(&format!("journal.sinks.{name}.format"), &format!("\"{format}\""));
    }
    world.set("journal.sinks.json.gzip", "false");
    world.daemon();
    assert_eq!(world.curl(&["https://api.test/v1/early"]).status, 200);
    for (name, ..) in sinks {
        wait_until("it is not there", || {
            (status(&world, name)["health"]["state"] == "degraded").then_some(())
        });
    }
    collector(&world, "http", 4320, "-", &[]);
    rotel(&world);
    for call in 0..20 {
        assert_eq!(world.curl(&[&format!("https://api.test/v1/late/{call}")]).status, 200);
    }
    let seq = |record: &Value| {
        let body = &record["body"];
        (if body["seq"].is_null() { &body["metadata"]["sequence"] } else { &body["seq"] }).as_u64().unwrap()
    };
    let records = wait_until("each record three times", || {
        let (there, journal) = (lines(&world, "otel.jsonl"), seqs(&world.journal()));
        let times = |seq_of_it: &u64| there.iter().filter(|record| seq(record) == *seq_of_it).count();
        let ocsf = there.iter().filter(|record| record["body"]["class_uid"].is_u64()).count();
        // The outcome of a call may be written after its answer.
        let ended = there.iter().filter(|record| record["event"] == "vouchsafe.outcome").count();
        let is_all = journal.iter().all(|seq| times(seq) >= 3) && ocsf >= journal.len() && ended >= 3 * 21;
        is_all.then_some(there)
    });
    for record in &records {
        assert_eq!(record["attributes"]["vouchsafe.seq"], seq(record));
        assert_eq!(record["about"]["service.name"], "vouchsafe");
        let kind = record["attributes"]["vouchsafe.kind"].as_str().unwrap();
        assert_eq!(record["event"], format!("vouchsafe.{kind}"));
    }
    for record in records.iter().filter(|record| record["event"] == "vouchsafe.outcome") {
        assert_eq!(record["attributes"]["http.response.status_code"], 200);
    }
    for (name, ..) in sinks {
        wait_until("nothing is left", || (status(&world, name)["behind"] == 0).then_some(()));
        assert_eq!(
            (&status(&world, name)["lost"], &status(&world, name)["rejected"]),
            (&0.into(), &0.into())
        );
    }
}

/// A collector that demands a certificate of its CA: none, and one of somebody else, get nothing taken.
fn demands_a_certificate(kind: &str, protocol: &str, path: &str) {
    let world = World::new();
    let (servers, clients, others) =
        (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    let (certificate, key) = servers.issue("localhost");
    world.write("server.pem", &certificate);
    world.write("server.key", &key);
    world.write("clients.pem", &clients.pem);
    let roots = world.write("servers.pem", &servers.pem);
    world.secret("otel-key", "sesame-CANARY");
    world.set("journal.sinks.otel.kind", "\"otlp\"");
    world.set("journal.sinks.otel.protocol", &format!("\"{protocol}\""));
    world.set("journal.sinks.otel.url", &format!("\"https://localhost:4443{path}\""));
    world.set("journal.sinks.otel.roots", &format!("[\"{}\"]", roots.display()));
    world.set("journal.sinks.otel.headers", "{ x-key = \"vault:otel-key\" }");
    world.set("journal.sinks.otel.gzip", "false");
    collector(&world, kind, 4443, "sesame-CANARY", &["server.pem", "server.key", "clients.pem"]);
    // Without a certificate.
    world.daemon();
    assert_eq!(world.curl(&["https://api.test/v1/first"]).status, 200);
    let refused = |why: &str| {
        wait_until(why, || {
            let sink = status(&world, "otel");
            // A server that resets the connection may take the alert away with it that says why.
            let is_told = sink["last_error"].as_str().unwrap_or_default().contains("localhost");
            (sink["health"]["state"] == "degraded" && is_told).then_some(())
        });
        assert_eq!(
            (lines(&world, "otel.jsonl").len(), &status(&world, "otel")["sent"]),
            (0, &0.into()),
            "{why}"
        );
    };
    refused("none is refused");
    assert_eq!(world.terminate(), Some(0));
    // With one of somebody else.
    let (certificate, key) = others.issue("vouchsafe-host-7");
    world.secret("otel-cert", &certificate);
    world.secret("otel-cert-key", &key);
    world.set("journal.sinks.otel.client_certificate", "\"vault:otel-cert\"");
    world.set("journal.sinks.otel.client_key", "\"vault:otel-cert-key\"");
    world.daemon();
    refused("a foreign one is refused");
    // With its own, which is taken up without a restart.
    let (certificate, key) = clients.issue("vouchsafe-host-7");
    world.secret("otel-cert", &certificate);
    world.secret("otel-cert-key", &key);
    let records = wait_until("all records at the collector", || {
        let (there, journal) = (lines(&world, "otel.jsonl"), world.journal());
        (seqs(there.iter().map(|record| &record["body"])) == seqs(&journal)).then_some(there)
    });
    let how = if kind == "grpc" { "grpc" } else { "application/x-protobuf" };
    for record in records {
        assert_eq!((&record["client"], &record["how"]), (&"vouchsafe-host-7".into(), &how.into()));
    }
    for secret in ["sesame", "PRIVATE KEY"] {
        assert!(!world.log().contains(secret), "{secret}");
    }
}

#[test]
fn a_collector_over_http_that_demands_a_certificate_gets_every_record_from_who_has_it() {
    demands_a_certificate("http", "http/protobuf", "/v1/logs");
}

#[test]
fn a_collector_of_grpc_that_demands_a_certificate_gets_every_record_from_who_has_it() {
    demands_a_certificate("grpc", "grpc", "");
}

#[test]
fn a_server_of_https_that_offers_no_http2_is_told_to_be_no_collector_of_grpc() {
    let world = World::new();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (certificate, key) = servers.issue("localhost");
    world.write("server.pem", &certificate);
    world.write("server.key", &key);
    world.write("clients.pem", &clients.pem);
    let roots = world.write("servers.pem", &servers.pem);
    let (certificate, key) = clients.issue("vouchsafe-host-7");
    world.secret("otel-cert", &certificate);
    world.secret("otel-cert-key", &key);
    world.set("journal.sinks.otel.kind", "\"otlp\"");
    world.set("journal.sinks.otel.protocol", "\"grpc\"");
    world.set("journal.sinks.otel.url", "\"https://localhost:4443\"");
    world.set("journal.sinks.otel.roots", &format!("[\"{}\"]", roots.display()));
    world.set("journal.sinks.otel.client_certificate", "\"vault:otel-cert\"");
    world.set("journal.sinks.otel.client_key", "\"vault:otel-cert-key\"");
    collector(&world, "http", 4443, "-", &["server.pem", "server.key", "clients.pem"]);
    world.daemon();
    wait_until("it is told", || {
        let error = status(&world, "otel")["last_error"].as_str().unwrap_or_default().to_owned();
        error.contains("does not speak HTTP/2").then_some(())
    });
    assert_eq!(lines(&world, "otel.jsonl").len(), 0);
}
