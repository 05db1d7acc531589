//! Network rules and standings: what may pass without the proxy, and for whom.
use crate::Capture;

/// A network rule: traffic that is neither mediated nor refused. The key of a longest-prefix trie; all but the address is
/// always compared as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkKey {
    /// Generation of the policy that the rule is of.
    pub generation: u32,
    /// [`EVERYBODY`], or the identity plus one.
    pub identity: u32,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u32,
    /// The port, host order; 0: every port.
    pub port: u32,
    /// The address, network order; IPv4 as v4-mapped IPv6.
    pub addr: [u8; 16],
}

/// Rules under this identity hold for every governed workload.
pub const EVERYBODY: u32 = 0;

/// Bits of a [`NetworkKey`] before the address.
pub const NETWORK_KEY_BITS: u32 = 128;

/// The facts that an identity depends on, as far as the kernel can see them. Two processes with the same facts have the
/// same identity: a file that changes, also by being renamed or replaced, has another `exe_ctime_ns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// As in [`Capture`].
    pub exe_ino: u64,
    /// As in [`Capture`].
    pub exe_ctime_ns: u64,
    /// As in [`Capture`].
    pub cgroup_id: u64,
    /// As in [`Capture`].
    pub exe_dev: u32,
    /// As in [`Capture`].
    pub uid: u32,
    /// As in [`Capture`].
    pub gid: u32,
    /// Generation of the policy that the standing is of.
    pub generation: u32,
    /// As in [`Capture`].
    pub environment: u32,
    /// As in [`Capture`], or 0: the facts are those of every start.
    pub exec_tgid: u32,
    /// As in [`Capture`], or 0: the facts are those of every start.
    pub exec_ns: u64,
}

impl Facts {
    /// The facts of a capture that every start of the program has, under one generation of the policy.
    #[must_use]
    pub const fn of(capture: &Capture, generation: u32) -> Self {
        Self {
            exe_ino: capture.exe_ino,
            exe_ctime_ns: capture.exe_ctime_ns,
            cgroup_id: capture.cgroup_id,
            exe_dev: capture.exe_dev,
            uid: capture.uid,
            gid: capture.gid,
            generation,
            environment: capture.environment,
            exec_tgid: 0,
            exec_ns: 0,
        }
    }
}

/// What the daemon found out about workloads with the same [`Facts`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The identity plus one; 0: none; [`STANDS_BY_START`].
    pub identity: u32,
    /// Not 0: everything that is not mediated may pass (the host's setting for workloads that no policy knows);
    /// [`PASSES_AND_IS_TOLD`]: and each pass is told.
    pub pass: u32,
}

/// What `pass` is where nothing is denied, and what would be is recorded.
pub const PASSES_AND_IS_TOLD: u32 = 2;

/// Which identity it is depends on how the program was started (its script): look again, with the `exec_*`.
pub const STANDS_BY_START: u32 = u32::MAX;

const _: () = assert!(size_of::<NetworkKey>() == 32);
const _: () = assert!(size_of::<Facts>() == 56);
const _: () = assert!(size_of::<Standing>() == 8);
