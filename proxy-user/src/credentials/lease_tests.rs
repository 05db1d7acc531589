//! Leases under a clock that the tests move.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;
use tokio::time::{advance, sleep};

use super::*;

/// An issuer whose tokens say for whom they are, and which of all they are.
#[derive(Clone, Default)]
struct Issuer {
    asked: Arc<AtomicUsize>,
    refuses: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    fn leases(&self, lasts: u64) -> Arc<Leases<String, String, &'static str>> {
        let issuer = self.clone();
        Leases::new(move |key: String| {
            let issuer = issuer.clone();
            Box::pin(async move {
                let number = issuer.asked.fetch_add(1, Ordering::SeqCst);
                issuer.log.lock().unwrap().push(key.clone());
                sleep(Duration::from_millis(50)).await;
                if issuer.refuses.load(Ordering::SeqCst) {
                    return Err("refused");
                }
                Ok(Lease { value: format!("{key}#{number}"), lasts: Some(Duration::from_secs(lasts)) })
            })
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_start_cold_wait_once_together() {
    let issuer = Issuer::default();
    let leases = issuer.leases(3600);
    let all = (0..100).map(|_| {
        let leases = Arc::clone(&leases);
        tokio::spawn(async move { leases.get("bot".into()).await })
    });
    for each in all.collect::<Vec<_>>() {
        assert_eq!(each.await.unwrap().unwrap(), "bot#0");
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_used_is_renewed_before_its_end_and_nobody_waits() {
    let issuer = Issuer::default();
    let leases = issuer.leases(100);
    leases.get("bot".into()).await.unwrap();
    for second in 0..1000 {
        sleep(Duration::from_secs(1)).await;
        assert!(leases.fresh("bot").is_some(), "nothing is fresh after {second} s");
    }
    let asked = issuer.asked();
    assert!((11..=18).contains(&asked), "{asked} times in 1000 s");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_nobody_uses_is_not_renewed_and_ends() {
    let issuer = Issuer::default();
    let leases = issuer.leases(100);
    leases.get("bot".into()).await.unwrap();
    sleep(Duration::from_secs(1000)).await;
    // Once, for the use at its beginning.
    assert!(issuer.asked() <= 2, "{}", issuer.asked());
    assert_eq!(leases.fresh("bot"), None);
    leases.get("bot".into()).await.unwrap();
    assert!(leases.fresh("bot").is_some());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_out_at_its_very_end() {
    let issuer = Issuer::default();
    let leases = issuer.leases(100);
    leases.get("bot".into()).await.unwrap();
    issuer.refuses.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(89)).await;
    assert!(leases.fresh("bot").is_some());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(leases.fresh("bot"), None);
    assert_eq!(leases.get("bot".into()).await, Err("refused"));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_refuses_is_left_alone_for_longer_each_time() {
    let issuer = Issuer::default();
    issuer.refuses.store(true, Ordering::SeqCst);
    let leases = issuer.leases(100);
    // Four calls a second, for ten minutes.
    for _ in 0..2400 {
        assert_eq!(leases.get("bot".into()).await, Err("refused"));
        advance(Duration::from_millis(250)).await;
    }
    let asked = issuer.asked();
    assert!((10..=22).contains(&asked), "{asked} times in 600 s");
    issuer.refuses.store(false, Ordering::SeqCst);
    sleep(LONGEST_PAUSE * 2).await;
    assert!(leases.get("bot".into()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_renewal_is_tried_again_while_the_value_lasts() {
    let issuer = Issuer::default();
    let leases = issuer.leases(100);
    leases.get("bot".into()).await.unwrap();
    issuer.refuses.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(81)).await;
    assert!(issuer.asked() >= 2);
    issuer.refuses.store(false, Ordering::SeqCst);
    for _ in 0..200 {
        sleep(Duration::from_secs(1)).await;
        leases.fresh("bot");
    }
    assert!(leases.fresh("bot").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_does_not_break_the_exchange_off() {
    let issuer = Issuer::default();
    let leases = issuer.leases(3600);
    {
        let mut gone = Box::pin(leases.get("bot".into()));
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut gone).await.is_err());
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(leases.fresh("bot").as_deref(), Some("bot#0"));
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_is_asked_for_again() {
    let issuer = Issuer::default();
    let leases = issuer.leases(3600);
    leases.get("bot".into()).await.unwrap();
    leases.forget("bot");
    assert_eq!(leases.fresh("bot"), None);
    assert_eq!(leases.get("bot".into()).await.unwrap(), "bot#1");
}

#[tokio::test(start_paused = true)]
async fn nothing_renews_after_the_leases_are_gone() {
    let issuer = Issuer::default();
    let leases = issuer.leases(100);
    leases.get("bot".into()).await.unwrap();
    leases.fresh("bot");
    drop(leases);
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn to_look_at_what_is_known_is_no_use_of_it() {
    let issuer = Issuer::default();
    let leases = issuer.leases(100);
    assert_eq!(leases.peek("bot"), None);
    leases.get("bot".into()).await.unwrap();
    for _ in 0..10 {
        sleep(Duration::from_secs(8)).await;
        assert!(leases.peek("bot").unwrap().is_ok());
    }
    sleep(Duration::from_secs(1000)).await;
    assert!(issuer.asked() <= 2, "{}", issuer.asked());
    assert_eq!(leases.peek("bot"), None);
    issuer.refuses.store(true, Ordering::SeqCst);
    leases.get("bot".into()).await.unwrap_err();
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(leases.peek("bot"), Some(Err("refused")), "until somebody asks again");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_anew_goes_on_meanwhile() {
    let issuer = Issuer::default();
    let leases = issuer.leases(3600);
    leases.get("bot".into()).await.unwrap();
    leases.renew("bot".into());
    sleep(Duration::from_millis(10)).await;
    assert_eq!(leases.fresh("bot").as_deref(), Some("bot#0"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(leases.fresh("bot").as_deref(), Some("bot#1"));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_kept_is_forgotten_and_not_renewed() {
    let issuer = Issuer::default();
    let leases = issuer.leases(100);
    for key in ["bot", "other"] {
        leases.get(key.into()).await.unwrap();
        leases.fresh(key);
    }
    leases.retain(|key| key == "other");
    assert_eq!((leases.fresh("bot"), leases.keys()), (None, vec!["other".to_owned()]));
    sleep(Duration::from_secs(89)).await;
    let log = issuer.log.lock().unwrap();
    assert_eq!(log.iter().filter(|it| *it == "bot").count(), 1);
    assert!(log.iter().filter(|it| *it == "other").count() > 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn no_identity_ever_gets_what_was_obtained_for_another(
        steps in proptest::collection::vec((0_usize..5, 0_u64..400, 0_u8..4), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let issuer = Issuer::default();
            let leases = issuer.leases(100);
            let mut waiting = Vec::new();
            for (identity, seconds, what) in steps {
                let name = format!("identity-{identity}");
                match what {
                    0 => sleep(Duration::from_secs(seconds)).await,
                    1 => leases.forget(name.as_str()),
                    2 => {
                        let fresh = leases.fresh(name.as_str());
                        prop_assert!(fresh.is_none_or(|it| it.starts_with(&(name.clone() + "#"))));
                    }
                    _ => {
                        let leases = Arc::clone(&leases);
                        waiting.push(tokio::spawn(async move { (leases.get(name.clone()).await, name) }));
                    }
                }
            }
            for each in waiting {
                let (got, name) = each.await.unwrap();
                prop_assert!(got.unwrap().starts_with(&(name.clone() + "#")));
            }
            Ok(())
        })?;
    }
}
