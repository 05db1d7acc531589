//! Packages of Python and Node that bots and servers of the tests need, as their lists and lock files say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs what the list says, once for all runs; returns where the packages are.
pub(crate) fn install(name: &str, requirements: &str) -> PathBuf {
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

/// The same with packages of Node: returns the folder that has them in `node_modules`, and where scripts may be put.
pub(crate) fn npm(name: &str, package: &str, lock_file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let done = folder.join("installed");
    if !fs::read_to_string(&done).is_ok_and(|text| text == lock_file) {
        fs::write(folder.join("package.json"), package).unwrap();
        fs::write(folder.join("package-lock.json"), lock_file).unwrap();
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        let output = Command::new("npm").args(arguments).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "npm cannot install the packages of {name}: {output:?}");
        fs::write(done, lock_file).unwrap();
    }
    folder
}
