//! What a start wants to know of the running kernel whatever is configured: megabytes of types, read by a thread of its own meanwhile.
use std::thread::{self, JoinHandle};

use aya::EbpfLoader;
use proxy_common::Offsets;

use super::{KernelError, btf};

/// What was read.
pub(super) struct Running {
    /// The kernel's types as it shows them.
    pub(super) btf: Vec<u8>,
    pub(super) offsets: Offsets,
    /// It reads the types itself, when it is made.
    pub(super) loader: EbpfLoader<'static>,
}

/// The reading of it, which goes on.
pub struct Reading(Option<JoinHandle<Result<Running, KernelError>>>);

impl Reading {
    /// Begins it.
    #[must_use]
    pub fn begin() -> Self {
        // Without a thread it is read when it is wanted.
        Self(thread::Builder::new().name("types".to_owned()).spawn(read).ok())
    }

    /// Waits for its end.
    pub(super) fn end(self) -> Result<Running, KernelError> {
        match self.0.map(JoinHandle::join) {
            Some(Ok(running)) => running,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => read(),
        }
    }
}

fn read() -> Result<Running, KernelError> {
    let btf = std::fs::read(btf::KERNEL_BTF)
        .map_err(|why| KernelError::NoBtf { path: btf::KERNEL_BTF.to_owned(), why })?;
    let offsets = btf::offsets(&btf)?;
    Ok(Running { btf, offsets, loader: EbpfLoader::new() })
}
