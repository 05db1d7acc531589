//! `protect`: others than root are kept from tracing governed workloads and the daemon. What the programs need for it, and
//! whether they are there.
use aya::EbpfLoader;
use proxy_common::{names, protect::Protection};

use super::{
    KernelError,
    btf::{Btf, BtfError},
    cgroup::Cgroups,
    links,
};

/// The programs that refuse.
pub(super) const PROGRAMS: [&str; 2] = ["on_ptrace", "on_traceme"];

/// Runs once over all threads, when those are attached.
pub(super) const ITERATOR: &str = "on_each_traced";

/// Whether the protection that the configuration asks for is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protecting {
    /// It is.
    On,
    /// It is not asked for.
    Off,
    /// It cannot be had here, and why.
    Unavailable(String),
}

/// Whether the programs are to be loaded, and with what; why not goes into the status.
pub(super) fn plan(
    wanted: bool,
    btf: &[u8],
    cgroups: &Cgroups,
) -> Result<(Protecting, Protection), KernelError> {
    if !wanted {
        return Ok((Protecting::Off, Protection::default()));
    }
    let unavailable = |why: &str| Ok((Protecting::Unavailable(why.to_owned()), Protection::default()));
    if !links::has_bpf_lsm() {
        return unavailable(
            "the BPF LSM is not active; add bpf to the kernel parameter lsm= (see /sys/kernel/security/lsm)",
        );
    }
    let governed = cgroups
        .governed_id()
        .ok_or_else(|| KernelError::SelfTest { what: "the governed cgroup has no id".into() })?;
    match offsets(btf) {
        Ok(offsets) => Ok((Protecting::On, Protection { governed, on: 1, ..offsets })),
        Err(error) => unavailable(&error.to_string()),
    }
}

/// Whether a program is one of those.
pub(super) fn is_one(spec: &links::Spec) -> bool {
    PROGRAMS.contains(&spec.name)
}

/// These programs.
pub(super) fn specs() -> impl Iterator<Item = &'static links::Spec> {
    links::PROGRAMS.iter().filter(|spec| is_one(spec))
}

/// The first of them that is wanted and could not be loaded.
pub(super) fn missing(protecting: &Protecting, lacks: &[&links::Spec]) -> Option<&'static str> {
    let lack = lacks.iter().find(|spec| is_one(spec))?;
    (*protecting == Protecting::On).then_some(lack.name)
}

/// Sets what the programs read. `protection` must live until the load.
pub(super) fn hand_over<'a>(loader: &mut EbpfLoader<'a>, protection: &'a Protection) {
    loader.override_global(names::PROTECTION, protection, true);
}

fn offsets(btf: &[u8]) -> Result<Protection, BtfError> {
    let btf = Btf::parse(btf)?;
    Ok(Protection {
        task_cred: btf.offset("task_struct", &["cred"])?,
        task_ptrace: btf.offset("task_struct", &["ptrace"])?,
        task_parent: btf.offset("task_struct", &["parent"])?,
        task_cgroups: btf.offset("task_struct", &["cgroups"])?,
        css_set_cgroup: btf.offset("css_set", &["dfl_cgrp"])?,
        cgroup_node: btf.offset("cgroup", &["kn"])?,
        node_id: btf.offset("kernfs_node", &["id"])?,
        node_parent: btf.offset("kernfs_node", &["__parent", "parent"])?,
        cred_uid: btf.offset("cred", &["uid"])?,
        cred_capabilities: btf.offset("cred", &["cap_effective"])?,
        cred_user_namespace: btf.offset("cred", &["user_ns"])?,
        user_namespace_level: btf.offset("user_namespace", &["level"])?,
        ..Protection::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf::KERNEL_BTF;

    #[test]
    fn the_running_kernel_has_all_that_protection_looks_at() {
        let found = offsets(&std::fs::read(KERNEL_BTF).unwrap()).unwrap();
        let task = [found.task_cred, found.task_ptrace, found.task_parent, found.task_cgroups];
        assert!(task.iter().all(|offset| *offset > 0 && *offset < 1 << 16), "{found:?}");
        assert!(offsets(b"").is_err());
    }

    #[test]
    fn what_is_not_asked_for_is_off_whatever_the_kernel_can() {
        let cgroups = Cgroups::open(None, Some("/")).unwrap();
        let (protecting, protection) = plan(false, b"", &cgroups).unwrap();
        assert_eq!((protecting, protection.on), (Protecting::Off, 0));
    }
}
