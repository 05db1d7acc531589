//! Fills the daemon's pinned maps from outside with entries of nobody, up to their bound.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use proxy_common::ABI_VERSION;

use crate::world::World;

/// The size of a value, whatever is in it.
pub const fn size<T>() -> usize {
    size_of::<T>()
}

/// A map that is full of entries of nobody, and kept so; dropping it makes room again.
pub struct Filled {
    over: Arc<AtomicBool>,
    filling: Option<JoinHandle<()>>,
}

impl Filled {
    /// Fills the map `name` with the keys of the numbers 0, 1, 2 … until nothing more goes in, and puts more in as soon as
    /// there is room. Values are zero.
    #[must_use]
    #[track_caller]
    pub fn to_the_bound<K: Pod + Send + 'static, const VALUE: usize>(
        world: &World,
        name: &str,
        key: impl Fn(u32) -> K + Send + 'static,
    ) -> Self {
        let mut map = open::<K, VALUE>(&pin(world, name));
        let mut next = 0;
        while map.insert(key(next), [0; VALUE], NEW).is_ok() {
            next += 1;
        }
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let filling = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match map.insert(key(next), [0; VALUE], NEW) {
                    Ok(()) => next += 1,
                    Err(_) => std::thread::yield_now(),
                }
            }
            for number in 0..next {
                let _ = map.remove(&key(number));
            }
        });
        Self { over, filling: Some(filling) }
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let outcome = self.filling.take().map(JoinHandle::join);
        assert!(matches!(outcome, Some(Ok(())) | None), "the filling of a map failed");
    }
}

/// Puts so many entries into the map `name`, which forgets old ones by itself, on each CPU that we may use: what was put in on
/// one waits there for a while, and is not forgotten for what others put in (kernel/bpf/bpf_lru_list.c).
///
/// # Panics
/// When it does not.
pub fn put<K: Pod, const VALUE: usize>(world: &World, name: &str, count: u32, key: impl Fn(u32) -> K) {
    let mut map = open::<K, VALUE>(&pin(world, name));
    let me = Pid::from_raw(0);
    let all = sched_getaffinity(me).unwrap();
    let usable: Vec<usize> = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap()).collect();
    for (cpu, first) in usable.into_iter().zip((0..).step_by(count as usize)) {
        let mut one = CpuSet::new();
        one.set(cpu).unwrap();
        sched_setaffinity(me, &one).unwrap();
        for number in first..first + count {
            map.insert(key(number), [0; VALUE], 0).unwrap();
        }
    }
    sched_setaffinity(me, &all).unwrap();
}

/// How many entries the map `name` has.
pub fn count<K: Pod, const VALUE: usize>(world: &World, name: &str) -> usize {
    open::<K, VALUE>(&pin(world, name)).keys().filter(Result::is_ok).count()
}

/// Only a key that is not there yet.
const NEW: u64 = 1;

fn pin(world: &World, name: &str) -> std::path::PathBuf {
    world.pins().join(format!("v{ABI_VERSION}")).join(name)
}

#[track_caller]
fn open<K: Pod, const VALUE: usize>(pin: &Path) -> HashMap<MapData, K, [u8; VALUE]> {
    let data = MapData::from_pin(pin).unwrap();
    HashMap::try_from(Map::from_map_data(data).unwrap()).unwrap()
}
