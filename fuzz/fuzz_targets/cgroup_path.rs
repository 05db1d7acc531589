//! What a cgroup's path says: no panic on any path, and what is found is a part of it.
//!
//! `cargo +nightly fuzz run cgroup_path fuzz/corpus/cgroup_path fuzz/seeds/cgroup_path`

#![no_main]

use libfuzzer_sys::fuzz_target;
use vouchsafe::workload::{container, unit};

fuzz_target!(|path: &str| {
    if let Some(found) = container::named(path) {
        assert!(path.starts_with(found.folder) && found.folder.contains(found.id));
        assert!(proxy_policy::is_container_id(found.id));
        // What stands below a container does not change what it is.
        let below = format!("{path}/docker-{}.scope", "0".repeat(64));
        assert_eq!(container::named(&below).as_ref(), Some(&found));
    }
    for root in ["", "/", "/machine"] {
        let folder = unit::folder_of_cgroup(path, root);
        let name = unit::of_cgroup(path, root);
        assert_eq!(folder.is_some(), name.is_some());
        if let (Some(folder), Some(name)) = (folder, name) {
            assert!(path.starts_with(folder) && folder.ends_with(&name), "{folder:?} {name:?}");
            assert!(!name.ends_with(".slice") && !name.contains('/'));
        }
    }
});
