//! What a credential adds to a call when it is at hand: `cargo run --release -p vouchsafe --example credentials`.
//!
//! A table in Markdown, one line per kind and place: taking out what the client brought, asking the credential, and putting it into
//! the request, in nanoseconds (median of rounds of 100 calls, and the 99th percentile of rounds). Then what it costs to unpack an
//! answer and to look through it, by what is counted where it goes out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method};
use proxy_policy::{PolicySet, SourceFile, compile};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use vouchsafe::authorize::LivePolicy;
use vouchsafe::credentials::lease::{Lease, Leases};
use vouchsafe::credentials::{
    Ask, AskedBy, Credentials, Head, KeySource, LiveCredential, Masker, Needles, Outcall, Secret, Store,
    strip_head,
};
use vouchsafe::http::unpack::{Coding, Next, Unpacker};
use vouchsafe::trust::UpstreamTls;

const ROUNDS: usize = 1000;
const EACH: usize = 100;

const HEADER: &str = "{ header = \"authorization\", value = \"Bearer {secret}\" }";

/// What a client of an API sends, and one with keys of its own.
const PLAIN: &[(&str, &str)] = &[
    ("accept", "*/*"),
    ("user-agent", "bot/1.0"),
    ("accept-encoding", "gzip"),
    ("x-request-id", "01a2139e"),
];
const OWN: &[(&str, &str)] =
    &[("accept", "*/*"), ("user-agent", "bot/1.0"), ("authorization", "Bearer own"), ("x-api-key", "own")];

struct Bench {
    credentials: Credentials,
}

impl Bench {
    fn policy(inject: &str, definition: &str) -> PolicySet {
        let text =
            format!("[api.a]\nhosts = [\"a.test\"]\ninject = {inject}\n[credential.k]\n{definition}\n");
        compile(&[SourceFile::new("apis/a.toml", text)]).set.unwrap()
    }

    /// With a small body, which signatures cover.
    fn measure(
        &self,
        name: &str,
        inject: &str,
        definition: &str,
        target: &str,
        sent: &[(&'static str, &'static str)],
    ) {
        self.measure_with(name, inject, definition, target, sent, &Bytes::from("{\"a\": 1}".repeat(40)));
    }

    fn measure_with(
        &self,
        name: &str,
        inject: &str,
        definition: &str,
        target: &str,
        sent: &[(&'static str, &'static str)],
        body: &Bytes,
    ) {
        let live = LivePolicy::new(Self::policy(inject, definition), 1).with_credentials(&self.credentials);
        let api = live.set().apis().next().unwrap().id;
        let credential: Arc<LiveCredential> =
            Arc::clone(live.live_credential(live.set().credentials().next().unwrap().id).unwrap());
        let target = PathAndQuery::try_from(target).unwrap();
        let authority = Authority::from_static("a.test");
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.insert(*name, value.parse().unwrap());
        }
        let workload = AskedBy { uid: 1000, gid: 1000, unit: Some("bot.service") };
        let ask = Ask { identity: "bot", api: "a", host: "a.test", workload, inject: live.inject(api) };
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let mut requests: Vec<_> = (0..EACH).map(|_| (target.clone(), headers.clone())).collect();
            let started = Instant::now();
            for (target, headers) in &mut requests {
                let mut head = Head { method: &Method::GET, target, authority: &authority, headers };
                let attachment = credential.ready(&ask).unwrap().unwrap();
                // A signature is made for each request, over its body.
                let signing = attachment.for_request(&head).unwrap();
                let attachment = signing.map_or(attachment, |signing| signing.over(body.clone()));
                strip_head(&mut head, Some(&attachment), live.strip(api).unwrap()).unwrap();
                attachment.attach(&mut head).unwrap();
                black_box(&head);
            }
            rounds.push(started.elapsed().as_nanos() / EACH as u128);
        }
        rounds.sort_unstable();
        println!("| {name} | {} ns | {} ns |", rounds[ROUNDS / 2], rounds[ROUNDS * 99 / 100]);
    }
}

/// Ticks of processor time of this process so far.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // The fields 14 and 15 of proc(5), of which the first two are cut off.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Tokens by whom they were obtained for.
type Tokens = Leases<u32, Arc<str>, Arc<str>>;

/// How much of one processor it takes to keep so many tokens fresh that last for so long and are used each second; the issuer
/// answers after 5 ms.
fn keep_fresh(count: u32, lasts: Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let obtained = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&obtained);
    runtime.block_on(async {
        let leases: Arc<Tokens> = Leases::new(move |key: u32| {
            let counter = Arc::clone(&counter);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(Lease { value: format!("token of {key}").into(), lasts: Some(lasts) })
            })
        });
        let all = (0..count).map(|key| {
            let leases = Arc::clone(&leases);
            tokio::spawn(async move { leases.get(key).await })
        });
        for token in all.collect::<Vec<_>>() {
            token.await.unwrap().unwrap();
        }
        let (before, began) = (ticks(), obtained.load(Ordering::Relaxed));
        let started = Instant::now();
        let mut stale = 0;
        while started.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stale += (0..count).filter(|key| leases.fresh(key).is_none()).count();
        }
        let share = (ticks() - before) as f64 / started.elapsed().as_secs_f64();
        let renewed = obtained.load(Ordering::Relaxed) - began;
        println!(
            "\n{count} tokens of {} s kept fresh for 30 s: {renewed} obtained anew, {stale} found stale, {share:.1} % of one processor",
            lasts.as_secs()
        );
    });
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(
        directory.path().join("secrets.store"),
        KeySource::file(directory.path().join("store.key")),
    );
    let set = |name: &str, value: &[u8]| {
        store.set(&name.parse().unwrap(), Secret::new(value.to_vec()), 1).unwrap();
    };
    set("key", b"rk_live_0123456789abcdefghij");
    set("pair", b"user:0123456789abcdefghij");
    set("es256", KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem().as_bytes());
    set("eddsa", KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem().as_bytes());
    let client = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&client).unwrap();
    set("client", format!("{}{}", certificate.pem(), client.serialize_pem()).as_bytes());
    let root = directory.path().join("root.pem");
    std::fs::write(&root, certificate.pem()).unwrap();
    let tls = UpstreamTls::new(&[root], false, &[], Duration::from_secs(5)).unwrap();
    let bench = Bench { credentials: Credentials::new(store, Outcall::new(tls)) };

    let key = "kind = \"static\"\nsecret = \"vault:key\"";
    let pair = "kind = \"static\"\nsecret = \"vault:pair\"";
    println!("| a credential that is at hand | median | p99 |\n| --- | ---: | ---: |");
    bench.measure("static, a header", HEADER, key, "/v1/things?a=1&b=2", PLAIN);
    bench.measure("static, a header; the client brings two of its own", HEADER, key, "/v1/things?a=1", OWN);
    bench.measure(
        "static, a header; the client brings one in the query",
        HEADER,
        key,
        "/v1?api_key=own",
        PLAIN,
    );
    bench.measure("static, basic", "{ basic = \"{secret}\" }", pair, "/v1/things?a=1", PLAIN);
    bench.measure("static, a query parameter", "{ query = \"key\" }", key, "/v1/things?a=1&b=2", PLAIN);
    bench.measure("static, a cookie", "{ cookie = \"sid\" }", key, "/v1/things?a=1", PLAIN);
    let placeholder = "{ placeholder = \"vouchsafe-key\", in = [\"path\"] }";
    bench.measure("static, a placeholder in the path", placeholder, key, "/botvouchsafe-key/send?a=1", PLAIN);
    for (algorithm, name) in [("ES256", "es256"), ("EdDSA", "eddsa")] {
        for per in ["ttl", "call"] {
            let jwt = format!(
                "kind = \"jwt\"\nkey = \"vault:{name}\"\nalgorithm = \"{algorithm}\"\naudience = \"https://a.test\"\nper = \"{per}\""
            );
            bench.measure(&format!("jwt, {algorithm}, one per {per}"), HEADER, &jwt, "/v1/things?a=1", PLAIN);
        }
    }
    let aws = |service: &str| {
        format!(
            "kind = \"aws\"\naccess_key_id = \"AKIDEXAMPLE\"\nsecret_access_key = \"vault:key\"\nregion = \"eu-central-1\"\n\
             service = \"{service}\""
        )
    };
    bench.measure("aws, a body of 360 bytes", HEADER, &aws("dynamodb"), "/", PLAIN);
    bench.measure("aws, the store of objects", HEADER, &aws("s3"), "/bucket/key?list-type=2", PLAIN);
    let megabyte = Bytes::from(vec![b'x'; 1 << 20]);
    bench.measure_with("aws, a body of 1 MiB", HEADER, &aws("dynamodb"), "/", PLAIN, &megabyte);
    let hmac = "kind = \"hmac\"\nsecret = \"vault:key\"\nsign = \"{timestamp}{method}{target}{body}\"\nheaders = { x-sign = \
                \"{signature}\", x-time = \"{timestamp}\" }";
    bench.measure("hmac, a body of 360 bytes", HEADER, hmac, "/v1/things?a=1&b=2", PLAIN);
    let live = LivePolicy::new(Bench::policy(HEADER, key), 1).with_credentials(&bench.credentials);
    let credential = live.live_credential(live.set().credentials().next().unwrap().id).unwrap();
    let api = live.set().apis().next().unwrap().id;
    let inject = live.inject(api);
    let ask = Ask { identity: "bot", api: "a", host: "a.test", workload: AskedBy::default(), inject };
    let needles = Arc::clone(credential.ready(&ask).unwrap().unwrap().needles().unwrap());
    let piece =
        Bytes::from("{\"name\": \"a thing of no interest\", \"of\": \"it\"}\n".repeat(16 * 1024 / 51));
    let mut masker = Masker::new(Arc::clone(&needles), true);
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for _ in 0..EACH {
            black_box(masker.next(piece.clone(), false));
        }
        rounds.push(started.elapsed().as_nanos() / EACH as u128);
    }
    rounds.sort_unstable();
    println!(
        "| looking through 16 KiB of an answer | {} ns | {} ns |",
        rounds[ROUNDS / 2],
        rounds[ROUNDS * 99 / 100]
    );
    let mtls = "kind = \"mtls\"\ncertificate = \"vault:client\"";
    bench.measure("mtls (the handshake is the connection's)", HEADER, mtls, "/v1/things?a=1", PLAIN);
    unpacking(&needles);
    keep_fresh(10_000, Duration::from_secs(40));
}

/// A second table: an answer of 4 MiB in pieces of 16 KiB as they come, passed on, and unpacked and looked through.
fn unpacking(needles: &Arc<Needles>) {
    let text: String = (0_u64..)
        .map(|at| {
            let id = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            format!("{{\"id\": \"{id:016x}\", \"name\": \"a thing\", \"price\": {}}},\n", id % 10_000)
        })
        .scan(0, |length, line| {
            *length += line.len();
            (*length <= 4 << 20).then_some(line)
        })
        .collect();
    println!(
        "\n| an answer | packed to | passed on | unpacked | and looked through |\n| --- | ---: | ---: | ---: | ---: |"
    );
    for (name, coding, packed) in [
        ("plain", None, text.clone().into_bytes()),
        ("gzip", Some(Coding::Gzip), gzip(text.as_bytes())),
        ("brotli", Some(Coding::Brotli), brotli(text.as_bytes())),
        ("zstd", Some(Coding::Zstd), zstd(text.as_bytes())),
    ] {
        let share = packed.len() * 100 / text.len();
        let pieces: Vec<Bytes> = packed.chunks(16 * 1024).map(Bytes::copy_from_slice).collect();
        let rate = |coding: Option<Coding>, look: bool| {
            let mut rounds: Vec<Duration> = (0..30).map(|_| once(needles, coding, &pieces, look)).collect();
            rounds.sort_unstable();
            format!("{:.0} MB/s", text.len() as f64 / rounds[15].as_secs_f64() / 1e6)
        };
        println!(
            "| {name} | {share} % | {} | {} | {} |",
            rate(None, false),
            rate(coding, false),
            rate(coding, true)
        );
    }
}

/// How long one answer takes.
fn once(needles: &Arc<Needles>, coding: Option<Coding>, pieces: &[Bytes], look: bool) -> Duration {
    let mut masker = Masker::new(Arc::clone(needles), look);
    let started = Instant::now();
    let mut unpacker = coding.map(|coding| Unpacker::new(&[coding]));
    for piece in pieces {
        let Some(unpacker) = &mut unpacker else {
            black_box(masker.next(piece.clone(), false));
            continue;
        };
        unpacker.push(piece.clone());
        loop {
            match unpacker.next_piece().unwrap() {
                Next::Piece(piece) => drop(black_box(masker.next(piece, false))),
                Next::Busy => {}
                Next::More => break,
            }
        }
    }
    started.elapsed()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn brotli(text: &[u8]) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    encoder.write_all(text).unwrap();
    encoder.into_inner()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(zstd_safe::compress_bound(text.len()));
    zstd_safe::compress(&mut packed, text, 3).unwrap();
    packed
}
