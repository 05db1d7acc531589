//! Containers of a real Podman, whose storage is in the world's folder and whose cgroups are governed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::bot::{Finished, Running, finish};
use crate::world::{ADDRESS, World};

const IMAGE: &str = "localhost/box:1";

/// Podman, with an image that holds copies of the bots `curl` and `actor` in `/bots` and what they load.
pub struct Podman<'a> {
    world: &'a World,
    driver: &'static str,
}

impl<'a> Podman<'a> {
    /// Makes the image; images and containers are folders.
    #[must_use]
    pub fn new(world: &'a World) -> Self {
        Self::with_driver(world, "vfs")
    }

    /// The same with this driver of its storage (containers-storage.conf(5)).
    #[must_use]
    pub fn with_driver(world: &'a World, driver: &'static str) -> Self {
        let podman = Self { world, driver };
        let programs = ["curl", "actor"].map(|name| world.path("bots").join(name));
        for program in &programs {
            world.copy(program, &format!("image/bots/{}", program.file_name().unwrap().to_str().unwrap()));
        }
        let mut libraries = BTreeSet::new();
        for program in &programs {
            let listed = finish(Command::new("ldd").arg(program));
            let words = listed.stdout.split_whitespace().filter(|word| word.starts_with('/'));
            libraries.extend(words.map(str::to_owned));
        }
        let image = world.path("image");
        done(Command::new("cp").args(["-L", "--parents"]).args(libraries).arg(&image));
        let archive = world.path("image.tar");
        done(Command::new("tar").arg("-C").arg(&image).arg("-cf").arg(&archive).arg("."));
        done(podman.command().arg("import").arg(archive).arg(IMAGE));
        podman
    }

    /// Where its storage is (`graphroot`).
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.world.path("storage")
    }

    /// `podman run` of a program in a container of this name, with a network of its own that has nothing but loopback.
    #[must_use]
    pub fn container(&self, name: &str, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.command();
        command.args(["run", "--rm", "-i", "--name", name, "--network", "none"]);
        command.arg(format!("--cgroup-parent={}/bots", self.world.governed_path()));
        // Root here may lack CAP_SYS_RESOURCE; without these nothing raises a limit. (The filter of devices would.)
        command.args([
            "--privileged",
            "--pids-limit=0",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
        ]);
        for host in ["api.test", "plain.test"] {
            command.arg(format!("--add-host={host}:{ADDRESS}"));
        }
        command.arg(format!("--volume={}:/bots.pem:ro", self.world.path("bots.pem").display()));
        command.args(["--log-driver=none", IMAGE, program]).args(arguments);
        command
    }

    /// Runs one to its end.
    #[track_caller]
    pub fn run(&self, name: &str, program: &str, arguments: &[&str]) -> Finished {
        finish(&mut self.container(name, program, arguments))
    }

    /// Starts one, with a pipe to the program's stdin and one from its stdout.
    #[track_caller]
    pub fn spawn(&self, name: &str, program: &str, arguments: &[&str]) -> Running {
        let mut command = self.container(name, program, arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Running::of(command.spawn().unwrap())
    }

    /// Podman itself stays outside of the governed cgroup. It has to see cgroup v2 where it looks for it.
    fn command(&self) -> Command {
        let mut command = self.world.enter(None);
        let script = "mount -t cgroup2 none /sys/fs/cgroup && exec podman \"$@\"";
        command.args([
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        command.arg("--root").arg(self.storage()).arg("--runroot").arg(self.world.path("run-storage"));
        command.arg("--tmpdir").arg(self.world.path("podman"));
        command.arg("--storage-driver").arg(self.driver);
        command.args(["--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime=crun"]);
        command
    }
}

#[track_caller]
fn done(command: &mut Command) {
    let finished = finish(command);
    assert_eq!(finished.code, Some(0), "{command:?}: {finished:?}");
}
