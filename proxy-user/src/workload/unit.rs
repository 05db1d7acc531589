//! The systemd unit of a cgroup path.

/// The system's unit that a cgroup belongs to, as systemd itself finds it (`cg_path_get_unit`): below systemd's root,
/// slices are skipped, and the first folder that is not a slice is the unit. What stands below a unit is delegated to
/// it and is never believed: a user manager's own units, or a container's, could be named like anything.
#[must_use]
pub fn of_cgroup(path: &str, root: &str) -> Option<String> {
    let folder = folder_of_cgroup(path, root)?;
    // systemd prefixes a name that would clash with a controller's file by an underscore.
    let name = folder.rsplit('/').next()?;
    Some(name.strip_prefix('_').unwrap_or(name).to_owned())
}

/// The cgroup of that unit: a part of the path.
#[must_use]
pub fn folder_of_cgroup<'p>(path: &'p str, root: &str) -> Option<&'p str> {
    let inside = match root.trim_end_matches('/') {
        "" => path,
        root => path.strip_prefix(root).filter(|rest| rest.starts_with('/'))?,
    };
    let first = inside.split('/').filter(|part| !part.is_empty()).find(|part| !part.ends_with(".slice"))?;
    let name = first.strip_prefix('_').unwrap_or(first);
    let known = [".service", ".scope", ".socket", ".mount", ".swap"]
        .iter()
        .any(|suffix| name.strip_suffix(suffix).is_some_and(|stem| !stem.is_empty()));
    let before = path.len() - inside.len();
    // The first part of that name: what stands before it are slices.
    let at = inside.split('/').take_while(|part| *part != first).map(|part| part.len() + 1).sum::<usize>();
    known.then(|| path.get(..before + at + first.len()))?
}

#[cfg(test)]
mod tests {
    use super::of_cgroup;

    #[test]
    fn the_first_folder_below_the_slices_is_the_unit() {
        for (path, unit) in [
            ("/system.slice/invoice.service", Some("invoice.service")),
            ("/system.slice/invoice.service/worker", Some("invoice.service")),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("/init.scope", Some("init.scope")),
            ("/system.slice", None),
            ("/", None),
            ("/docker/4f5a/system.slice/nginx.service", None),
            ("/.service", None),
        ] {
            assert_eq!(of_cgroup(path, "/").as_deref(), unit, "{path}");
        }
    }

    #[test]
    fn a_unit_of_a_user_manager_is_the_user_manager() {
        let path = "/user.slice/user-1000.slice/user@1000.service/app.slice/invoice.service";
        assert_eq!(of_cgroup(path, "/").as_deref(), Some("user@1000.service"));
    }

    #[test]
    fn the_folder_of_a_unit_is_the_path_up_to_it() {
        let of = super::folder_of_cgroup;
        assert_eq!(of("/a.slice/x.service/a/x.service", "/"), Some("/a.slice/x.service"));
        assert_eq!(of("/box/a.slice/_cpu.service/y", "/box"), Some("/box/a.slice/_cpu.service"));
        assert_eq!(of_cgroup("/box/a.slice/_cpu.service/y", "/box").as_deref(), Some("cpu.service"));
        assert_eq!(of("/box/a.slice", "/box"), None);
    }

    #[test]
    fn only_what_stands_below_the_root_counts() {
        assert_eq!(of_cgroup("/box/system.slice/a.service", "/box").as_deref(), Some("a.service"));
        assert_eq!(of_cgroup("/boxes/system.slice/a.service", "/box"), None);
        assert_eq!(of_cgroup("/system.slice/a.service", "/box"), None);
    }
}
