//! What the CA costs: `cargo run --release -p vouchsafe --example trust`.
//!
//! A table in Markdown: making a generation, minting leaves and finding them again, what 10,000 hosts take in memory, and what a client
//! has to verify. With 10 hosts and with 10,000 that the policy names one by one, which is the most that constraints are made for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use vouchsafe::trust::{Ca, KeyKind, Leaves, Permitted, Terms};

/// How often what takes long is done.
const FEW: usize = 5;
/// How often a client verifies.
const OFTEN: usize = 2000;

fn median(mut each: Vec<Duration>) -> Duration {
    each.sort_unstable();
    each[each.len() / 2]
}

fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let made = what();
    (made, begin.elapsed())
}

/// Resident memory, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn hosts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("api-{n}.example.com")).collect()
}

/// How long a client takes to verify a chain.
fn verification(ca: &Ca, chain: &[CertificateDer<'static>], host: &str) -> Duration {
    let mut roots = RootCertStore::empty();
    for root in ca.roots() {
        roots.add(root.der().clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let verify = || verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).unwrap();
    let (_, took) = timed(|| {
        (0..OFTEN).for_each(|_| {
            std::hint::black_box(verify());
        })
    });
    took / OFTEN as u32
}

fn main() {
    println!("| the CA, with a policy of | 10 hosts | 10,000 hosts |");
    println!("| --- | ---: | ---: |");
    let measured: Vec<Vec<String>> = [10, 10_000].into_iter().map(measure).collect();
    let names = [
        "a new generation (two RSA keys among it)",
        "its issuer, ECDSA, bytes",
        "opened at a start",
        "leaves of ECDSA, minted per second, one core",
        "leaves of RSA, minted per second, one core",
        "a leaf that is there",
        "memory for each host: its leaf",
        "a client verifies leaf and issuer",
    ];
    for (at, name) in names.iter().enumerate() {
        println!("| {name} | {} | {} |", measured[0][at], measured[1][at]);
    }
}

fn measure(count: usize) -> Vec<String> {
    let names = hosts(count);
    let permitted = Permitted::new(names.iter().map(String::as_str));
    let made = (0..FEW).map(|_| {
        let state = tempfile::tempdir().unwrap();
        let ca = Ca::open(state.path(), Terms::default()).unwrap();
        timed(|| ca.require(&permitted).unwrap()).1
    });
    let made = median(made.collect());
    let state = tempfile::tempdir().unwrap();
    Ca::open(state.path(), Terms::default()).unwrap().require(&permitted).unwrap();
    let opened = (0..FEW).map(|_| timed(|| Ca::open(state.path(), Terms::default()).unwrap()).1);
    let opened = median(opened.collect());

    let ca = Arc::new(Ca::open(state.path(), Terms::default()).unwrap());
    let leaves = Leaves::new(Arc::clone(&ca)).unwrap();
    // What keys and tables take once is not that of a host.
    let chain = leaves.leaf(&names[0], KeyKind::Ecdsa).unwrap().cert.clone();
    let all = hosts(10_000);
    let asked: Vec<&String> = all.iter().filter(|name| count > 10 || names.contains(name)).collect();
    let before = resident();
    let (_, minted) =
        timed(|| asked.iter().for_each(|name| drop(leaves.leaf(name, KeyKind::Ecdsa).unwrap())));
    let per_host = (resident() - before) / asked.len() as u64;
    let (_, again) = timed(|| asked.iter().for_each(|name| drop(leaves.leaf(name, KeyKind::Ecdsa).unwrap())));
    drop(leaves.leaf(&names[0], KeyKind::Rsa).unwrap());
    let few = &asked[1..asked.len().min(500)];
    let (_, rsa) = timed(|| few.iter().for_each(|name| drop(leaves.leaf(name, KeyKind::Rsa).unwrap())));

    let per_second = |n: usize, took: Duration| format!("{:.0}", n as f64 / took.as_secs_f64());
    vec![
        format!("{:.0} ms", made.as_secs_f64() * 1e3),
        chain[1].len().to_string(),
        format!("{:.1} ms", opened.as_secs_f64() * 1e3),
        per_second(asked.len(), minted),
        per_second(few.len(), rsa),
        format!("{:.2} µs", again.as_secs_f64() * 1e6 / asked.len() as f64),
        if count > 10 { format!("{per_host} bytes") } else { "–".to_owned() },
        format!("{:.0} µs", verification(&ca, &chain, &names[0]).as_secs_f64() * 1e6),
    ]
}
