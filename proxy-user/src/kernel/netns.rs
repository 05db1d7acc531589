//! Network namespaces other than the daemon's: entered by a thread of its own, which opens the listeners and ends.
use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
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

/// Opens listeners in the network namespace of a process. The namespace must be the one with this cookie: a process that
/// moved on, or a pid that was used again, does not lead elsewhere. Blocks.
///
/// # Errors
/// The system's own, with what was tried.
pub fn listen_inside(pid: u32, cookie: u64, addresses: [SocketAddr; 2]) -> io::Result<Inside> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let inode = namespace.metadata()?.ino();
    let inside = std::thread::Builder::new().name("netns".into()).spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        let mut listeners = Vec::new();
        for address in addresses {
            match listen_at(address) {
                Ok(listener) if netns_cookie(&listener)? == cookie => listeners.push(listener),
                Ok(_) => return Err(io::Error::other("the process is in another network namespace by now")),
                // A namespace without IPv6 has no need of it.
                Err(error) if address.is_ipv6() && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                Err(error) if address.is_ipv6() && error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listeners)
    })?;
    // The thread ends, and its namespace with it: no other work is ever done inside.
    let listeners = inside.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))??;
    Ok(Inside { inode, listeners })
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
pub fn inhabited() -> Option<std::collections::HashSet<u64>> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let namespaces = processes.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        std::fs::metadata(entry.path().join("ns/net")).ok().map(|meta| meta.ino())
    });
    Some(namespaces.collect())
}
