//! The kernel side seen from user space: probe, load, attach, pin, maps. The only aya and the only unsafe.
//!
//! Links and maps are pinned below `<pin>/v<ABI_VERSION>/`: programs stay attached when the daemon dies, and the next
//! daemon takes them over in place. With the daemon gone nobody listens, so governed connections fail: closed.
#![allow(unsafe_code, reason = "raw system calls for what aya and nix do not offer; each has its SAFETY")]

pub mod btf;
pub mod cgroup;
mod descriptors;
mod error;
mod events;
mod handover;
mod introduce;
mod links;
mod maps;
mod netns;
mod network;
pub mod own;
mod protect;
mod running;
mod schedule;
mod unread;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use aya::include_bytes_aligned;
use aya_log::EbpfLogger;
use nix::sys::{
    resource::{RLIM_INFINITY, Resource, setrlimit},
    statfs::{BPF_FS_MAGIC, statfs},
};
use proxy_common::{ABI_VERSION, names};
use tokio::io::{Interest, unix::AsyncFd};

pub use self::{
    cgroup::Cgroups,
    descriptors::keep_from_programs,
    error::KernelError,
    events::Events,
    handover::{inherited, take_listener},
    introduce::{clock_ticks, is_closed, netns_cookie},
    maps::{OriginTable, Programs},
    netns::{Inside, Served, inhabited, listen_inside},
    network::{KernelRule, Network, Stand},
    protect::Protecting,
    running::Reading,
    schedule::{stand_last, step_back},
    unread::{unacknowledged, window},
};
#[cfg(test)]
pub(crate) use schedule::tests::standing;

use running::Running;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vouchsafe.bpf.o"));

/// What is to be attached where.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The governed cgroup.
    pub cgroups: &'a Cgroups,
    /// The pin directory as configured.
    pub pin: &'a Path,
    /// The proxy's listeners, IPv4 and IPv6; they must be bound already.
    pub listen: [SocketAddr; 2],
    /// Cookie of the network namespace that they are in.
    pub home: u64,
    /// Mediated ports.
    pub ports: &'a [u16],
    /// Generation of the first policy.
    pub generation: u64,
    /// Its network rules.
    pub rules: &'a [KernelRule],
    /// Whether others than root are to be kept from tracing.
    pub protect: bool,
    /// Whether the programs report what they do (`debug`).
    pub verbose: bool,
}

/// What the other parts of the daemon use of the kernel side.
pub struct Handles {
    /// Origins that wait for their accept.
    pub origins: OriginTable,
    /// Network rules and standings.
    pub network: Network,
    /// What processes execute.
    pub programs: Programs,
    /// What the programs tell.
    pub events: Events,
    /// The network namespaces in which the proxy listens.
    pub served: Served,
}

/// The kernel side, in place. Dropping it leaves everything attached.
pub struct Kernel {
    pins: PathBuf,
    lacks: Vec<&'static links::Spec>,
    protecting: Protecting,
    controls: Mutex<maps::Controls>,
    taken_over: usize,
    logger: Mutex<Option<EbpfLogger<&'static dyn log::Log>>>,
}

/// The directory of this layout's pins.
fn pin_directory(pin: &Path) -> PathBuf {
    pin.join(format!("v{ABI_VERSION}"))
}

impl Kernel {
    /// How many programs there are when all are attached that this kernel can have.
    #[must_use]
    pub fn expected_programs(&self) -> usize {
        links::PROGRAMS.iter().filter(|spec| !self.lacks.iter().any(|lack| lack.name == spec.name)).count()
    }

    /// What this kernel lacks, and what that costs. Protection speaks for itself ([`Kernel::protecting`]).
    #[must_use]
    pub fn lacks(&self) -> Vec<String> {
        let told = |spec: &&links::Spec| Some(format!("no {}: {}", spec.feature, spec.without?));
        self.lacks.iter().filter(|spec| !protect::is_one(spec)).filter_map(told).collect()
    }

    /// Whether others than root are kept from tracing.
    #[must_use]
    pub fn protecting(&self) -> &Protecting {
        &self.protecting
    }

    /// Probes, loads, configures, attaches and introduces the daemon.
    ///
    /// The order is what makes it safe to attach: the listeners stand, the maps say where they are, then the hooks
    /// turn connections to them.
    ///
    /// # Errors
    /// [`KernelError`]; nothing new is attached then, and what an earlier daemon attached stays.
    pub fn start(plan: &Plan<'_>, reading: Reading) -> Result<(Self, Handles), KernelError> {
        let Running { btf, offsets, mut loader } = reading.end()?;
        let (mut protecting, protection) = protect::plan(plan.protect, &btf, plan.cgroups)?;
        drop(btf);
        // Before 5.11 maps are charged to RLIMIT_MEMLOCK; a failure shows at the load.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);

        let pins = pin_directory(plan.pin);
        prepare_pins(plan.pin, &pins)?;

        let level: u8 = if plan.verbose { aya_log::Level::Debug as u8 } else { 0 };
        let types = links::Types::default();
        // What the loader points to lives as long as the daemon: so it can be dropped elsewhere.
        loader.override_global(names::OFFSETS, &*Box::leak(Box::new(offsets)), true);
        protect::hand_over(&mut loader, Box::leak(Box::new(protection)));
        loader.override_global(aya_log::LEVEL, &*Box::leak(Box::new(level)), false);
        for map in names::PINNED_MAPS {
            loader.map_pin_path(map, pins.join(map));
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| match error::os_error(&error) {
            Some(libc::EPERM) => KernelError::Permission { what: "create BPF maps".into() },
            Some(_) => KernelError::Io { what: "create BPF maps".into(), said: error::chain(&error) },
            None => KernelError::Object(error::chain(&error)),
        })?;
        // With it go the kernel's types, which are hundreds of thousands of pieces.
        let _ = std::thread::Builder::new().name("types".to_owned()).spawn(move || drop(loader));
        let mut lacks = links::load(&mut ebpf, protecting == Protecting::On, &types)?;
        if let Some(name) = protect::missing(&protecting, &lacks) {
            protecting = Protecting::Unavailable(format!(
                "this kernel does not load the program {name}; start with log.level = \"debug\" to see why"
            ));
            // All or nothing.
            lacks.extend(protect::specs());
        }
        let logger: &'static dyn log::Log = log::logger();
        let logger = EbpfLogger::init_with_logger(&mut ebpf, logger).ok();

        let mut controls = maps::Controls::open(&mut ebpf)?;
        let origins = OriginTable::open(&mut ebpf)?;
        let network = Network::open(&mut ebpf)?;
        network.apply(plan.generation, plan.rules)?;
        let programs = Programs::open(&mut ebpf)?;
        let events = Events::open(&mut ebpf)?;
        let served = Served::open(&mut ebpf, plan.home)?;
        maps::name_variables(&mut ebpf)?;
        controls.configure(plan.listen, plan.ports)?;
        let seen = links::sees_processes(&pins);
        let taken_over = links::attach(&mut ebpf, plan.cgroups.governed(), &pins, &lacks)?;
        links::record_processes(&mut ebpf, seen, protecting == Protecting::On, &types)?;
        if plan.cgroups.contains_me() {
            introduce::introduce(&mut controls).inspect_err(|_| {
                // Programs that capture wrongly must not stay; without them nothing is governed and nothing is served.
                let _ = links::detach(&pins);
            })?;
        } else {
            controls.announce(0)?;
        }
        // What a daemon of another layout left would go on turning to us, with maps that nobody reads any more.
        for other in links::layouts(plan.pin).iter().filter(|other| **other != pins) {
            tracing::info!(pins = %other.display(), "taking off what another version attached");
            links::detach(other).map_err(KernelError::io(format!("remove {}", other.display())))?;
        }
        let kernel = Self {
            pins,
            lacks,
            protecting,
            controls: Mutex::new(controls),
            taken_over,
            logger: Mutex::new(logger),
        };
        Ok((kernel, Handles { origins, network, programs, events, served }))
    }

    /// Names of the attached programs.
    #[must_use]
    pub fn programs(&self) -> Vec<&'static str> {
        links::pinned(&self.pins)
    }

    /// How many links were taken over from an earlier daemon.
    #[must_use]
    pub fn taken_over(&self) -> usize {
        self.taken_over
    }

    /// What the programs counted, over all CPUs.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner).counters()
    }

    /// Hands the programs' messages to the daemon's log, until the task is dropped.
    pub async fn forward_messages(&self) {
        let taken = self.logger.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(logger) = taken else { return };
        // SAFETY: the logger owns its descriptor and keeps it open and the same for as long as it lives.
        let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
        let Ok(mut logger) = registered else { return };
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}

/// What is attached by daemons with this pin directory, of whatever layout.
#[must_use]
pub fn attached(pin: &Path) -> Vec<&'static str> {
    let mut names: Vec<_> = links::layouts(pin).iter().flat_map(|pins| links::pinned(pins)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Takes everything off that daemons with this pin directory attached, deliberately.
///
/// # Errors
/// The system's own.
pub fn detach(pin: &Path) -> io::Result<()> {
    for pins in links::layouts(pin) {
        links::detach(&pins)?;
    }
    let _ = std::fs::remove_dir(pin);
    Ok(())
}

/// Makes the folder for the pins and checks that it is on a bpffs.
fn prepare_pins(pin: &Path, pins: &Path) -> Result<(), KernelError> {
    let no_bpffs = || KernelError::NoBpffs { path: pin.to_owned() };
    let existing = pin.ancestors().find(|path| path.exists()).ok_or_else(no_bpffs)?;
    let kind = statfs(existing).map_err(|_| no_bpffs())?.filesystem_type();
    if kind != BPF_FS_MAGIC {
        return Err(no_bpffs());
    }
    std::fs::create_dir_all(pins).map_err(KernelError::io(format!("make the folder {}", pins.display())))
}
