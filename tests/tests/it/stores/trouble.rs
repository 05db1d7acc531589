//! Full disks, read-only stores, tools that fail, others at the same files, two at a time, a kill at any moment.

use std::fs;

use super::FOLDERS;
use super::machine::{Authority, Ended, Machine, certificates, same};

fn machine() -> Machine {
    let machine = Machine::new();
    machine.roots(&[&Authority::new("Vouchsafe CA test")]);
    machine
}

/// A file of a few certificates that are somebody else's.
fn theirs(count: usize) -> String {
    (0..count).map(|number| Authority::new(&format!("Other {number}")).pem).collect()
}

#[test]
fn a_full_disk_leaves_the_old_trust_and_the_other_stores_are_served() {
    let machine = machine();
    let (full, free) = (machine.at("full"), machine.at("free.pem"));
    fs::create_dir(&full).unwrap();
    let theirs = theirs(60);
    fs::write(&free, &theirs).unwrap();
    machine
        .shell(&format!(
            "mount -t tmpfs -o size=64k,mode=755 tmpfs {0} && cp {1} {0}/cacert.pem && chmod 644 {0}/cacert.pem",
            full.display(),
            free.display()
        ))
        .well();
    let (full, free) = (full.display(), free.display());
    machine.run(&format!("install --file {full}/cacert.pem --file {free}")).failed_with(&[
        "cannot write",
        "cacert.pem",
        "make room",
    ]);
    assert_eq!(
        machine.shell(&format!("cat {full}/cacert.pem; ls -A {full} | wc -l")).well(),
        format!("{theirs}1\n")
    );
    assert_eq!(certificates(&machine.at("free.pem")), 61);
    let manifest = fs::read_to_string(machine.at("state/trust/manifest.json")).unwrap();
    assert!(manifest.contains("free.pem") && !manifest.contains("full"), "{manifest}");
    // Room is made.
    machine.shell(&format!("mount -o remount,size=1m {full}")).well();
    machine.run(&format!("install --file {full}/cacert.pem")).well();
    machine.run("status").well();

    // No room for the system's store: what its tool began is not what is trusted.
    machine
        .shell(
            "cp -a /etc/ssl/certs /run/certs && mount -t tmpfs -o size=700k,mode=755 tmpfs /etc/ssl/certs && \
             cp -a /run/certs/. /etc/ssl/certs/; sha256sum /etc/ssl/certs/ca-certificates.crt >/run/sum; \
             dd if=/dev/zero of=/etc/ssl/certs/filler bs=1k 2>/dev/null; true",
        )
        .well();
    let before = machine.tree("/usr/local/share");
    machine.run("install").failed_with(&["system store", "update-ca-certificates` failed", "No space left"]);
    machine.shell("sha256sum -c /run/sum").well();
    same(&machine.tree("/usr/local/share"), &before, "our files are out again");
    machine.shell("rm /etc/ssl/certs/filler").well();
    machine.run("install").well();
    machine.run("status").well();

    // Without room for the manifest nothing is begun.
    let tree = machine.tree(FOLDERS);
    machine
        .shell(&format!("mount -t tmpfs -o size=4k,mode=700 tmpfs {}", machine.at("state/trust").display()))
        .well();
    machine.roots(&[&Authority::new("Vouchsafe CA test")]);
    machine
        .shell(&format!("head -c 5000 /dev/zero >{}/filler; true", machine.at("state/trust").display()))
        .well();
    machine.run("install").failed_with(&["manifest.json", "make room"]);
    same(&machine.tree(FOLDERS), &tree, "nothing is left of it");
}

#[test]
fn what_is_read_only_is_named_and_the_rest_is_served() {
    let machine = machine();
    machine
        .shell("mount --bind /usr/local/share /usr/local/share && mount -o remount,ro,bind /usr/local/share")
        .well();
    let tree = machine.tree("/etc/ssl /usr/local/share");
    machine.run("install").failed_with(&["/usr/local/share/ca-certificates", "read-only", "--unit"]);
    same(&machine.tree("/etc/ssl /usr/local/share"), &tree, "nothing is left of it");
    assert!(certificates(&machine.at("up/etc/vouchsafe/trust/bundle.pem")) > 100);
    machine.shell("umount /usr/local/share").well();
    machine.run("install").well();
    machine.run("status").well();
    // All of /etc.
    machine.shell("mount -o remount,ro /etc").well();
    machine.roots(&[&Authority::new("Vouchsafe CA test")]);
    let tree = machine.tree(FOLDERS);
    machine.run("refresh").failed_with(&["/etc/vouchsafe/trust", "read-only"]);
    same(&machine.tree(FOLDERS), &tree, "nothing is left of it");
}

#[test]
fn when_the_systems_tool_fails_or_does_nothing_our_files_are_out_again() {
    let machine = machine();
    let tree = machine.tree(FOLDERS);
    machine.shell("mv /usr/sbin/update-ca-certificates /usr/sbin/real").well();
    let tool = |script: &str| {
        let path = "/usr/sbin/update-ca-certificates";
        machine
            .shell(&format!("printf '#!/bin/sh\n# --certsconf\n{script}\n' >{path}; chmod 755 {path}"))
            .well();
    };
    tool("echo no way >&2; exit 7");
    machine.run("install --system").failed_with(&["exit status: 7", "no way"]);
    tool("[ -e /run/ran ] || { touch /run/ran; /usr/sbin/real; exit 9; }; exec /usr/sbin/real \"$@\"");
    machine.run("install --system").failed_with(&["exit status: 9"]);
    same(&machine.tree(FOLDERS), &tree, "what it did before it failed is taken back by running it again");
    tool("exit 0");
    machine.run("install --system").failed_with(&["still is not as it should be"]);
    same(&machine.tree(FOLDERS), &tree, "nothing is left of it");
    // What could not be taken back by the tool is not forgotten, until the tool says so.
    assert!(fs::read_to_string(machine.at("state/trust/manifest.json")).unwrap().contains("system"));
    machine.shell("mv /usr/sbin/real /usr/sbin/update-ca-certificates").well();
    machine.run("remove").well();
    same(&machine.tree(FOLDERS), &tree, "nothing is left of it");
    assert!(!fs::read_to_string(machine.at("state/trust/manifest.json")).unwrap().contains("system"));
}

#[test]
fn what_others_changed_is_told_and_left_to_them() {
    let machine = machine();
    let file = machine.at("cacert.pem");
    fs::write(&file, theirs(2)).unwrap();
    machine.run(&format!("install --system --bundle --unit invoice --file {}", file.display())).well();
    // The line at the end of our part is gone, a drop-in is somebody's own, an anchor is another certificate.
    let broken = fs::read_to_string(&file).unwrap().replace("# END vouchsafe trust\n", "");
    fs::write(&file, &broken).unwrap();
    let other = Authority::new("Other");
    fs::write(machine.at("other.pem"), &other.pem).unwrap();
    let drop_in = "/etc/systemd/system/invoice.service.d/50-vouchsafe-trust.conf";
    machine
        .shell(&format!(
            "printf '[Service]\\n' >{drop_in}; cp {} /usr/local/share/ca-certificates/vouchsafe-0123456789abcdef.crt",
            machine.at("other.pem").display()
        ))
        .well();
    let status = machine.run("status");
    assert_eq!(status.out.matches("changed by others").count(), 3, "{}", status.out);
    let tree = machine.tree(FOLDERS);
    for command in ["refresh", "remove"] {
        machine.run(command).failed_with(&[
            "delete them",
            "not written by us",
            "vouchsafe-0123456789abcdef.crt",
        ]);
        assert_eq!(machine.shell(&format!("cat {drop_in}")).well(), "[Service]\n");
        assert_eq!(fs::read_to_string(&file).unwrap(), broken);
        assert!(machine.shell("ls /usr/local/share/ca-certificates").well().contains("0123456789abcdef"));
    }
    assert_ne!(machine.tree(FOLDERS), tree, "the copies, which nobody touched, are removed");
    // A link that leads elsewhere than it did is not followed by itself.
    let machine = self::machine();
    for name in ["one", "two"] {
        fs::write(machine.at(name), theirs(1)).unwrap();
    }
    let link = machine.at("link.pem");
    std::os::unix::fs::symlink("one", &link).unwrap();
    machine.run(&format!("install --file {}", link.display())).well();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("two", &link).unwrap();
    machine.run("refresh").failed_with(&["leads to", "two", "install --file"]);
    assert_eq!(certificates(&machine.at("two")), 1);
}

#[test]
fn what_somebody_else_writes_at_the_same_time_is_never_lost() {
    let machine = machine();
    let file = machine.at("cacert.pem");
    let theirs = theirs(3);
    fs::write(&file, &theirs).unwrap();
    // Somebody who is always at it: he takes what is there, adds a line and renames.
    let shown = file.display();
    let script = format!(
        "count=0; while [ ! -e {0}.stop ]; do count=$((count + 1)); \
         {{ cat {shown}; echo \"# count $count\"; }} >{0}.theirs && mv {0}.theirs {shown}; done; echo $count",
        machine.at("loop").display()
    );
    let writer = machine.command("bash").args(["-c", &script]).spawn().unwrap();
    let (mut done, mut refused) = (0, 0);
    for round in 0..30 {
        let command = if round % 2 == 0 { "install" } else { "remove" };
        let ended = machine.run(&format!("{command} --file {shown}"));
        match ended.code {
            Some(0) => done += 1,
            _ => {
                assert!(ended.err.contains("at the same time"), "{}", ended.err);
                refused += 1;
            }
        }
        let text = fs::read_to_string(&file).unwrap();
        assert!(certificates(&file) >= 3 && text.matches("BEGIN vouchsafe").count() <= 1, "{text}");
    }
    fs::write(machine.at("loop.stop"), "").unwrap();
    let count = Ended::from(writer.wait_with_output().unwrap()).well();
    let count: usize = count.trim().parse().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# count ")).collect();
    let expected: Vec<_> = (1..=count).map(|number| number.to_string()).collect();
    assert_eq!(lines, expected, "{done} done and {refused} refused");
    assert!(done > 0 && count > 30, "{done} done and {refused} refused, {count} lines of his");
    machine.run(&format!("remove --file {shown}")).well();
    let left = fs::read_to_string(&file).unwrap();
    assert!(left.starts_with(&theirs) && !left.contains("vouchsafe"), "{left}");
}

#[test]
fn two_at_the_same_time_do_one_after_the_other() {
    let machine = machine();
    let file = machine.at("cacert.pem");
    let before = theirs(20);
    fs::write(&file, &before).unwrap();
    let file = file.display().to_string();
    let running: Vec<_> = (0..6)
        .map(|number| {
            let options = if number == 0 {
                "install".to_owned()
            } else {
                format!("install --unit u{number} --file {file}")
            };
            machine.trust(&options).spawn().unwrap()
        })
        .collect();
    for running in running {
        Ended::from(running.wait_with_output().unwrap()).well();
    }
    machine.run("status").well();
    assert_eq!(certificates(&machine.at("cacert.pem")), 21);
    let running: Vec<_> = (0..3).map(|_| machine.trust("remove").spawn().unwrap()).collect();
    for running in running {
        Ended::from(running.wait_with_output().unwrap()).well();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
}

/// What changes something on the disk. strace counts each of them by itself.
const CALLS: [&str; 6] = ["write", "fsync", "rename", "unlink", "symlink", "mkdir"];

/// Kills a command when it is about to make its nth system call of that kind; whether it ever came to that.
fn killed(machine: &Machine, arguments: &str, call: &str, nth: u32) -> bool {
    let mut command = machine.command("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e"]);
    command.arg(format!("inject=/^{call}:signal=KILL:when={nth}"));
    command.arg(tests::daemon_binary()).arg("trust").args(arguments.split_whitespace());
    let ended = Ended::from(command.arg("--config").arg(machine.at("vouchsafe.toml")).output().unwrap());
    assert!(matches!(ended.code, None | Some(0 | 137)), "{:?} {}", ended.code, ended.err);
    ended.code != Some(0)
}

#[test]
fn a_kill_at_any_point_leaves_what_was_or_what_is_to_be_and_both_ways_go_on() {
    let machine = machine();
    let (file, hashes) = (machine.at("cacert.pem"), machine.at("hashes"));
    let before = theirs(5);
    fs::write(&file, &before).unwrap();
    fs::create_dir(&hashes).unwrap();
    let options = format!("--unit invoice --file {} --hash-dir {}", file.display(), hashes.display());
    let folders = format!("/etc/systemd /etc/vouchsafe {}", hashes.display());
    machine.shell("mkdir -p /etc/vouchsafe").well();
    let tree = machine.tree(&folders);
    machine.run(&format!("install {options}")).well();
    let (after, done) = (fs::read_to_string(&file).unwrap(), machine.tree(&folders));
    machine.run("remove").well();
    same(&machine.tree(&folders), &tree, "nothing is left of it");
    let mut seen = Vec::new();
    let mut look = |point: u32| {
        let now = fs::read_to_string(&file).unwrap();
        assert!(now == before || now == after, "a part of a file at point {point}: {now}");
        seen.push(now == after);
    };
    let mut points = 0;
    for call in CALLS {
        for nth in 1.. {
            if !killed(&machine, &format!("install {options}"), call, nth) {
                break;
            }
            points += 1;
            look(points);
            // Whatever it left, both ways go on from there.
            if points % 4 == 0 {
                machine.run(&format!("install {options}")).well();
                same(&machine.tree(&folders), &done, &format!("installed after a kill at {call} {nth}"));
            }
            machine.run("remove").well();
            same(&machine.tree(&folders), &tree, &format!("removed after a kill at {call} {nth}"));
        }
        for nth in (1..).step_by(5) {
            machine.run(&format!("install {options}")).well();
            let was_killed = killed(&machine, "remove", call, nth);
            look(points);
            machine.run("remove").well();
            same(&machine.tree(&folders), &tree, &format!("a removal that was killed at {call} {nth}"));
            if !was_killed {
                break;
            }
        }
    }
    assert!(points > 50, "{points} points");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert!(
        seen.contains(&true) && seen.contains(&false),
        "some kills came before the change, and some after it"
    );
}
