//! What was obtained and does not last: kept for whom it was obtained, renewed ahead of its end, asked for once at a time.
//!
//! A value is fresh until shortly before it expires. A task of each value renews it before that, as long as somebody uses
//! it, so that no call waits for what could have been had before. Whoever finds nothing fresh asks, together with all who
//! ask at that moment; a failure is told to everybody for a while that grows, and the issuer is left alone meanwhile.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::{Instant, sleep_until};

/// Nothing is renewed more often than this, whatever the issuer says of its end.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long a failure is told at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The end of what does not say when it ends: it is asked for again after this.
const UNSAID: Duration = Duration::from_secs(300);

/// What an issuer gave.
#[derive(Debug, Clone)]
pub struct Lease<V> {
    /// What is leased.
    pub value: V,
    /// For how long it lasts from the moment at which it was asked for; `None` when that is not said.
    pub lasts: Option<Duration>,
}

/// What is awaited from an issuer.
pub type Obtaining<V, E> = Pin<Box<dyn Future<Output = Result<Lease<V>, E>> + Send>>;

type Obtain<K, V, E> = dyn Fn(K) -> Obtaining<V, E> + Send + Sync;

/// Values by whom they were obtained for. A value is only ever given to the key that it was obtained for.
pub struct Leases<K, V, E> {
    slots: RwLock<HashMap<K, Arc<Slot<V, E>>>>,
    obtain: Box<Obtain<K, V, E>>,
}

struct Slot<V, E> {
    fresh: ArcSwapOption<Fresh<V>>,
    failed: ArcSwapOption<Failure<E>>,
    /// Held while it is asked for.
    asking: Arc<tokio::sync::Mutex<()>>,
    /// Somebody used it since it was obtained.
    used: AtomicBool,
    renewing: AtomicBool,
}

struct Fresh<V> {
    value: V,
    asked: Instant,
    /// When it must be had anew.
    renew: Instant,
    /// From when on it is not given to anybody.
    end: Instant,
}

struct Failure<E> {
    error: E,
    until: Instant,
    pause: Duration,
}

/// What is known of a lease, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// When it was asked for.
    pub asked: Instant,
    /// When it ends.
    pub end: Instant,
}

impl<V, E> Default for Slot<V, E> {
    fn default() -> Self {
        Self {
            fresh: ArcSwapOption::empty(),
            failed: ArcSwapOption::empty(),
            asking: Arc::default(),
            used: AtomicBool::new(false),
            renewing: AtomicBool::new(false),
        }
    }
}

impl<V, E> Slot<V, E> {
    fn fresh(&self, now: Instant) -> Option<arc_swap::Guard<Option<Arc<Fresh<V>>>>> {
        let fresh = self.fresh.load();
        fresh.as_ref().is_some_and(|it| now < it.end).then_some(fresh)
    }
}

impl<K, V, E> Leases<K, V, E>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Nothing yet. `obtain` asks the issuer on behalf of a key.
    #[must_use]
    pub fn new(obtain: impl Fn(K) -> Obtaining<V, E> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { slots: RwLock::default(), obtain: Box::new(obtain) })
    }

    /// What is fresh for a key, without waiting. Must be called inside of the runtime.
    pub fn fresh<Q>(self: &Arc<Self>, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let (own, slot) = slots.get_key_value(key)?;
        let now = Instant::now();
        let fresh = slot.fresh(now)?;
        let fresh = fresh.as_ref()?;
        slot.used.store(true, Ordering::Relaxed);
        if now >= fresh.renew {
            // It was not used when it should have been renewed.
            self.keep_fresh(own.clone(), slot);
        }
        Some(fresh.value.clone())
    }

    /// What is known for a key, which is no use of it: what is fresh, or why the last one who asked got nothing.
    pub fn peek<Q>(&self, key: &Q) -> Option<Result<V, E>>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(key)?;
        if let Some(fresh) = slot.fresh(Instant::now()) {
            return fresh.as_ref().map(|it| Ok(it.value.clone()));
        }
        slot.failed.load().as_ref().map(|it| Err(it.error.clone()))
    }

    /// Asks anew for a key, also when it has something fresh, which goes on meanwhile. Must be called inside of the runtime.
    pub fn renew(self: &Arc<Self>, key: K) {
        let (this, slot) = (Arc::clone(self), self.slot(&key));
        tokio::spawn(async move {
            let asking = Arc::clone(&slot.asking).lock_owned().await;
            // Whoever needs it is told.
            let asked = this.ask(&key, &slot).await;
            drop(asking);
            if asked.is_ok() {
                this.keep_fresh(key, &slot);
            }
        });
    }

    /// Forgets all keys but these, with all that is known of them.
    pub fn retain(&self, keep: impl Fn(&K) -> bool) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|key, slot| {
            let kept = keep(key);
            if !kept {
                // Its task ends when it finds nothing.
                slot.fresh.store(None);
            }
            kept
        });
    }

    /// Since when and until when a key has what it has.
    pub fn term<Q>(&self, key: &Q) -> Option<Term>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = slots.get(key)?.fresh.load();
        fresh.as_ref().map(|it| Term { asked: it.asked, end: it.end })
    }

    /// The keys that have been asked for.
    pub fn keys(&self) -> Vec<K> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Takes everything back that is known for a key, as after a refusal by whom it was shown to.
    pub fn forget<Q>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(slot) = self.slots.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            slot.fresh.store(None);
        }
    }

    /// Takes everything back, of all keys.
    pub fn forget_all(&self) {
        for slot in self.slots.read().unwrap_or_else(PoisonError::into_inner).values() {
            slot.fresh.store(None);
        }
    }

    /// Lets those ask again who were told of a failure: what it was made of is another by now.
    pub fn forgive(&self) {
        for slot in self.slots.read().unwrap_or_else(PoisonError::into_inner).values() {
            slot.failed.store(None);
        }
    }

    /// What is fresh for a key; asks for it, or waits with those who do.
    ///
    /// # Errors
    /// What the issuer said, now or a moment ago.
    pub async fn get(self: &Arc<Self>, key: K) -> Result<V, E> {
        let slot = self.slot(&key);
        slot.used.store(true, Ordering::Relaxed);
        let asking = Arc::clone(&slot.asking).lock_owned().await;
        let now = Instant::now();
        if let Some(fresh) = slot.fresh(now)
            && let Some(fresh) = fresh.as_ref()
        {
            return Ok(fresh.value.clone());
        }
        if let Some(failed) = slot.failed.load().as_ref()
            && now < failed.until
        {
            return Err(failed.error.clone());
        }
        // In a task: a client that goes away must not break an exchange off that the issuer has begun.
        let (this, own) = (Arc::clone(self), Arc::clone(&slot));
        let asked = tokio::spawn(async move {
            let result = this.ask(&key, &own).await;
            drop(asking);
            if result.is_ok() {
                this.keep_fresh(key, &own);
            }
            result
        });
        match asked.await {
            Ok(result) => result,
            // The task panicked, or the runtime ends.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn slot(&self, key: &K) -> Arc<Slot<V, E>> {
        if let Some(slot) = self.slots.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Arc::clone(slot);
        }
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    /// Asks the issuer, while the slot's `asking` is held.
    async fn ask(&self, key: &K, slot: &Slot<V, E>) -> Result<V, E> {
        let asked = Instant::now();
        match (self.obtain)(key.clone()).await {
            Ok(Lease { value, lasts }) => {
                let lasts = lasts.unwrap_or(UNSAID).max(SHORTEST);
                let fresh = Fresh {
                    value: value.clone(),
                    asked,
                    renew: asked + renew_after(lasts),
                    end: asked + given_for(lasts),
                };
                slot.fresh.store(Some(Arc::new(fresh)));
                slot.failed.store(None);
                Ok(value)
            }
            Err(error) => {
                let before = slot.failed.load().as_ref().map(|failed| failed.pause);
                let pause = before.map_or(PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
                let until = Instant::now() + jittered(pause);
                slot.failed.store(Some(Arc::new(Failure { error: error.clone(), until, pause })));
                Err(error)
            }
        }
    }

    /// Renews a slot ahead of its end as long as it is used, and the leases are there.
    fn keep_fresh(self: &Arc<Self>, key: K, slot: &Arc<Slot<V, E>>) {
        if slot.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (leases, slot) = (Arc::downgrade(self), Arc::clone(slot));
        tokio::spawn(async move {
            renew(leases, key, &slot).await;
            slot.renewing.store(false, Ordering::Release);
        });
    }
}

async fn renew<K, V, E>(leases: Weak<Leases<K, V, E>>, key: K, slot: &Arc<Slot<V, E>>)
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    loop {
        let failed = slot.failed.load().as_ref().map(|failed| failed.until);
        let Some(renew) = slot.fresh.load().as_ref().map(|fresh| fresh.renew) else { return };
        sleep_until(failed.map_or(renew, |until| until.max(renew))).await;
        let Some(leases) = leases.upgrade() else { return };
        if !slot.used.swap(false, Ordering::Relaxed) {
            // Nobody called since: the next one that does waits once.
            return;
        }
        let asking = Arc::clone(&slot.asking).lock_owned().await;
        let now = Instant::now();
        // Somebody else may have asked meanwhile, or taken it back.
        if slot.fresh.load().as_ref().is_none_or(|fresh| fresh.renew > now) {
            continue;
        }
        if leases.ask(&key, slot).await.is_err() {
            // It is wanted, so it is tried again.
            slot.used.store(true, Ordering::Relaxed);
            if slot.fresh(Instant::now()).is_none() {
                return;
            }
        }
        drop(asking);
    }
}

/// When something that lasts so long is had anew: after six to eight tenths of it, so that many do not come at once.
fn renew_after(lasts: Duration) -> Duration {
    lasts * (600 + u32::from(random()) * 200 / 255) / 1000
}

/// For how long it is given out: a tenth of its life before the end, at most half a minute, is left for the call itself.
fn given_for(lasts: Duration) -> Duration {
    lasts - (lasts / 10).min(Duration::from_secs(30))
}

/// Somewhat more or less, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause * (750 + u32::from(random()) * 500 / 255) / 1000
}

/// Not for secrets.
fn random() -> u8 {
    let mut byte = [0];
    // Without randomness nothing is spread, and nothing else is lost.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let [byte] = byte;
    byte
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
