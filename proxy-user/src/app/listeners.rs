//! Accepts on listeners, in whatever network namespace they are, and hands over what has an origin.
use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::AbortHandle,
};

use crate::{
    accept::{Listener, Places},
    connection::{self, Listening, OpenConnection, Services},
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
    /// Turns true when nothing more is to be accepted.
    pub(super) closing: watch::Receiver<bool>,
}

/// How many connections that wait in the queue of a listener are taken before it is closed: without systemd they would be
/// lost with it.
const LAST: usize = 4096;

impl Acceptor {
    /// Serves what comes on a listener, until the daemon closes it, the task is aborted, or the socket is taken down, which
    /// `dead` is told. What was accepted is served in any case, and what waits in the queue when the daemon closes it.
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
        let mut closing = self.closing.clone();
        let listening = Listening::count(&services);
        let task = tokio::spawn(async move {
            let _listening = listening;
            let mut last = LAST;
            loop {
                let arrived = tokio::select! {
                    biased;
                    arrived = listener.next() => arrived,
                    () = turned(&mut closing) => return,
                };
                let Some(arrived) = arrived else { break };
                if let Some(accepted) = listener.admit(arrived).await {
                    // Before anything else can run: the drain must not overlook it.
                    let open = OpenConnection::count(&services);
                    tokio::spawn(connection::serve(accepted, Arc::clone(&services), open));
                }
                if *closing.borrow() {
                    last = last.saturating_sub(1);
                    if last == 0 {
                        return;
                    }
                }
            }
            dead();
        });
        Ok(task.abort_handle())
    }
}

/// Ends when it turned true; never, when whoever would turn it is gone.
async fn turned(closing: &mut watch::Receiver<bool>) {
    if closing.wait_for(|closing| *closing).await.is_err() {
        std::future::pending::<()>().await;
    }
}
