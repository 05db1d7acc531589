//! Programs of the configuration that print secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::super::canary::Log;
use super::super::live::tests::World;
use super::super::sources::Sources;
use super::*;
use crate::config::Config;

fn script(folder: &Path, text: &str) {
    let path = folder.join("tool");
    let counted = format!("#!/bin/sh\necho run >>{}/runs\n{text}\n", folder.display());
    fs::write(&path, counted).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// How often the program has run.
fn runs(folder: &Path) -> usize {
    fs::read_to_string(folder.join("runs")).unwrap_or_default().lines().count()
}

/// Sources with a program `tool`.
fn sources(world: &World, folder: &Path, more: &str) -> Arc<Sources> {
    let text = format!("[exec.tool]\ncommand = [\"{}/tool\", \"--show\", \"x\"]\n{more}\n", folder.display());
    let programs = Config::parse(Path::new("v.toml"), &text).unwrap().exec;
    let sources = Arc::new(Sources::new(world.store.clone()));
    sources.reach(None, programs, &world.outcall(), None);
    sources
}

fn tool() -> SecretRef {
    SecretRef::parse("exec:tool").unwrap()
}

fn told(held: Result<Held, SourceError>) -> Result<(String, u64), String> {
    let text = |held: &Held| String::from_utf8(held.secret.expose().to_vec()).unwrap();
    held.map(|held| (text(&held), held.version)).map_err(|error| error.to_string())
}

/// Waits for a condition, and not for a time.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn what_a_program_prints_is_the_secret_without_one_line_break() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    script(folder.path(), "printf 'to p\\n\\n'; [ \"$2\" = x ]");
    let sources = sources(&world, folder.path(), "");
    assert!(sources.held(&tool()).is_none(), "nothing waits, and nothing is made up");
    let all = (0..8).map(|_| {
        let sources = Arc::clone(&sources);
        tokio::spawn(async move { told(sources.fetch(&tool()).await) })
    });
    for each in all.collect::<Vec<_>>() {
        assert_eq!(each.await.unwrap(), Ok(("to p\n".to_owned(), 1)));
    }
    assert_eq!(runs(folder.path()), 1);
    assert_eq!(sources.held(&tool()).map(told), Some(Ok(("to p\n".to_owned(), 1))));
    assert_eq!(sources.peek(&tool()).map(told), Some(Ok(("to p\n".to_owned(), 1))));
}

#[tokio::test]
async fn a_program_runs_before_its_secret_is_needed_and_again_while_it_is_used() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    script(folder.path(), "echo one");
    let sources = sources(&world, folder.path(), "every = \"1s\"");
    sources.prepare(&[&tool()]);
    assert_eq!(runs(folder.path()), 0, "not before the daemon can be seen by the kernel side");
    sources.follow();
    until("it is at hand", async || sources.held(&tool()).is_some()).await;
    let before = sources.held(&tool()).unwrap().ok().unwrap();
    until("it ran again", async || {
        drop(sources.held(&tool()));
        runs(folder.path()) > 2
    })
    .await;
    let same = sources.fetch(&tool()).await.ok().unwrap();
    assert!(Arc::ptr_eq(&before.secret, &same.secret), "the same content stays the same secret");
    script(folder.path(), "echo two");
    until("it is new", async || told(sources.fetch(&tool()).await) == Ok(("two".to_owned(), 2))).await;
    sources.prepare(&[]);
    assert!(sources.held(&tool()).is_none(), "what no reference names is forgotten");
}

#[tokio::test]
async fn a_program_that_gives_nothing_is_told_without_its_words_and_left_alone_for_a_while() {
    for (text, says) in [
        ("echo CANARY; echo CANARY >&2; exit 7", "status 7"),
        ("echo", "printed nothing"),
        ("exec sleep 20", "longer than 1 s"),
        ("exec head -c 70000 /dev/zero", "more than 65536 bytes"),
    ] {
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        script(folder.path(), text);
        let sources = sources(&world, folder.path(), "timeout = \"1s\"");
        let error = told(sources.fetch(&tool()).await).unwrap_err();
        assert!(error.contains(says) && !error.contains("CANARY"), "{error}");
        for _ in 0..5 {
            told(sources.fetch(&tool()).await).unwrap_err();
        }
        assert_eq!(runs(folder.path()), 1, "{text}");
        assert!(sources.peek(&tool()).is_some_and(|it| it.is_err()), "the state says so");
        script(folder.path(), "echo one");
        sources.reload().unwrap();
        assert_eq!(told(sources.fetch(&tool()).await), Ok(("one".to_owned(), 1)), "tried again at once");
    }
}

#[tokio::test]
async fn a_program_that_others_can_change_is_not_run() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    script(folder.path(), "echo one");
    fs::set_permissions(folder.path().join("tool"), fs::Permissions::from_mode(0o777)).unwrap();
    let error = told(sources(&world, folder.path(), "").fetch(&tool()).await).unwrap_err();
    assert!(error.contains("only root may be able to change it"), "{error}");
    assert_eq!(runs(folder.path()), 0);
}

#[tokio::test]
async fn a_program_gets_the_variables_that_are_named_and_no_others() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    script(folder.path(), "echo \"${CARGO_MANIFEST_DIR:-none} ${CARGO_PKG_NAME:-none}\"");
    let sources = sources(&world, folder.path(), "env = [\"CARGO_PKG_NAME\"]");
    let (text, _) = told(sources.fetch(&tool()).await).unwrap();
    let passed = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "none".to_owned());
    assert_eq!(text, format!("none {passed}"));
}

#[tokio::test]
async fn what_a_program_prints_is_in_no_log_at_any_level() {
    let (log, _guard) = Log::begin();
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    script(folder.path(), "echo CANARY-one; echo CANARY-error >&2");
    let sources = sources(&world, folder.path(), "");
    assert_eq!(told(sources.fetch(&tool()).await).unwrap().0, "CANARY-one");
    script(folder.path(), "echo CANARY-two");
    sources.reload().unwrap();
    until("it is new", async || told(sources.fetch(&tool()).await).is_ok_and(|it| it.1 == 2)).await;
    let log = log.text();
    assert!(log.contains("exec:tool changed") && !log.contains("CANARY"), "{log}");
    let numbers = format!("{:?}", b"CANARY");
    assert!(!log.contains(numbers.trim_matches(['[', ']'])), "{log}");
}
