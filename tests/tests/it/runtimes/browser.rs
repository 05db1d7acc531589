//! Browsers: they ask neither the system nor variables, but a database of their user (NSS).

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{Finished, World, finish};

const CHROMIUM: &str = "/usr/lib/chromium/chromium";
/// A client of NSS itself.
const NSS: &str = "/usr/bin/tstclnt";

/// The page of the API, as a program with this user's database sees it.
fn look(world: &World, program: &str, home: &str) -> Finished {
    let (data, database) = (format!("--user-data-dir={home}/data"), format!("sql:{home}/.pki/nssdb"));
    let quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
    let calm = ["--disable-background-networking", "--disable-component-update", "--timeout=20000", &data];
    let request = world.write("request", "GET /v1/x HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n");
    let arguments = match program {
        CHROMIUM => [&quiet[..], &calm, &["--dump-dom", "https://api.test/v1/x"]].concat(),
        _ => vec!["-h", "api.test", "-p", "443", "-d", &database, "-A", request.to_str().unwrap()],
    };
    world.bot(program).env("HOME", home).args(arguments).run()
}

#[test]
fn a_browser_trusts_us_by_the_database_of_its_user_and_as_long_as_we_are_in_it() {
    let world = World::new();
    // Not every distribution has Chromium as a package.
    let programs =
        [NSS, CHROMIUM].into_iter().filter(|program| *program == NSS || Path::new(program).exists());
    let programs: Vec<_> = programs.map(|program| (program, program.rsplit('/').next().unwrap())).collect();
    for (program, name) in &programs {
        world.identity(name, &format!("exe = \"{program}\""));
    }
    world.daemon();
    let database = world.path("home/.pki/nssdb");
    fs::create_dir_all(&database).unwrap();
    let home = world.path("home");
    let (home, database) = (home.to_str().unwrap(), database.to_str().unwrap());
    let place = format!("sql:{database}");
    let made = finish(Command::new("certutil").args(["-N", "--empty-password", "-d", &place]));
    assert_eq!(made.code, Some(0), "{made:?}");

    for (program, name) in &programs {
        let refused = look(&world, program, home);
        assert!(!refused.stdout.contains("ours"), "{refused:?}");
        let record =
            world.record("decision", |record| record["identity"] == *name && record["mistrust"].is_object());
        assert_eq!(record["verdict"], "deny", "{record}");
        assert_eq!(record["mistrust"]["certain"], true, "{record}");
    }
    let installed = world.vouchsafe(&["trust", "install", "--nss", database]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    for (program, _) in &programs {
        let seen = look(&world, program, home);
        assert!(seen.stdout.contains("ours"), "{seen:?}");
    }
    let removed = world.vouchsafe(&["trust", "remove", "--nss", database]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    for (program, _) in &programs {
        let refused = look(&world, program, home);
        assert!(!refused.stdout.contains("ours"), "{refused:?}");
    }
}
