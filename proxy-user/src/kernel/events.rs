//! What the programs tell: refusals, questions who somebody is, and what an identity was allowed.
use std::io;

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use proxy_common::{Event, names};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    error::KernelError,
    maps::{failed, take},
};

/// The ring buffer of the programs' events.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let ring = RingBuf::try_from(take(ebpf, names::EVENTS)?).map_err(failed("use the map EVENTS"))?;
        // SAFETY: the ring buffer owns its descriptor and keeps it open and the same for as long as it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(|error| KernelError::Io {
            what: "wait for the programs' events".into(),
            said: io::Error::from(error).to_string(),
        })?;
        Ok(Self { ring })
    }

    /// The next event; waits until there is one. Events that found the buffer full are counted (`events_lost`).
    ///
    /// # Errors
    /// The system's own; there will be no more events.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.ring.get_mut().next().and_then(|item| read(&item)) {
                return Ok(event);
            }
            let mut ready = self.ring.readable_mut().await?;
            // Looked at again between the two: what came before the wait began must not be slept on.
            if let Some(event) = ready.get_inner_mut().next().and_then(|item| read(&item)) {
                return Ok(event);
            }
            ready.clear_ready();
        }
    }
}

fn read(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: as many bytes as an event has, which is made of integers and arrays of integers.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}
