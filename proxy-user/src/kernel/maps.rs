//! The maps that the programs share with the daemon.
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
};
use proxy_common::{
    COUNTER_NAMES, Capture, DaemonSlot, LOADER_VARIABLES, Origin, OriginKey, PORT_WORDS, Program,
    ProxyConfig, mapped, names,
};

use super::error::{KernelError, chain};
use crate::base::addr::ClientAddr;

pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, KernelError> {
    ebpf.take_map(name).ok_or_else(|| KernelError::Object(format!("it holds no map {name}")))
}

pub(super) fn failed(what: &str) -> impl FnOnce(aya::maps::MapError) -> KernelError {
    let what = what.to_owned();
    move |error| KernelError::Io { what, said: chain(&error) }
}

pub(super) fn array<T: Pod>(ebpf: &mut Ebpf, name: &str) -> Result<Array<MapData, T>, KernelError> {
    Array::try_from(take(ebpf, name)?).map_err(failed(&format!("use the map {name}")))
}

/// Origins that wait for their accept.
#[derive(Debug)]
pub struct OriginTable {
    map: Mutex<HashMap<MapData, OriginKey, Origin>>,
}

impl OriginTable {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let map = HashMap::try_from(take(ebpf, names::ORIGINS)?).map_err(failed("use the map ORIGINS"))?;
        Ok(Self { map: Mutex::new(map) })
    }

    /// Takes the origin of an accepted connection out of the table. Each is there once: a second connection from the
    /// same address does not inherit it. `None`: nobody that the kernel saw opened this connection.
    #[must_use]
    pub fn take(&self, netns_cookie: u64, client: ClientAddr) -> Option<Origin> {
        let key = key(netns_cookie, client);
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = map.get(&key, 0).ok()?;
        // Whoever removes it has it.
        map.remove(&key).ok()?;
        Some(origin)
    }

    /// How many wait now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).keys().filter(Result::is_ok).count()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn key(netns_cookie: u64, client: ClientAddr) -> OriginKey {
    let addr = match client.ip() {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    };
    OriginKey { netns_cookie, addr, port: client.port(), reserved: [0; 6] }
}

/// What every process was seen to execute.
pub struct Programs {
    map: Mutex<HashMap<MapData, u32, Program>>,
}

impl Programs {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let map = HashMap::try_from(take(ebpf, names::PROGRAMS)?).map_err(failed("use the map PROGRAMS"))?;
        Ok(Self { map: Mutex::new(map) })
    }

    /// What the process with this id executes now. `None`: it is gone, or was never seen.
    #[must_use]
    pub fn of(&self, pid: u32) -> Option<Program> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).get(&pid, 0).ok()
    }
}

/// Tells the programs which variables they look for in an environment.
pub(super) fn name_variables(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let mut map: HashMap<MapData, u64, u32> =
        HashMap::try_from(take(ebpf, names::VARIABLES)?).map_err(failed("use the map VARIABLES"))?;
    for (start, bit, _) in &LOADER_VARIABLES {
        map.insert(u64::from_ne_bytes(**start), 1_u32 << bit, 0)
            .map_err(failed("write the map VARIABLES"))?;
    }
    Ok(())
}

/// What the daemon writes for the programs, and the counters that it reads.
pub(super) struct Controls {
    config: Array<MapData, ProxyConfig>,
    ports: Array<MapData, u64>,
    daemon: Array<MapData, DaemonSlot>,
    counters: PerCpuArray<MapData, u64>,
}

impl Controls {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            config: array(ebpf, names::CONFIG)?,
            ports: array(ebpf, names::PORTS)?,
            daemon: array(ebpf, names::DAEMON)?,
            counters: PerCpuArray::try_from(take(ebpf, names::COUNTERS)?)
                .map_err(failed("use the map COUNTERS"))?,
        })
    }

    /// Tells the programs where to turn what.
    pub(super) fn configure(&mut self, listen: [SocketAddr; 2], ports: &[u16]) -> Result<(), KernelError> {
        let mut config = ProxyConfig::default();
        for address in listen {
            match address.ip() {
                IpAddr::V4(v4) => (config.listen_v4, config.port_v4) = (v4.octets(), address.port()),
                IpAddr::V6(v6) => (config.listen_v6, config.port_v6) = (v6.octets(), address.port()),
            }
        }
        self.config.set(0, config, 0).map_err(failed("write the map CONFIG"))?;
        let mut words = [0_u64; PORT_WORDS];
        for port in ports {
            if let Some(word) = words.get_mut(usize::from(port >> 6)) {
                *word |= 1 << (port & 63);
            }
        }
        for (index, word) in (0_u32..).zip(words) {
            self.ports.set(index, word, 0).map_err(failed("write the map PORTS"))?;
        }
        Ok(())
    }

    /// Announces the socket by which the daemon introduces itself; 0 withdraws it.
    pub(super) fn announce(&mut self, hello_cookie: u64) -> Result<(), KernelError> {
        let slot = DaemonSlot { hello_cookie, capture: Capture::default() };
        self.daemon.set(0, slot, 0).map_err(failed("write the map DAEMON"))
    }

    /// Who introduced itself.
    pub(super) fn daemon(&self) -> Result<DaemonSlot, KernelError> {
        self.daemon.get(&0, 0).map_err(failed("read the map DAEMON"))
    }

    pub(super) fn counters(&self) -> Vec<(&'static str, u64)> {
        (0_u32..)
            .zip(COUNTER_NAMES)
            .map(|(index, name)| {
                let sum = self.counters.get(&index, 0).map_or(0, |values| values.iter().sum());
                (name, sum)
            })
            .collect()
    }
}
