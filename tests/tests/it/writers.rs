//! Executables that others can write or exchange: they are nobody's identity, and the reason says which file and who.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use serde_json::Value;
use tests::World;

/// `plain.test`, which takes anybody's call: whether one arrives is the proxy's doing.
const PLAIN: &str = "203.0.113.10:80";
/// The user that bots run as, and somebody else.
const BOT: u32 = 4242;
const OTHER: u32 = 4343;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A call of a program as the bot's user: the status, what the bot was told, and the decision.
#[track_caller]
fn call(world: &World, program: &Path, path: &str) -> (String, String, Value) {
    let told = world.bot(program).user(BOT, BOT).args(["get", PLAIN, path]).run();
    let status = told.stdout.split(' ').nth(1).unwrap_or_default().to_owned();
    (status, told.stdout, world.decision(Some(path)))
}

fn sha256(path: &Path) -> String {
    let told = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(told.stdout).unwrap()[..64].to_owned()
}

#[test]
fn a_bot_whose_file_others_can_write_is_refused_and_told_which_file_and_why() {
    let world = World::start();
    let bot = world.path("bots/actor");
    assert_eq!(call(&world, &bot, "/v1/before").0, "200");
    for (path, owner, group, bits, why) in [
        ("/v1/everybody", 0, 0, 0o757, "can be written by everybody (mode 757)"),
        ("/v1/group", 0, OTHER, 0o775, "can be written by group 4343 (mode 775)"),
        ("/v1/owner", OTHER, 0, 0o755, "belongs to uid 4343, who can change it"),
    ] {
        chown(&bot, Some(owner), Some(group)).unwrap();
        mode(&bot, bits);
        let (status, told, decided) = call(&world, &bot, path);
        assert_eq!((status.as_str(), decided["identity"].clone()), ("403", Value::Null), "{path}");
        let why = format!("{} {why}", bot.display());
        assert!(told.contains(&why), "{path}: the bot is told {told}");
        let reason = decided["reason"].as_str().unwrap();
        assert!(reason.contains("is not actor: ") && reason.contains(&why), "{path}: {reason}");
        assert!(!told.contains("is not actor"), "{path}: the policy is nothing for a bot to hear: {told}");
    }
    // Its own user may write it, and root's group is root.
    for (path, owner, bits) in [("/v1/own", BOT, 0o755), ("/v1/roots-group", 0, 0o775)] {
        chown(&bot, Some(owner), Some(0)).unwrap();
        mode(&bot, bits);
        assert_eq!(call(&world, &bot, path).0, "200", "{path}");
    }
    assert_eq!(world.seen_at_least(3).len(), 3, "the API saw a call that was refused");
}

#[test]
fn in_a_folder_that_others_can_write_a_path_is_nobody_and_a_content_is_still_itself() {
    let world = World::new();
    world.without_identities();
    let bot = world.path("bots/actor");
    world.identity("by-path", "exe = \"{root}/bots/actor\"");
    let digest = sha256(Path::new("/usr/bin/python3"));
    world.identity("by-content", &format!("sha256 = \"{digest}\""));
    world.daemon();
    mode(&world.path("bots"), 0o777);
    let (status, told, _) = call(&world, &bot, "/v1/path");
    let why = format!(
        "{} can be written by everybody (mode 777), and so what is in it",
        world.path("bots").display()
    );
    assert!(status == "403" && told.contains(&why), "{told}");

    let script = "import sys, urllib.request\n\
                  try: print(urllib.request.urlopen('http://plain.test' + sys.argv[1]).status)\n\
                  except urllib.error.HTTPError as error: print(error.code)";
    let python = |path: &str| {
        let told = world.bot("python3").user(BOT, BOT).args(["-c", script, path]).run();
        (told.stdout.trim().to_owned(), world.decision(Some(path)))
    };
    let (status, decided) = python("/v1/content");
    assert_eq!((status.as_str(), decided["identity"].clone()), ("200", "by-content".into()));
    mode(&world.path("bots/python3"), 0o757);
    let (status, decided) = python("/v1/content-that-changes");
    assert_eq!((status.as_str(), decided["identity"].clone()), ("403", Value::Null));
    let reason = decided["reason"].as_str().unwrap();
    assert!(reason.contains("bots/python3 can be written by everybody"), "{reason}");
}

#[test]
fn who_puts_a_program_of_his_own_at_the_bots_path_is_not_the_bot() {
    let world = World::start();
    let bot = world.path("bots/actor");
    fs::create_dir(world.path("his")).unwrap();
    chown(world.path("his"), Some(OTHER), Some(OTHER)).unwrap();
    let as_other = |arguments: &[&str]| {
        let told = world.bot(arguments[0]).user(OTHER, OTHER).args(&arguments[1..]).run();
        assert_eq!(told.code, Some(0), "{told:?}");
    };
    let (his, path) = (world.path("his/actor"), bot.to_str().unwrap());
    as_other(&["/usr/bin/cp", path, his.to_str().unwrap()]);
    mode(&world.path("bots"), 0o777);
    as_other(&["/usr/bin/mv", "-f", his.to_str().unwrap(), path]);
    // Even after the folder is as it should be again.
    mode(&world.path("bots"), 0o755);
    let (status, told, decided) = call(&world, &bot, "/v1/his");
    assert_eq!((status.as_str(), decided["identity"].clone()), ("403", Value::Null), "{told}");

    // Where everybody can put files, nor is he himself, unless the policy means him.
    fs::remove_file(&bot).unwrap();
    mode(&world.path("bots"), 0o1777);
    as_other(&["/usr/bin/cp", world.path("elsewhere/curl").to_str().unwrap(), path]);
    let as_himself = || {
        let arguments = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "http://plain.test/v1/himself"];
        world.bot(&bot).user(OTHER, OTHER).args(arguments).run().stdout
    };
    assert_eq!(as_himself(), "403");
    world.identity("actor", "exe = \"{root}/bots/actor\"\nuser = \"4343\"");
    world.wait_for_generation(2);
    assert_eq!(as_himself(), "200");
}

#[test]
fn an_identity_that_is_only_a_file_is_warned_of_and_goes_live() {
    let world = World::start();
    world.identity("actor", "exe = \"{root}/bots/actor\"\nuser = \"root\"");
    let checked = world.vouchsafe(&["check", world.path("etc").to_str().unwrap()]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let warning = |name: &str| {
        let place = world.path("etc/policies").join(format!("{name}.toml:2:7"));
        format!("{}: warning: \"exe\" alone lets every user", place.display())
    };
    assert!(checked.stderr.contains(&warning("curl")), "{checked:?}");
    assert!(!checked.stderr.contains(&warning("actor")), "{checked:?}");
    assert!(checked.stderr.contains("help: add user, unit or cgroup"), "{checked:?}");
    assert!(world.log().contains(&warning("curl")), "{}", world.log());
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
}

#[test]
fn who_shows_the_file_and_what_is_wrong_with_it() {
    let world = World::start();
    let bot = world.path("bots/actor");
    let mut process = world.bot(&bot).args(["wait", PLAIN, "/"]).spawn();
    assert_eq!(process.line(), "waiting");
    chown(&bot, None, Some(OTHER)).unwrap();
    mode(&bot, 0o775);
    let told = world.vouchsafe(&["who", &process.pid().to_string()]);
    assert_eq!(told.code, Some(1));
    let why = format!("{} can be written by group 4343 (mode 775); only root", bot.display());
    assert!(told.stdout.contains(&format!("is not actor: {why}")), "{told:?}");
    assert!(told.stdout.contains(&format!("    no   exe     {}", bot.display())), "{told:?}");
}
