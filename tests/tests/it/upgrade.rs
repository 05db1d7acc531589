//! Restarts and upgrades under load: no connection attempt and no response that had begun is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

    /// Calls, with so many slow downloads over each version, while each of the other releases is put in place of the one
    /// before.
    #[track_caller]
    fn put(&mut self, downloads: u32) -> Told {
        let roots = self.world.path("bots.pem");
        let [rate, downloads] = [RATE.to_string(), downloads.to_string()];
        let caller = self.world.bot("caller").args(["--to", &format!("{ADDRESS}:443"), "--host", "api.test"]);
        let caller = caller.arg("--roots").arg(roots).args(["--downloads", &downloads]);
        let mut caller = caller.args(["--seconds", "stdin", "--rate", &rate]).spawn();
        let known = self.drained().len();
        let mut starts = Duration::ZERO;
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(1000));
            self.releases.rotate_left(1);
            let before = self.keeper.pid();
            let took = self.keeper.restart(&self.releases[0]);
            starts += took.ready - took.ended;
            let pid = self.keeper.pid();
            assert_ne!(pid, before);
            let runs = fs::read_link(Path::new("/proc").join(pid.to_string()).join("exe")).unwrap();
            assert_eq!(runs, self.releases[0]);
        }
        std::thread::sleep(Duration::from_millis(2000));
        let said = caller.rest();
        assert_eq!(caller.wait(), Some(0), "{said}");
        let closed = self.drained()[known..].to_vec();
        println!("{said}nothing was accepted for {closed:?}, and while two daemons started: {starts:?}");
        Told { said: serde_json::from_str(&said).unwrap(), closed, starts }
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

/// What came of a load.
struct Told {
    said: Value,
    /// How long each daemon accepted nothing before it ended.
    closed: Vec<Duration>,
    /// How long the starts took together.
    starts: Duration,
}

impl Told {
    /// Nothing was lost over both versions, and every connection was led over to every next daemon.
    #[track_caller]
    fn check(&self) {
        let short = [whole(&self.said, "http1"), whole(&self.said, "http2")];
        let answered: u64 = short.iter().map(|way| number(&way["answered"])).sum();
        let seconds = self.said["seconds"].as_f64().unwrap();
        let served = seconds - self.starts.as_secs_f64() - self.closed.iter().sum::<Duration>().as_secs_f64();
        println!(
            "{:.0} requests were answered each second while somebody was there to answer",
            answered as f64 / served
        );
        // What a machine answers that has much else to do; one that has not answers what is asked for.
        assert!(
            answered as f64 >= f64::from(RATE) / 3.0 * served,
            "{answered} in {served} s is not enough of a load"
        );
        for way in short {
            assert!(number(&way["connections"]) >= 8 * 3, "{:#}", self.said);
        }
    }
}

#[test]
fn restarts_with_another_binary_under_load_lose_no_connection_and_no_response_that_had_begun() {
    let world = World::new();
    let mut load = Load::new(&world);
    let told = load.put(0);
    told.check();
    // Nobody waits for more than a start: short calls end at once.
    assert!(told.closed.iter().all(|closed| *closed < Duration::from_secs(2)), "{:?}", told.closed);

    let told = load.put(1);
    told.check();
    for way in ["long1", "long2"] {
        let way = whole(&told.said, way);
        assert!(number(&way["answered"]) >= 3 && number(&way["longest_ms"]) >= 2000, "{:#}", told.said);
    }
    // Or for the rest of a download that began in the meantime.
    assert!(told.closed.iter().all(|closed| *closed < Duration::from_secs(6)), "{:?}", told.closed);
    load.keeper.stop();
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));
    assert!(!world.journal().iter().any(|record| record["interrupted"] == true), "a call was cut off");
}
