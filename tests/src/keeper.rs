//! What keeps a daemon's listener over its restart, in place of systemd: `FDSTORE=1` in, `LISTEN_FDS` out.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::bot::Running;
use crate::wait::wait_until;
use crate::world::World;

/// Starts daemons of a world one after the other, each with the listener of the one before, as a service manager does.
pub struct Keeper<'a> {
    world: &'a World,
    notify: UnixDatagram,
    /// For IPv4; the first that a daemon hands over.
    listener: Option<OwnedFd>,
    child: Option<Running>,
}

/// How long a restart took, from the first signal.
#[derive(Clone, Copy, Debug)]
pub struct Restarted {
    /// Until the old daemon had ended.
    pub ended: Duration,
    /// Until the new one was ready.
    pub ready: Duration,
}

impl<'a> Keeper<'a> {
    /// Starts `binary` in this world.
    #[must_use]
    #[track_caller]
    pub fn start(world: &'a World, binary: &Path) -> Self {
        let path = world.path("notify");
        let _ = fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_nonblocking(true).unwrap();
        let mut keeper = Self { world, notify, listener: None, child: None };
        keeper.launch(binary);
        keeper
    }

    /// Process id of the daemon.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("no daemon runs").pid()
    }

    /// Ends the daemon as systemd does, and starts `binary` with its listener.
    #[track_caller]
    pub fn restart(&mut self, binary: &Path) -> Restarted {
        let begun = Instant::now();
        self.stop();
        let ended = begun.elapsed();
        self.launch(binary);
        Restarted { ended, ready: begun.elapsed() }
    }

    /// Ends the daemon; what it handed over is kept.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("no daemon runs");
        child.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(child.wait(), Some(0));
    }

    #[track_caller]
    fn launch(&mut self, binary: &Path) {
        let log = fs::File::options().create(true).append(true).open(self.world.path("daemon.log")).unwrap();
        let mut command = self.world.enter(Some("daemon"));
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "RUST_BACKTRACE=1"]);
        command.arg(format!("NOTIFY_SOCKET={}", self.world.path("notify").display()));
        if let Some(listener) = &self.listener {
            let hand_over = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
            command.args(["sh", "-c", hand_over, "sh"]).stdin(Stdio::from(listener.try_clone().unwrap()));
        } else {
            command.stdin(Stdio::null());
        }
        command.arg(binary).args(["run", "--config"]).arg(self.world.config());
        self.child = Some(spawn(command.stdout(log.try_clone().unwrap()).stderr(log)));
        wait_until("the start of the daemon", || {
            assert!(self.child.as_mut().unwrap().is_alive(), "the daemon ended while it started");
            self.ready().then_some(())
        });
        assert!(self.listener.is_some(), "the daemon handed no listener over");
    }

    /// Takes one notification; whether it says that the daemon is ready.
    fn ready(&mut self) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut message = [0; 4096];
        let mut buffers = [IoSliceMut::new(&mut message)];
        let Ok(received) = recvmsg(&self.notify, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) else {
            return false;
        };
        let kept = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        if self.listener.is_none() {
            self.listener = kept;
        }
        let text = String::from_utf8_lossy(&message[..received.bytes]);
        text.lines().any(|line| line == "READY=1")
    }
}

fn spawn(command: &mut Command) -> Running {
    Running::of(command.spawn().unwrap())
}
