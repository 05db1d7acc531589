//! Which run of a unit a process belongs to: systemd's InvocationID (systemd.exec(5)).
use std::{ffi::OsStr, fs, path::Path};

/// Written by PID 1 on the cgroup of a unit; attributes of this kind need `CAP_SYS_ADMIN`, so no unit gives itself another
/// one. (`user.invocation_id` beside it could be written by whom the cgroup is delegated to.)
const ATTRIBUTE: &str = "trusted.invocation_id";

/// Where systemd keeps it as well: a symbolic link whose target is the id.
const UNITS: &str = "/run/systemd/units";

/// The InvocationID of a unit, 32 hexadecimal digits: that on its cgroup, else that of its run now. `None`: there is none,
/// as with a unit that systemd did not start, or a host without systemd.
#[must_use]
pub(super) fn of(unit: &str, folder: &Path) -> Option<String> {
    on_cgroup(folder).or_else(|| linked(Path::new(UNITS), unit))
}

fn on_cgroup(folder: &Path) -> Option<String> {
    let mut value = [0; 33];
    let length = rustix::fs::getxattr(folder, ATTRIBUTE, &mut value).ok()?;
    checked(std::str::from_utf8(value.get(..length)?).ok()?)
}

fn linked(units: &Path, unit: &str) -> Option<String> {
    let target = fs::read_link(units.join(format!("invocation:{unit}"))).ok()?;
    checked(OsStr::new(&target).to_str()?)
}

fn checked(text: &str) -> Option<String> {
    let known = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    known.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const TWO: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn the_link_of_a_unit_has_its_invocation_and_nothing_else_is_one() {
        let units = tempfile::tempdir().unwrap();
        let link = |unit: &str, target: &str| {
            std::os::unix::fs::symlink(target, units.path().join(format!("invocation:{unit}"))).unwrap();
        };
        link("a.service", ONE);
        link("b.service", "/etc/passwd");
        assert_eq!(linked(units.path(), "a.service").as_deref(), Some(ONE));
        assert_eq!(linked(units.path(), "b.service"), None);
        assert_eq!(linked(units.path(), "c.service"), None);
    }

    #[test]
    fn what_pid_1_wrote_on_the_cgroup_counts_and_what_its_user_could_write_does_not() {
        let cgroup = crate::kernel::cgroup::mount_point()
            .unwrap()
            .join(format!("vouchsafe-invocation-test-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let set = |name: &str, value: &str| {
            rustix::fs::setxattr(&cgroup, name, value.as_bytes(), rustix::fs::XattrFlags::empty())
        };
        let user = set("user.invocation_id", TWO);
        let before = on_cgroup(&cgroup);
        let trusted = set(ATTRIBUTE, ONE);
        let after = on_cgroup(&cgroup);
        let long = set(ATTRIBUTE, &format!("{ONE}0"));
        let too_long = on_cgroup(&cgroup);
        fs::remove_dir(&cgroup).unwrap();
        assert_eq!((user, trusted, long), (Ok(()), Ok(()), Ok(())));
        assert_eq!((before, after.as_deref(), too_long), (None, Some(ONE), None));
    }
}
