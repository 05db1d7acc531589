//! Packages of Python that bots and servers of the tests need, as their lists of requirements say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs what the list says, once for all runs; returns where the packages are.
pub(super) fn install(name: &str, requirements: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let (done, packages) = (folder.join("installed"), folder.join("packages"));
    if !fs::read_to_string(&done).is_ok_and(|text| text == requirements) {
        let _ = fs::remove_dir_all(&packages);
        let list = folder.join("requirements.txt");
        fs::write(&list, requirements).unwrap();
        let mut pip = Command::new("/usr/bin/python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&packages);
        let output = pip.arg("-r").arg(&list).output().unwrap();
        assert!(output.status.success(), "pip cannot install the packages of {name}: {output:?}");
        fs::write(done, requirements).unwrap();
    }
    packages
}
