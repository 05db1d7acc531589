//! Restarts and upgrades under load: no connection attempt and no response that had begun is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::keeper::Keeper;
use tests::{ADDRESS, World, built, daemon_binary};

/// Requests for each second, over both versions of HTTP together.
const RATE: u32 = 240;

/// What the caller says of one way, with nothing lost.
#[track_caller]
fn whole<'a>(told: &'a Value, way: &str) -> &'a Value {
    let way = &told[way];
    assert_eq!(way["lost"].as_array().map(Vec::len), Some(0), "{told:#}");
    way
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// A load on a world, and restarts meanwhile.
struct Load<'a> {
    world: &'a World,
    keeper: Keeper<'a>,
    releases: Vec<PathBuf>,
}

impl<'a> Load<'a> {
    fn new(world: &'a World) -> Self {
        world.set("log.level", "\"info\"");
        world.copy(built("caller"), "bots/caller");
        world.identity("caller", "exe = \"{root}/bots/caller\"");
        fs::create_dir_all(world.path("api/files/v1/slowly")).unwrap();
        fs::write(world.path("api/files/v1/slowly/file"), vec![b'x'; 300 * 1024]).unwrap();
        // The same content in other files: upgrades, as far as the system can tell.
        let releases =
            ["one", "two", "three"].map(|name| world.copy(daemon_binary(), &format!("releases/{name}")));
        let keeper = Keeper::start(world, &releases[0]);
        let roots = world.vouchsafe(&["ca", "export"]);
        assert_eq!(roots.code, Some(0), "{roots:?}");
        world.write("bots.pem", &roots.stdout);
        Self { world, keeper, releases: releases.to_vec() }
    }

    /// Calls for so many seconds, with so many slow downloads over each version, while each of the other releases is put in
    /// place of the one before. Returns what the caller says, and how long new connections waited at each restart.
    #[track_caller]
    fn put(&mut self, seconds: u64, downloads: u32) -> (Value, Vec<Duration>) {
        let roots = self.world.path("bots.pem");
        let [rate, seconds_text, downloads] = [RATE.to_string(), seconds.to_string(), downloads.to_string()];
        let caller = self.world.bot("caller").args(["--to", &format!("{ADDRESS}:443"), "--host", "api.test"]);
        let caller = caller.arg("--roots").arg(roots).args(["--downloads", &downloads]);
        let mut caller = caller.args(["--seconds", &seconds_text, "--rate", &rate]).spawn();
        let begun = Instant::now();
        let known = self.drained().len();
        let mut starts = Vec::new();
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(1000));
            self.releases.rotate_left(1);
            let before = self.keeper.pid();
            let took = self.keeper.restart(&self.releases[0]);
            starts.push(took.ready - took.ended);
            let pid = self.keeper.pid();
            assert_ne!(pid, before);
            let runs = fs::read_link(Path::new("/proc").join(pid.to_string()).join("exe")).unwrap();
            assert_eq!(runs, self.releases[0]);
        }
        let restarts = begun.elapsed();
        assert!(
            restarts < Duration::from_secs(seconds),
            "the load ended before the last restart: {restarts:?}"
        );
        let said = caller.rest();
        assert_eq!(caller.wait(), Some(0), "{said}");
        let drained = self.drained();
        let waited: Vec<Duration> =
            drained[known..].iter().zip(starts).map(|(end, start)| *end + start).collect();
        println!("{said}new connections waited for {waited:?}");
        (serde_json::from_str(&said).unwrap(), waited)
    }

    /// How long each daemon that ended accepted nothing until then. None of them cut anything off.
    #[track_caller]
    fn drained(&self) -> Vec<Duration> {
        let log = self.world.log();
        let told = log.lines().filter(|line| line.contains("drained;"));
        told.map(|line| {
            assert!(line.contains("cut_off=0"), "{line}");
            Duration::from_millis(line.rsplit_once("ms=").unwrap().1.trim().parse().unwrap())
        })
        .collect()
    }
}

/// How much was answered over both versions: nothing was lost, and every connection was led over to every next daemon. The
/// load is what was asked for while there was somebody to answer.
#[track_caller]
fn answered(told: &Value, seconds: u64, waited: &[Duration]) {
    let short = [whole(told, "http1"), whole(told, "http2")];
    let answered: u64 = short.iter().map(|way| number(&way["answered"])).sum();
    let served = Duration::from_secs(seconds) - waited.iter().sum::<Duration>();
    assert!(
        answered as f64 >= 200.0 * served.as_secs_f64(),
        "{answered} in {served:?} is not enough of a load"
    );
    for way in short {
        assert!(number(&way["connections"]) >= 8 * 3, "{told:#}");
    }
}

#[test]
fn restarts_with_another_binary_under_load_lose_no_connection_and_no_response_that_had_begun() {
    let world = World::new();
    let mut load = Load::new(&world);
    let (told, waited) = load.put(7, 0);
    answered(&told, 7, &waited);
    // Nobody waits for longer than a start takes: short calls end at once.
    assert!(waited.iter().all(|waited| *waited < Duration::from_secs(3)), "{waited:?}");

    let (told, waited) = load.put(16, 1);
    answered(&told, 16, &waited);
    for way in ["long1", "long2"] {
        let way = whole(&told, way);
        assert!(number(&way["answered"]) >= 3 && number(&way["longest_ms"]) >= 2000, "{told:#}");
    }
    // Or for the rest of a download that began in the meantime.
    assert!(waited.iter().all(|waited| *waited < Duration::from_secs(7)), "{waited:?}");
    load.keeper.stop();
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));
    assert!(!world.journal().iter().any(|record| record["interrupted"] == true), "a call was cut off");
}
