//! Serves workloads in network namespaces other than the daemon's: containers, units with a network of their own.
//!
//! The kernel side holds a connection back whose namespace has no listener of ours, and tells. We listen inside, and let it
//! go: its next SYN comes after a second. A listener keeps a namespace alive, so one without processes is left.
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, task::AbortHandle};

use super::listeners::Acceptor;
use crate::kernel::{Served, inhabited, listen_inside};

/// How often it is looked for namespaces that nobody is in any more.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The namespaces that are served.
pub(super) struct Namespaces {
    addresses: [SocketAddr; 2],
    served: Served,
    acceptor: Acceptor,
    inside: Mutex<HashMap<u64, Inside>>,
    refused: AtomicU64,
}

/// One of them.
enum Inside {
    /// Its listeners are being opened.
    Opening,
    Open {
        inode: u64,
        /// Whether nobody was seen in it when it was last looked.
        deserted: bool,
        tasks: Vec<AbortHandle>,
    },
}

impl Namespaces {
    pub(super) fn new(addresses: [SocketAddr; 2], served: Served, acceptor: Acceptor) -> Self {
        Self { addresses, served, acceptor, inside: Mutex::default(), refused: AtomicU64::new(0) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Inside>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cookie of the daemon's own namespace.
    pub(super) fn home(&self) -> u64 {
        self.acceptor.home
    }

    /// How many are served, besides the daemon's own.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Begins to serve the namespace that this process is in, unless that is done already. Does not wait.
    pub(super) fn serve(self: &Arc<Self>, cookie: u64, pid: u32) {
        {
            let mut inside = self.lock();
            if inside.contains_key(&cookie) {
                return;
            }
            inside.insert(cookie, Inside::Opening);
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(why) = this.open(cookie, pid).await {
                tracing::warn!(pid, why, "cannot serve a network namespace; its connections are held back");
                this.lock().remove(&cookie);
            }
        });
    }

    async fn open(self: &Arc<Self>, cookie: u64, pid: u32) -> Result<(), String> {
        let addresses = self.addresses;
        let opened = tokio::task::spawn_blocking(move || listen_inside(pid, cookie, addresses)).await;
        let opened = opened.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        // They stand; what comes before they are accepted from waits in their queue. When it cannot be added they are closed.
        self.served.add(cookie).inspect_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        let tasks = self.accept(cookie, opened.listeners).inspect_err(|_| self.served.remove(cookie))?;
        tracing::info!(pid, namespace = opened.inode, "serving a network namespace");
        self.lock().insert(cookie, Inside::Open { inode: opened.inode, deserted: false, tasks });
        Ok(())
    }

    fn accept(
        self: &Arc<Self>,
        cookie: u64,
        listeners: Vec<std::net::TcpListener>,
    ) -> Result<Vec<AbortHandle>, String> {
        let mut tasks = Vec::new();
        for listener in listeners {
            let this = Arc::clone(self);
            let dead = move || this.lost(cookie);
            let task = TcpListener::from_std(listener).and_then(|it| self.acceptor.accept_from(it, dead));
            match task {
                Ok(task) => tasks.push(task),
                Err(error) => {
                    tasks.iter().for_each(AbortHandle::abort);
                    return Err(error.to_string());
                }
            }
        }
        Ok(tasks)
    }

    /// How often one could not be served because the kernel's table of them is full.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Somebody took a listener down: connections are held back again, until the next one has it opened anew.
    fn lost(&self, cookie: u64) {
        self.served.remove(cookie);
        if let Some(Inside::Open { inode, tasks, .. }) = self.lock().remove(&cookie) {
            tasks.iter().for_each(AbortHandle::abort);
            tracing::error!(namespace = inode, "the listener in a network namespace was taken down");
        }
    }

    /// Holds new connections back in all of them: their next SYN comes after a second, and finds the next daemon. What is
    /// established already is still accepted.
    pub(super) fn hold_back(&self) {
        self.lock().keys().for_each(|cookie| self.served.remove(*cookie));
    }

    /// Leaves namespaces that nobody is in any more, for as long as it is not dropped.
    pub(super) async fn leave_deserted(self: Arc<Self>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            if self.count() == 0 {
                continue;
            }
            let Ok(Some(inhabited)) = tokio::task::spawn_blocking(inhabited).await else { continue };
            self.lock().retain(|cookie, inside| {
                let Inside::Open { inode, deserted, tasks } = inside else { return true };
                let again = std::mem::replace(deserted, !inhabited.contains(inode));
                // Twice in a row: a process may have been about to enter it.
                if !(*deserted && again) {
                    return true;
                }
                self.served.remove(*cookie);
                tasks.iter().for_each(AbortHandle::abort);
                tracing::info!(namespace = *inode, "left a network namespace that nobody is in");
                false
            });
        }
    }
}
