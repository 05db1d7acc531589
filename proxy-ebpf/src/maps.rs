//! The maps and the globals, and small ways to use them.
use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, SkStorage},
    macros::btf_map,
};
use proxy_common::{
    COUNTER_NAMES, Counter, DaemonSlot, MAX_ORIGINS, Offsets, Origin, OriginKey, PORT_WORDS, ProxyConfig,
    SocketState,
};

#[btf_map]
pub static ORIGINS: HashMap<OriginKey, Origin, { MAX_ORIGINS as usize }> = HashMap::new();
#[btf_map]
pub static SOCKETS: SkStorage<SocketState> = SkStorage::new();
#[btf_map]
pub static CONFIG: Array<ProxyConfig, 1> = Array::new();
#[btf_map]
pub static PORTS: Array<u64, PORT_WORDS> = Array::new();
#[btf_map]
pub static DAEMON: Array<DaemonSlot, 1> = Array::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { COUNTER_NAMES.len() }> = PerCpuArray::new();

/// Set by the loader from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets {
    task_group_leader: 0,
    task_start_time: 0,
    task_mm: 0,
    task_nsproxy: 0,
    mm_exe_file: 0,
    file_inode: 0,
    inode_ino: 0,
    inode_sb: 0,
    sb_dev: 0,
    nsproxy_mnt_ns: 0,
    mnt_ns_inum: 0,
};

/// The offsets as the loader set them (volatile: the compiler must not fold the zeros above).
#[inline(always)]
pub fn offsets() -> Offsets {
    // SAFETY: a read of an initialised static.
    unsafe { core::ptr::read_volatile(&raw const OFFSETS) }
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot belongs to this CPU and programs of one CPU do not nest within a hook.
        unsafe { *slot += 1 }
    }
}

/// Whether the daemon mediates this port (host order).
#[inline(always)]
pub fn is_mediated(port: u16) -> bool {
    match PORTS.get(u32::from(port >> 6)) {
        Some(word) => word & (1 << (port & 63)) != 0,
        None => false,
    }
}
