//! Network namespaces other than the daemon's: entered by a thread of its own, which opens the listeners and ends.
use std::{
    collections::HashSet,
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
        sockopt,
    },
};
use proxy_common::names;

use super::{
    error::{KernelError, chain},
    introduce::netns_cookie,
    maps::{failed, take},
};

/// How many namespaces are looked into for one.
const MOST_TRIED: usize = 1024;

/// The namespaces in which the proxy listens, as the programs know them.
pub struct Served {
    map: Mutex<HashMap<MapData, u64, u32>>,
}

impl Served {
    /// Only the daemon's own namespace is served at first: listeners of an earlier daemon are gone with it.
    pub(super) fn open(ebpf: &mut Ebpf, home: u64) -> Result<Self, KernelError> {
        let mut map: HashMap<MapData, u64, u32> =
            HashMap::try_from(take(ebpf, names::SERVED)?).map_err(failed("use the map SERVED"))?;
        map.insert(home, 1, 0).map_err(failed("write the map SERVED"))?;
        let others: Vec<u64> = map.keys().filter_map(Result::ok).filter(|cookie| *cookie != home).collect();
        for cookie in others {
            map.remove(&cookie).map_err(failed("write the map SERVED"))?;
        }
        Ok(Self { map: Mutex::new(map) })
    }

    /// Lets connections of this namespace go.
    ///
    /// # Errors
    /// In words: the map is full.
    pub fn add(&self, cookie: u64) -> Result<(), String> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(cookie, 1, 0).map_err(|error| chain(&error))
    }

    /// Holds connections of this namespace back again.
    pub fn remove(&self, cookie: u64) {
        let _ = self.map.lock().unwrap_or_else(PoisonError::into_inner).remove(&cookie);
    }
}

/// Listeners inside another network namespace.
#[derive(Debug)]
pub struct Inside {
    /// Inode number of the namespace, as `/proc/PID/ns/net` shows it.
    pub inode: u64,
    /// One for each address.
    pub listeners: Vec<TcpListener>,
}

/// Opens listeners in the network namespace that has this cookie. It is looked for where `pid` is, and then, since that
/// may be gone or have another number here, where any process is. Blocks.
///
/// # Errors
/// The system's own, with what was tried; no process is in the namespace any more.
pub fn listen_inside(pid: u32, cookie: u64, addresses: [SocketAddr; 2]) -> io::Result<Inside> {
    let mut seen = HashSet::new();
    let others = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        Some(entry.path())
    });
    for process in std::iter::once(PathBuf::from(format!("/proc/{pid}"))).chain(others) {
        let Ok(namespace) = File::open(process.join("ns/net")) else { continue };
        let inode = namespace.metadata()?.ino();
        if !seen.insert(inode) {
            continue;
        }
        if let Some(listeners) = enter(namespace, cookie, addresses)? {
            return Ok(Inside { inode, listeners });
        }
        if seen.len() > MOST_TRIED {
            return Err(io::Error::other("it is not among the first namespaces that were looked into"));
        }
    }
    Err(io::Error::other("no process is in it any more"))
}

/// Opens the listeners in a namespace, if it is the one with this cookie, from a thread that ends afterwards, and its place
/// in that namespace with it: no other work is ever done inside.
fn enter(namespace: File, cookie: u64, addresses: [SocketAddr; 2]) -> io::Result<Option<Vec<TcpListener>>> {
    let inside = std::thread::Builder::new().name("netns".into()).spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        let probe = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        if netns_cookie(&probe)? != cookie {
            return Ok(None);
        }
        let mut listeners = Vec::new();
        for address in addresses {
            match listen_at(address) {
                Ok(listener) => listeners.push(listener),
                // A namespace without IPv6 has no need of it.
                Err(error)
                    if address.is_ipv6()
                        && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(listeners))
    })?;
    inside.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&listener, Backlog::new(4096).unwrap_or(Backlog::MAXCONN))?;
    Ok(listener.into())
}

/// The network namespaces that processes are in now, by inode number; `None` when `/proc` cannot be read.
#[must_use]
pub fn inhabited() -> Option<HashSet<u64>> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let namespaces = processes.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        std::fs::metadata(entry.path().join("ns/net")).ok().map(|meta| meta.ino())
    });
    Some(namespaces.collect())
}
