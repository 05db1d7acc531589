//! Attached programs: pinned, so that they outlive the daemon, and replaced in place, so that a restart leaves no gap.
use std::{
    collections::HashMap,
    ffi::CString,
    fs::File,
    io,
    num::NonZero,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};

use aya::{
    Btf, BtfError, Ebpf,
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError, links::FdLink},
};

use super::{
    error::{KernelError, chain, os_error, verdict},
    protect,
};

/// One program: its name in the object, what it is attached as, and the first kernel that has that.
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) feature: &'static str,
    pub(super) since: &'static str,
    /// What is lost without it; `None`: nothing goes without it.
    pub(super) without: Option<&'static str>,
}

/// Programs that watch the whole system, by the tracepoint that they are named after.
const TRACEPOINTS: [(&str, &str); 3] =
    [("on_exec", "sched_process_exec"), ("on_fork", "sched_process_fork"), ("on_exit", "sched_process_exit")];

const BPF_LSM: &str = "BPF LSM for cgroups (`bpf` in /sys/kernel/security/lsm)";
const WITHOUT_TUNNEL: &str = "tunnel devices are not refused; they need CAP_NET_ADMIN: take it from bots";

/// LSM programs, by the hook that they are named after.
const LSM_HOOKS: [(&str, &str); 5] = [
    ("on_ptrace", "ptrace_access_check"),
    ("on_traceme", "ptrace_traceme"),
    ("on_socket_create", "socket_create"),
    ("on_tun_create", "tun_dev_create"),
    ("on_tun_open", "tun_dev_open"),
];

/// Runs once over all processes.
const ITERATOR: &str = "on_each_task";

const PROTECT: &str = "BPF LSM (`bpf` in /sys/kernel/security/lsm)";
const WITHOUT_PROTECT: &str = "others than root are not kept from tracing";

/// All programs, in the order in which they are attached: what publishes stands before what turns, what vets before what
/// drops.
pub(super) static PROGRAMS: [Spec; 17] = [
    // First: who is asked for must be known.
    Spec { name: "on_exec", feature: "raw tracepoint sched_process_exec", since: "4.17", without: None },
    Spec { name: "on_fork", feature: "raw tracepoint sched_process_fork", since: "4.17", without: None },
    Spec { name: "on_exit", feature: "raw tracepoint sched_process_exit", since: "4.17", without: None },
    // Only where the configuration says so.
    Spec { name: "on_ptrace", feature: PROTECT, since: "5.7", without: Some(WITHOUT_PROTECT) },
    Spec { name: "on_traceme", feature: PROTECT, since: "5.7", without: Some(WITHOUT_PROTECT) },
    Spec {
        name: "on_sock_ops",
        feature: "sock_ops program with socket storage",
        since: "5.8",
        without: None,
    },
    Spec { name: "on_getpeername4", feature: "cgroup getpeername4 hook", since: "5.8", without: None },
    Spec { name: "on_getpeername6", feature: "cgroup getpeername6 hook", since: "5.8", without: None },
    Spec { name: "on_sendmsg4", feature: "cgroup sendmsg4 hook", since: "4.18", without: None },
    Spec { name: "on_sendmsg6", feature: "cgroup sendmsg6 hook", since: "4.18", without: None },
    Spec {
        name: "on_connect4",
        feature: "cgroup connect4 hook with socket storage",
        since: "5.10",
        without: None,
    },
    Spec {
        name: "on_connect6",
        feature: "cgroup connect6 hook with socket storage",
        since: "5.10",
        without: None,
    },
    Spec {
        name: "on_sock_create",
        feature: "cgroup sock_create hook with socket storage",
        since: "5.10",
        without: None,
    },
    Spec {
        name: "on_socket_create",
        feature: BPF_LSM,
        since: "6.0",
        without: Some(
            "packet sockets and other families past IP are not refused; take CAP_NET_RAW from bots",
        ),
    },
    Spec { name: "on_tun_create", feature: BPF_LSM, since: "6.0", without: Some(WITHOUT_TUNNEL) },
    Spec { name: "on_tun_open", feature: BPF_LSM, since: "6.0", without: Some(WITHOUT_TUNNEL) },
    // Last: it drops what the others have not vetted.
    Spec {
        name: "on_egress",
        feature: "cgroup_skb program with socket storage",
        since: "5.10",
        without: None,
    },
];

/// The kernel's own types, which are megabytes: read when the first program wants them, and once for all that do.
#[derive(Default)]
pub(super) struct Types {
    read: OnceLock<Btf>,
    reading: Mutex<()>,
}

impl Types {
    fn get(&self) -> Result<&Btf, BtfError> {
        let _others = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read.get() {
            Some(types) => Ok(types),
            None => Btf::from_sys_fs().map(|types| self.read.get_or_init(|| types)),
        }
    }
}

/// Loads every program, those that protect only if they are wanted; the verifier's refusal names the feature. Returns what
/// can be done without, and is.
pub(super) fn load(
    ebpf: &mut Ebpf,
    protects: bool,
    types: &Types,
) -> Result<Vec<&'static Spec>, KernelError> {
    let has_lsm = has_bpf_lsm();
    let is_wanted = |spec: &Spec| (protects || !protect::is_one(spec)) && (spec.without.is_none() || has_lsm);
    let mut programs: HashMap<_, _> = ebpf.programs_mut().collect();
    let mut wanted = Vec::new();
    for spec in PROGRAMS.iter().filter(|spec| is_wanted(spec)) {
        let program = programs.remove(spec.name).ok_or_else(|| absent(spec))?;
        wanted.push((spec, program));
    }
    let mut lacks: Vec<_> = PROGRAMS.iter().filter(|spec| !is_wanted(spec)).collect();
    for (spec, loaded) in verify(wanted, types) {
        if matches!(loaded, Err(ProgramError::UnexpectedProgramType)) {
            return Err(KernelError::Object(format!("{} is of another type", spec.name)));
        }
        if let (Err(error), Some(_)) = (&loaded, spec.without) {
            tracing::debug!(program = spec.name, error = chain(error), "not loaded");
            lacks.push(spec);
            continue;
        }
        loaded.map_err(|error| match (os_error(&error), refused(&error)) {
            (Some(libc::EPERM), _) => {
                KernelError::Permission { what: format!("load the program {}", spec.name) }
            }
            (_, Some(said)) => {
                tracing::debug!(program = spec.name, error = chain(&error), "not loaded");
                KernelError::Unverified { program: spec.name, said }
            }
            _ => KernelError::Missing { feature: spec.feature, since: spec.since, said: chain(&error) },
        })?;
    }
    lacks.sort_by_key(|spec| place(spec));
    Ok(lacks)
}

/// Where it stands among all.
fn place(spec: &Spec) -> Option<usize> {
    PROGRAMS.iter().position(|one| one.name == spec.name)
}

/// How many programs are verified at a time, where there are so many processors.
const AT_ONCE: usize = 4;

type Verified = (&'static Spec, Result<(), ProgramError>);

/// Hands programs to the verifier, which looks at several at a time; in their order.
fn verify(programs: Vec<(&'static Spec, &mut Program)>, types: &Types) -> Vec<Verified> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(AT_ONCE);
    let (left, verified) = (Mutex::new(programs), Mutex::new(Vec::new()));
    let work = || {
        // Not within a `while let`, which would hold the lock meanwhile.
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((spec, program)) = next else { return };
            let loaded = load_one(spec, program, types);
            verified.lock().unwrap_or_else(PoisonError::into_inner).push((spec, loaded));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread this one does it all.
            let _ = thread::Builder::new().name("verify".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    let mut verified = verified.into_inner().unwrap_or_else(PoisonError::into_inner);
    verified.sort_by_key(|(spec, _)| place(spec));
    verified
}

fn load_one(spec: &Spec, program: &mut Program, types: &Types) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        Program::LsmCgroup(program) => program.load(hook_of(spec), types.get()?),
        Program::Lsm(program) => program.load(hook_of(spec), types.get()?),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Why the verifier refuses it; `None`: the kernel did not come so far.
fn refused(error: &ProgramError) -> Option<String> {
    match error {
        ProgramError::LoadError { verifier_log, .. } => verdict(&verifier_log.to_string()),
        _ => None,
    }
}

fn hook_of(spec: &Spec) -> &'static str {
    LSM_HOOKS.iter().find(|(name, _)| *name == spec.name).map_or("", |(_, hook)| hook)
}

/// Whether the kernel asks BPF programs at LSM hooks: compiled in is not enough, it must be among the active modules.
pub(super) fn has_bpf_lsm() -> bool {
    let active = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    active.trim().split(',').any(|module| module == "bpf")
}

/// Attaches every program to the cgroup, or replaces it inside the link that an earlier daemon pinned.
///
/// Returns what was taken over and what was attached anew.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    cgroup: &Path,
    pins: &Path,
    lacks: &[&'static Spec],
) -> Result<usize, KernelError> {
    let folder =
        File::open(cgroup).map_err(KernelError::io(format!("open the cgroup {}", cgroup.display())))?;
    let mut taken_over = 0;
    for spec in &PROGRAMS {
        let pin = pins.join(spec.name);
        if lacks.iter().any(|lack| lack.name == spec.name) {
            // What an earlier daemon attached and this one does not want.
            take_off(&pin).map_err(KernelError::io(format!("remove {}", pin.display())))?;
            continue;
        }
        let program = program(ebpf, spec)?;
        if matches!(program, Program::RawTracePoint(_) | Program::Lsm(_)) {
            taken_over += usize::from(renew(program, spec, &pin)?);
            continue;
        }
        if pin.exists() {
            let link = pinned_link(&pin)
                .map_err(KernelError::io(format!("take over the link {}", pin.display())))?;
            let fd = match program {
                Program::CgroupSockAddr(program) => program.fd(),
                Program::SockOps(program) => program.fd(),
                Program::CgroupSock(program) => program.fd(),
                Program::CgroupSkb(program) => program.fd(),
                Program::RawTracePoint(program) => program.fd(),
                Program::LsmCgroup(program) => program.fd(),
                _ => return Err(KernelError::Object(format!("{} is of another type", spec.name))),
            }
            .map_err(KernelError::other(format!("use the program {}", spec.name)))?;
            if belongs_to(link.as_fd(), cgroup) {
                update(link.as_fd(), fd.as_fd())
                    .map_err(KernelError::io(format!("replace the program in the link {}", pin.display())))?;
                taken_over += 1;
                continue;
            }
            // The configuration names another cgroup now, or the old one is gone.
            std::fs::remove_file(&pin).map_err(KernelError::io(format!("remove {}", pin.display())))?;
        }
        let what = || format!("attach {} to {}", spec.name, cgroup.display());
        let link = new_link(program, &folder).map_err(|error| error.named(what()))?;
        link.pin(&pin).map_err(KernelError::other(format!("pin the link {}", pin.display())))?;
    }
    Ok(taken_over)
}

/// Attaches a program of the whole system and puts the link in place of the one that an earlier daemon pinned, which goes on
/// until then: such links cannot be updated. Returns whether there was one.
fn renew(program: &mut Program, spec: &Spec, pin: &Path) -> Result<bool, KernelError> {
    let what = || format!("attach {}", spec.name);
    let attached: Result<FdLink, _> = match program {
        Program::RawTracePoint(program) => {
            let point =
                TRACEPOINTS.iter().find(|(name, _)| *name == spec.name).map_or("", |(_, point)| point);
            program.attach(point).and_then(|id| program.take_link(id)).map(Into::into)
        }
        Program::Lsm(program) => program.attach().and_then(|id| program.take_link(id)).map(Into::into),
        _ => return Err(KernelError::Object(format!("{} is of another type", spec.name))),
    };
    let link = attached.map_err(KernelError::other(what()))?;
    // A bpffs takes no dots in names.
    let aside = pin.with_file_name(format!("{}_new", spec.name));
    let _ = std::fs::remove_file(&aside);
    link.pin(&aside).map_err(KernelError::other(format!("pin the link {}", aside.display())))?;
    let there = pin.exists();
    std::fs::rename(&aside, pin).map_err(KernelError::io(format!("pin the link {}", pin.display())))?;
    Ok(there)
}

/// Whether an earlier daemon left what sees processes start: then the map has all that there are to know. A process that is
/// not in it found it full, and what its memory names as its executable by now says nothing.
pub(super) fn sees_processes(pins: &Path) -> bool {
    TRACEPOINTS.iter().all(|(name, _)| pins.join(name).exists())
}

/// Records the programs of all processes that are there, unless they were `seen` as they started, and with protection which
/// of them are traced. After the tracepoints are attached: none is missed in between.
pub(super) fn record_processes(
    ebpf: &mut Ebpf,
    seen: bool,
    protects: bool,
    types: &Types,
) -> Result<(), KernelError> {
    if !seen {
        run_over_tasks(ebpf, ITERATOR, types)?;
    }
    if protects { run_over_tasks(ebpf, protect::ITERATOR, types) } else { Ok(()) }
}

fn run_over_tasks(ebpf: &mut Ebpf, iterator: &str, types: &Types) -> Result<(), KernelError> {
    let missing = |error: &(dyn std::error::Error + 'static)| KernelError::Missing {
        feature: "BPF iterator over tasks",
        since: "5.8",
        said: chain(error),
    };
    let Some(Program::Iter(program)) = ebpf.program_mut(iterator) else {
        return Err(KernelError::Object(format!("it holds no iterator {iterator}")));
    };
    let types = types.get().map_err(|error| missing(&error))?;
    program.load("task", types).map_err(|error| missing(&error))?;
    let link = program.attach().and_then(|id| program.take_link(id)).map_err(|error| missing(&error))?;
    let mut run = link.into_file().map_err(|error| missing(&error))?;
    io::copy(&mut run, &mut io::sink()).map_err(KernelError::io("go through the processes"))?;
    Ok(())
}

/// An attach that failed, before it has a name.
struct Unattached(String, Option<i32>);

impl Unattached {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self(chain(error), os_error(error))
    }

    fn named(self, what: String) -> KernelError {
        match self.1 {
            Some(libc::EPERM) => KernelError::Permission { what },
            _ => KernelError::Io { what, said: self.0 },
        }
    }
}

/// Attaches a program anew.
fn new_link(program: &mut Program, cgroup: &File) -> Result<FdLink, Unattached> {
    // A bpf_link takes no flags; several links of one cgroup stack anyway.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    fn taken<L>(link: Result<L, aya::programs::ProgramError>) -> Result<FdLink, Unattached>
    where
        L: TryInto<FdLink, Error = aya::programs::links::LinkError>,
    {
        link.map_err(|e| Unattached::of(&e))?.try_into().map_err(|e| Unattached::of(&e))
    }
    match program {
        Program::CgroupSockAddr(program) => {
            taken(program.attach(cgroup, MODE).and_then(|id| program.take_link(id)))
        }
        Program::SockOps(program) => taken(program.attach(cgroup, MODE).and_then(|id| program.take_link(id))),
        Program::CgroupSock(program) => {
            taken(program.attach(cgroup, MODE).and_then(|id| program.take_link(id)))
        }
        Program::CgroupSkb(program) => {
            let attached = program.attach(cgroup, CgroupSkbAttachType::Egress, MODE);
            taken(attached.and_then(|id| program.take_link(id)))
        }
        Program::LsmCgroup(program) => {
            let attached = program.attach(cgroup).and_then(|id| program.take_link(id));
            attached.map(Into::into).map_err(|e| Unattached::of(&e))
        }
        _ => Err(Unattached("the object holds a program of another type".into(), None)),
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, spec: &Spec) -> Result<&'a mut Program, KernelError> {
    ebpf.program_mut(spec.name).ok_or_else(|| absent(spec))
}

fn absent(spec: &Spec) -> KernelError {
    KernelError::Object(format!("it holds no program {}", spec.name))
}

/// The links that an earlier daemon left under this folder, by name.
pub(super) fn pinned(pins: &Path) -> Vec<&'static str> {
    PROGRAMS.iter().map(|spec| spec.name).filter(|name| pins.join(name).exists()).collect()
}

/// The folders of all layouts (`v1`, `v2` …) below a pin directory.
pub(super) fn layouts(pin: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(pin).into_iter().flatten().flatten();
    let is_layout = |name: &str| name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_layout))
        .map(|entry| entry.path())
        .collect()
}

/// Takes every program off and removes the pins. Programs that turn go first, so that nothing is turned half-way; what
/// another layout may have besides goes with them.
pub(super) fn detach(pins: &Path) -> io::Result<()> {
    for spec in PROGRAMS.iter().rev() {
        take_off(&pins.join(spec.name))?;
    }
    for entry in std::fs::read_dir(pins).into_iter().flatten().flatten() {
        take_off(&entry.path())?;
    }
    match std::fs::remove_dir(pins) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a pin; returns whether there was one.
fn take_off(pin: &Path) -> io::Result<bool> {
    match std::fs::remove_file(pin) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `BPF_OBJ_GET` (include/uapi/linux/bpf.h): a descriptor of a pinned link. aya opens pins too, but keeps the descriptor.
fn pinned_link(pin: &Path) -> io::Result<OwnedFd> {
    const BPF_OBJ_GET: libc::c_int = 7;
    #[repr(C)]
    struct Attr {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attr = Attr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the attribute is the object member of union bpf_attr, its size is given, and the path lives across the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<Attr>()) };
    match i32::try_from(fd) {
        // SAFETY: a descriptor that the kernel just gave us and nobody else has.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a link is attached to this cgroup (its id is in the link's fdinfo, kernel/bpf/cgroup.c).
fn belongs_to(link: BorrowedFd<'_>, cgroup: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd())) else {
        return false;
    };
    let id = info
        .lines()
        .find_map(|line| line.strip_prefix("cgroup_id:"))
        .and_then(|id| id.trim().parse::<u64>().ok());
    id.is_some() && id == std::fs::metadata(cgroup).ok().map(|meta| meta.ino())
}

/// `BPF_LINK_UPDATE` (include/uapi/linux/bpf.h): replaces the program of a link atomically. aya has it for other kinds
/// of links only.
fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_LINK_UPDATE: libc::c_int = 29;
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let attr = Attr {
        link_fd: link.as_raw_fd().unsigned_abs(),
        new_prog_fd: program.as_raw_fd().unsigned_abs(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the attribute is the link_update member of union bpf_attr, its size is given, and it is only read.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_UPDATE, &raw const attr, size_of::<Attr>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
