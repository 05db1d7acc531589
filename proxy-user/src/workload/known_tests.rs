//! What is remembered, and what is found out anew. Makes cgroups of its own.
use std::{
    io::Write as _,
    os::unix::fs::chown,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::*;
use crate::{kernel::clock_ticks, workload::container::Maker};

const ID: &str = "58a2abcda25edca2ef835ed25e8318891e1745da1bcbdc6b5d62ae023d589fbc";

/// A cgroup below the root of the hierarchy, and a process that sleeps in it.
struct Scene {
    folder: PathBuf,
    child: Child,
    workloads: Workloads,
}

impl Scene {
    fn new(name: &str, below: &str) -> Self {
        let cgroups = Arc::new(Cgroups::open(None, Some("/")).unwrap());
        let folder = cgroups.folder_of(&format!("/vouchsafe-known-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join(below)).unwrap();
        let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let scene = Self { folder, child, workloads: Workloads::new(cgroups, Containers::default()) };
        scene.go(below);
        scene
    }

    fn go(&self, below: &str) {
        fs::create_dir_all(self.folder.join(below)).unwrap();
        let mut procs =
            fs::OpenOptions::new().write(true).open(self.folder.join(below).join("cgroup.procs")).unwrap();
        procs.write_all(self.child.id().to_string().as_bytes()).unwrap();
    }

    /// What the kernel would capture of the process.
    fn capture(&self, below: &str) -> Capture {
        let process = procfs::process::Process::new(self.child.id().cast_signed()).unwrap();
        let runs = files::executed_by(self.child.id()).unwrap();
        Capture {
            tgid: self.child.id(),
            start_time_ns: process.stat().unwrap().starttime * (1_000_000_000 / clock_ticks()),
            exe_ino: runs.ino,
            exe_dev: runs.dev.try_into().unwrap(),
            cgroup_id: inode(&self.folder.join(below)).unwrap(),
            mntns_ino: 77,
            ..Capture::default()
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut folders = vec![self.folder.clone()];
        let mut at = 0;
        while let Some(folder) = folders.get(at).cloned() {
            let children = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(
                children.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()),
            );
            at += 1;
        }
        for folder in folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[test]
fn the_second_connection_of_a_process_is_a_lookup_and_another_capture_is_another_workload() {
    let scene = Scene::new("twice", "bot.slice/bot.service");
    let capture = scene.capture("bot.slice/bot.service");
    let first = scene.workloads.of(&capture, false);
    assert!(first.exe.as_deref().is_some_and(|exe| exe.ends_with("sleep")) && !first.boot.is_empty());
    assert_eq!((first.mntns, first.invocation.as_deref()), (77, None));
    let again = Capture { tid: 9, comm: [b'x'; COMM_LEN], ..capture };
    assert!(Arc::ptr_eq(&first, &scene.workloads.of(&again, false)));
    for other in [
        Capture { uid: 1, ..capture },
        Capture { exe_ino: capture.exe_ino + 1, ..capture },
        Capture { environment: 1, ..capture },
        Capture { netns_cookie: 1, ..capture },
    ] {
        let told = scene.workloads.of(&other, false);
        assert_eq!((told.uid, told.exe_ino, told.environment), (other.uid, other.exe_ino, other.environment));
    }
    assert!(scene.workloads.of(&capture, true).foreign);
}

#[test]
fn a_process_that_moved_to_another_cgroup_is_of_that_one_and_a_cgroup_that_is_gone_keeps_its_name() {
    let scene = Scene::new("moved", "one");
    let one = scene.workloads.of(&scene.capture("one"), false);
    let before = scene.capture("one");
    scene.go("two");
    let two = scene.workloads.of(&scene.capture("two"), false);
    assert!(
        one.cgroup.as_deref().unwrap().ends_with("/one") && two.cgroup.as_deref().unwrap().ends_with("/two")
    );
    fs::remove_dir(scene.folder.join("one")).unwrap();
    let late = scene.workloads.of(&Capture { uid: 5, ..before }, false);
    assert_eq!(late.cgroup, one.cgroup);
    // One that was not seen while it was there is not known, and may be by the next look.
    let unseen = scene.workloads.of(&Capture { cgroup_id: u64::MAX, ..before }, false);
    assert_eq!((unseen.cgroup.as_deref(), unseen.container.is_none()), (None, true));
}

#[test]
fn all_cgroups_of_a_container_are_one_container_and_a_user_cannot_make_one() {
    let inside = format!("docker-{ID}.scope");
    let scene = Scene::new("container", &inside);
    let outer = scene.workloads.of(&scene.capture(&inside), false).container.clone().unwrap();
    assert_eq!((outer.id.as_str(), outer.maker), (ID, Maker::Root));
    let deeper = format!("{inside}/system.slice/docker-{}.scope", ID.replace('5', "6"));
    scene.go(&deeper);
    let inner = scene.workloads.of(&scene.capture(&deeper), false).container.clone().unwrap();
    assert!(Arc::ptr_eq(&outer, &inner), "what a container calls its own cgroups says nothing");

    // A service with a delegated cgroup and a user of its own makes what it wants there.
    let delegated = scene.folder.join("bot.service");
    fs::create_dir(&delegated).unwrap();
    chown(&delegated, Some(4242), Some(4242)).unwrap();
    let fake = format!("bot.service/docker-{ID}.scope");
    scene.go(&fake);
    let fake = scene.workloads.of(&scene.capture(&fake), false).container.clone().unwrap();
    assert_eq!(fake.maker, Maker::User(4242));
    fake.ask();
    assert_eq!(*fake.told(), super::super::runtime::Told::default(), "nobody asks whose files root's are");
    assert!(fake.label().ends_with("(rootless, of uid 4242)"), "{}", fake.label());
}

#[test]
fn the_invocation_is_that_of_the_unit_above_and_of_the_run_in_which_the_process_was_seen() {
    let (one, two) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
    let scene = Scene::new("run.slice", "bot.service/worker");
    let set = |id: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        let unit = scene.folder.join("bot.service");
        rustix::fs::setxattr(unit, "trusted.invocation_id", id.as_bytes(), flags).unwrap();
    };
    // The unit is what stands below slices; this test's own folder is none.
    let root = format!("/{}", scene.folder.file_name().unwrap().to_str().unwrap());
    let cgroups = Arc::new(Cgroups::open(None, Some(&root)).unwrap());
    let workloads = Workloads::new(cgroups, Containers::default());
    set(one);
    let capture = scene.capture("bot.service/worker");
    let first = workloads.of(&capture, false);
    assert_eq!((first.unit.as_deref(), first.invocation.as_deref()), (Some("bot.service"), Some(one)));
    set(two);
    assert_eq!(workloads.of(&capture, false).invocation.as_deref(), Some(one), "the run that it was seen in");
    let other = Capture { uid: 3, ..capture };
    assert_eq!(workloads.of(&other, false).invocation.as_deref(), Some(two));
}
