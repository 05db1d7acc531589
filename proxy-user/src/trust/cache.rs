//! A bounded map whose values are made on demand, each key by one caller at a time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// At most `capacity` values. When it is full, the eighth that was asked for least recently goes.
///
/// The map is locked only to find a slot; a value is made under the lock of its slot, so that callers for the same
/// key wait for one making and callers for others do not.
pub(super) struct Cache<K, V> {
    capacity: usize,
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    slots: HashMap<K, Slot<V>>,
    /// Counts the lookups: the time of the least-recently-used order.
    tick: u64,
}

struct Slot<V> {
    value: Arc<Mutex<Option<V>>>,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, inner: Mutex::new(Inner { slots: HashMap::new(), tick: 0 }) }
    }

    /// The value of `key` if it is there and `fresh`; else the one that `make` returns, which is kept.
    pub(super) fn get_or_make<E>(
        &self,
        key: &K,
        fresh: impl FnOnce(&V) -> bool,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        let slot = self.slot(key);
        let mut value = lock(&slot);
        if let Some(kept) = value.as_ref().filter(|kept| fresh(kept)) {
            return Ok(kept.clone());
        }
        let made = make()?;
        *value = Some(made.clone());
        Ok(made)
    }

    fn slot(&self, key: &K) -> Arc<Mutex<Option<V>>> {
        let mut inner = lock(&self.inner);
        inner.tick += 1;
        let tick = inner.tick;
        if let Some(slot) = inner.slots.get_mut(key) {
            slot.used = tick;
            return slot.value.clone();
        }
        if inner.slots.len() >= self.capacity {
            let mut used: Vec<u64> = inner.slots.values().map(|slot| slot.used).collect();
            let (_, &mut newest_to_go, _) = used.select_nth_unstable(self.capacity / 8);
            inner.slots.retain(|_, slot| slot.used > newest_to_go);
        }
        let value = Arc::new(Mutex::new(None));
        inner.slots.insert(key.clone(), Slot { value: value.clone(), used: tick });
        value
    }
}

/// A value is replaced as a whole, so that a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn get(cache: &Cache<u32, u32>, key: u32, value: u32) -> u32 {
        cache.get_or_make(&key, |_| true, || Ok::<_, ()>(value)).unwrap()
    }

    #[test]
    fn a_value_is_made_once_by_many_callers_at_once() {
        let (cache, made) = (Cache::new(8), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache.get_or_make(&1, |_| true, || Ok::<_, ()>(made.fetch_add(1, Ordering::SeqCst)))
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_stale_value_is_made_again_and_a_failure_is_not_kept() {
        let cache = Cache::new(8);
        assert_eq!(get(&cache, 1, 10), 10);
        assert_eq!(cache.get_or_make(&1, |_| false, || Ok::<_, ()>(11)), Ok(11));
        assert_eq!(cache.get_or_make(&2, |_| true, || Err("no")), Err("no"));
        assert_eq!((get(&cache, 1, 12), get(&cache, 2, 20)), (11, 20));
    }

    #[test]
    fn a_full_cache_keeps_what_was_used_last() {
        let cache = Cache::new(16);
        for key in 0..16 {
            get(&cache, key, 0);
        }
        get(&cache, 0, 1);
        for key in 16..1000 {
            get(&cache, key, 0);
            assert_eq!(get(&cache, 0, 1), 0, "used all the time, at {key}");
            assert!(cache.inner.lock().unwrap().slots.len() <= 16);
        }
        assert_eq!(get(&cache, 1, 1), 1, "was not used for long");
    }
}
