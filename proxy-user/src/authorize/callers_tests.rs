//! A new policy finds who has connections, once each, and nobody is turned back.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::authorize::PolicyStore;
use crate::authorize::tests::{live, workload};

/// Finds the identity that has the name of the executable, and counts how often it was asked.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Identifier for Counting {
    fn identify<'a>(
        &'a self,
        workload: &'a Arc<Workload>,
        live: &'a Arc<LivePolicy>,
    ) -> Pin<Box<dyn Future<Output = Identified> + Send + 'a>> {
        Box::pin(std::future::ready(self.find(workload, live)))
    }

    fn find(&self, workload: &Arc<Workload>, live: &Arc<LivePolicy>) -> Identified {
        self.0.fetch_add(1, Ordering::Relaxed);
        let found = workload.exe.as_deref().and_then(|name| live.set().identity_named(name));
        found.map_or_else(|| Identified::None("nobody".into()), |identity| Identified::One(identity.id))
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn caller(workload: &Arc<Workload>, store: &PolicyStore, asked: &Counting) -> Arc<Caller> {
    Arc::new(Caller::identify(Arc::clone(workload), store, asked).await)
}

/// Puts the same policy with `newcomer` live, as a reload does.
fn reload(callers: &Callers, store: &PolicyStore, asked: &Counting, until: Instant) {
    let next =
        live(&[("policies/newcomer.toml", "[identity]\nexe = \"/opt/new\"\n")], store.generation() + 1);
    let next = Arc::new(next);
    let ahead = callers.ahead(&next, asked, until);
    store.swap(&next, || callers.turn(&ahead));
}

#[tokio::test]
async fn no_open_connection_waits_for_a_new_policy_and_each_workload_is_found_once() {
    let (store, asked, callers) = (PolicyStore::new(live(&[], 1)), Counting::default(), Callers::default());
    let (bot, new) = (workload("bot"), workload("newcomer"));
    let mut open = Vec::new();
    for workload in [&bot, &bot, &new] {
        let caller = caller(workload, &store, &asked).await;
        callers.add(&caller);
        open.push(caller);
    }
    asked.0.store(0, Ordering::Relaxed);
    reload(&callers, &store, &asked, soon());
    assert_eq!(asked.0.load(Ordering::Relaxed), 2, "two workloads");
    for (caller, name) in open.iter().zip(["bot", "bot", "newcomer"]) {
        let subject = caller.current(&store, &asked).await;
        assert_eq!(subject.live().generation(), 2);
        assert_eq!(subject.identity().unwrap().name, name);
    }
    assert_eq!(asked.0.load(Ordering::Relaxed), 2, "nothing was left to find");
}

#[tokio::test]
async fn those_for_whom_there_was_no_time_are_found_when_they_ask() {
    let (store, asked, callers) = (PolicyStore::new(live(&[], 1)), Counting::default(), Callers::default());
    let late = caller(&workload("newcomer"), &store, &asked).await;
    callers.add(&late);
    asked.0.store(0, Ordering::Relaxed);
    reload(&callers, &store, &asked, Instant::now());
    assert_eq!(asked.0.load(Ordering::Relaxed), 0);
    assert_eq!(late.current(&store, &asked).await.identity().unwrap().name, "newcomer");
}

#[tokio::test]
async fn nobody_is_turned_back_to_an_older_policy() {
    let (store, asked, callers) = (PolicyStore::new(live(&[], 1)), Counting::default(), Callers::default());
    let caller = caller(&workload("bot"), &store, &asked).await;
    callers.add(&caller);
    let older = callers.ahead(&Arc::new(live(&[], 2)), &asked, soon());
    store.swap(&Arc::new(live(&[], 3)), || {});
    assert_eq!(caller.current(&store, &asked).await.live().generation(), 3);
    asked.0.store(0, Ordering::Relaxed);
    callers.turn(&older);
    assert_eq!(caller.current(&store, &asked).await.live().generation(), 3);
    assert_eq!(asked.0.load(Ordering::Relaxed), 0, "it still knew");
}

#[tokio::test]
async fn callers_of_connections_that_are_over_are_forgotten() {
    let (store, asked, callers) = (PolicyStore::new(live(&[], 1)), Counting::default(), Callers::default());
    let stays = caller(&workload("bot"), &store, &asked).await;
    callers.add(&stays);
    for _ in 0..1000 {
        callers.add(&caller(&workload("bot"), &store, &asked).await);
    }
    assert!(callers.0.lock().unwrap().callers.len() <= FEW);
    assert_eq!(callers.present().len(), 1);
}
