//! Accepts on listeners, in whatever network namespace they are, and hands over what has an origin.
use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
};

use tokio::{net::TcpListener, sync::Semaphore, task::AbortHandle};

use crate::{
    accept::{Listener, Places},
    connection::{self, Services},
    kernel::OriginTable,
    workload::Workloads,
};

/// What every listener needs.
#[derive(Clone)]
pub(super) struct Acceptor {
    pub(super) services: Arc<Services>,
    pub(super) origins: Arc<OriginTable>,
    pub(super) workloads: Arc<Workloads>,
    /// Bounds the connections that are open at once, over all listeners.
    pub(super) places: Arc<Semaphore>,
    /// Connections without an origin.
    pub(super) without_origin: Arc<AtomicU64>,
    /// Cookie of the daemon's own network namespace.
    pub(super) home: u64,
}

impl Acceptor {
    /// Serves what comes on a listener, until the task is aborted, or the socket is taken down, which `dead` is told.
    ///
    /// # Errors
    /// The kernel's own, when it cannot name the listener's network namespace.
    pub(super) fn accept_from(
        &self,
        socket: TcpListener,
        dead: impl FnOnce() + Send + 'static,
    ) -> io::Result<AbortHandle> {
        let places = Places { places: Arc::clone(&self.places), unknown: Arc::clone(&self.without_origin) };
        let listener =
            Listener::new(socket, Arc::clone(&self.origins), Arc::clone(&self.workloads), places, self.home)?;
        let services = Arc::clone(&self.services);
        let task = tokio::spawn(async move {
            while let Some(accepted) = listener.next().await {
                tokio::spawn(connection::serve(accepted, Arc::clone(&services)));
            }
            dead();
        });
        Ok(task.abort_handle())
    }
}
