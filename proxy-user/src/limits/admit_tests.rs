//! Several limits at once, and what is given back.
use std::time::Duration;

use proxy_policy::{Limits, Place, Spanned};

use super::*;
use crate::limits::{Ledger, Registry};

struct Scene {
    _dir: tempfile::TempDir,
    registry: Registry,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new(Arc::new(Ledger::open(dir.path()).unwrap()));
        Self { _dir: dir, registry }
    }

    fn scope(&self, key: &str, limits: &[&str], wait: Duration) -> Arc<Scope> {
        let each = limits.iter().map(|text| Spanned::new(text.parse().unwrap(), Place::default()));
        let limits = Limits { each: each.collect(), wait };
        self.registry.scope(key, key.to_owned(), &limits).unwrap()
    }
}

async fn ask(scopes: &[&Arc<Scope>]) -> Result<Pass, Exceeded> {
    Admission::ask(scopes).await.map(|(pass, _)| pass)
}

const AT_ONCE: Duration = Duration::ZERO;

#[tokio::test]
async fn all_limits_hold_and_a_refused_call_takes_nothing_from_any() {
    let scene = Scene::new();
    let wide = scene.scope("identity/bot", &["1000/h burst 3", "100/day"], AT_ONCE);
    let narrow = scene.scope("grant/bot/a/0", &["1/h burst 1"], AT_ONCE);
    assert!(ask(&[&wide, &narrow]).await.is_ok());
    for _ in 0..10 {
        let refused = ask(&[&wide, &narrow]).await.unwrap_err();
        assert_eq!((refused.whose.as_str(), refused.limit.as_str()), ("grant/bot/a/0", "1/h burst 1"));
        assert!(refused.retry_after > Duration::from_secs(3590), "{refused:?}");
    }
    // Two of the burst are left, because the refused ones gave theirs back.
    assert!(ask(&[&wide]).await.is_ok());
    assert!(ask(&[&wide]).await.is_ok());
    assert_eq!(ask(&[&wide]).await.unwrap_err().limit.as_str(), "1000/h burst 3");
    let day = scene.registry.ledger().quota("identity/bot calls", proxy_policy::Period::Day);
    assert_eq!(day.used(SystemTime::now()).amount, 3);
}

#[tokio::test]
async fn a_place_is_free_again_when_its_call_ends() {
    let scene = Scene::new();
    let scope = scene.scope("api/a", &["2 at once"], AT_ONCE);
    let one = ask(&[&scope]).await.unwrap();
    let two = ask(&[&scope]).await.unwrap();
    let refused = ask(&[&scope]).await.unwrap_err();
    assert!(refused.to_string().contains("free again when a call ends"), "{refused}");
    drop(one);
    let three = ask(&[&scope]).await.unwrap();
    drop((two, three));
    assert!(ask(&[&scope]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_may_wait_waits_for_his_turn_and_no_longer() {
    let scene = Scene::new();
    let patient = scene.scope("api/a", &["1 at once"], Duration::from_secs(5));
    let pass = ask(&[&patient]).await.unwrap();
    let waiting = tokio::spawn({
        let patient = Arc::clone(&patient);
        async move { ask(&[&patient]).await }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(pass);
    let pass = waiting.await.unwrap().unwrap();
    let began = tokio::time::Instant::now();
    assert!(ask(&[&patient]).await.is_err());
    assert_eq!(began.elapsed().as_secs(), 5);
    drop(pass);
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_gives_its_turn_back() {
    let scene = Scene::new();
    let scope = scene.scope("api/a", &["1/s burst 1"], Duration::from_secs(60));
    assert!(ask(&[&scope]).await.is_ok());
    for _ in 0..5 {
        let gone = tokio::time::timeout(Duration::from_millis(1), ask(&[&scope])).await;
        assert!(gone.is_err());
    }
    let (_, waited) = Admission::ask(&[&scope]).await.unwrap();
    assert!(waited < Duration::from_secs(3), "{waited:?}: those who left still had their turns");
}

#[tokio::test]
async fn bytes_are_counted_as_they_go_and_refuse_the_next_call() {
    let scene = Scene::new();
    let scope = scene.scope("identity/bot", &["1 KiB/day"], AT_ONCE);
    let pass = ask(&[&scope]).await.unwrap();
    assert!(pass.counts_bytes());
    pass.count(1023);
    assert!(ask(&[&scope]).await.is_ok());
    pass.count(1);
    let refused = ask(&[&scope]).await.unwrap_err();
    assert!(refused.retry_after <= Duration::from_secs(86_400), "{refused:?}");
}

#[tokio::test]
async fn a_limit_that_stays_the_same_over_a_reload_keeps_what_was_used() {
    let scene = Scene::new();
    let before = scene.scope("api/a", &["1/h burst 1"], AT_ONCE);
    assert!(ask(&[&before]).await.is_ok());
    let after = scene.scope("api/a", &["1/h burst 1"], AT_ONCE);
    drop(before);
    assert!(ask(&[&after]).await.is_err());
    let other = scene.scope("api/b", &["1/h burst 1"], AT_ONCE);
    assert!(ask(&[&other]).await.is_ok());
    let changed = scene.scope("api/a", &["2/h burst 2"], AT_ONCE);
    assert!(ask(&[&changed]).await.is_ok());
}
