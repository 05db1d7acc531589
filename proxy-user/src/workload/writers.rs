//! Who besides root and a workload's own user could change its executable, or put another file at its path.
//!
//! An executable that others can write is not an identity: it says who *wrote* it. Everything is judged at the open file
//! and at the folders that were walked through to it, by descriptor, so nothing can be exchanged in between.
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{File, Metadata},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStringExt, fs::MetadataExt},
    },
    path::{Component, Path, PathBuf},
};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::{
    fs::{CWD, Mode, OFlags, fstatfs, openat, readlinkat},
    io::Errno,
};

use super::files::{self, FileId};

/// How many symbolic links are followed; the kernel's own limit (path_resolution(7)).
const MOST_LINKS: u8 = 40;

/// Everybody may write.
const OTHERS: u32 = 0o002;
/// The group may write.
const GROUP: u32 = 0o020;
/// The file system of `/proc` (include/uapi/linux/magic.h): what stands behind `self` and `fd` differs for each process.
const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;
/// Who may write in the folder may rename and remove only what is his own (inode(7)).
const STICKY: u32 = 0o1000;

/// Why an open executable can be changed by others than root and `user`, in words; `None`: it cannot.
#[must_use]
pub fn of_file(file: &File, path: &Path, user: u32) -> Option<String> {
    match file.metadata() {
        Ok(meta) => writable(&meta, file, path, user),
        Err(error) => Some(format!("nobody can say who can write {}: {error}", path.display())),
    }
}

/// Why others than root and `user` can change the executable `wanted` or put another at this path, in words. `None`: they
/// cannot. Every folder on the way counts, also of symbolic links.
///
/// `pinned`: the policy says who the user is. If it does not, what lies in a folder where everybody can put files must be
/// root's: its owner, who runs it, would be anybody.
#[must_use]
pub fn of_path(path: &Path, wanted: FileId, user: u32, pinned: bool) -> Option<String> {
    walk(path, Wanted::File(wanted), user, pinned).err()
}

/// The same for a script, and for the name that its interpreter was called by: where they lie, and where a link to them
/// does, others must not be able to put files at all. Interpreters take modules and settings from there.
#[must_use]
pub fn of_script(path: &Path, wanted: FileId, user: u32, pinned: bool) -> Option<String> {
    walk(path, Wanted::Script(wanted), user, pinned).err()
}

/// Why others than root and `user` can put a file into the folder at this path, in words; also when it is not there and they
/// could make it. `None`: they cannot.
#[must_use]
pub fn of_folder(path: &Path, user: u32) -> Option<String> {
    walk(path, Wanted::Folder, user, true).err()
}

/// What a path is expected to lead to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    File(FileId),
    Script(FileId),
    Folder,
}

/// A folder on the way.
struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
    /// Others may write in it, and may exchange only what is their own.
    shared: bool,
}

fn walk(path: &Path, wanted: Wanted, user: u32, pinned: bool) -> Result<(), String> {
    let cannot = |path: &Path, error: std::io::Error| {
        format!("nobody can say who can exchange {}: {error}", path.display())
    };
    let open = |at: &OwnedFd, name: &OsString| {
        openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map(File::from)
    };
    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map(File::from).map_err(|error| cannot(Path::new("/"), error.into()))?;
    let mut folders = vec![folder(root, PathBuf::from("/"), user)?];
    let mut steps: VecDeque<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = steps.pop_front() {
        if name == ".." {
            if folders.len() > 1 {
                folders.pop();
            }
            continue;
        }
        let Some(parent) = folders.last() else { break };
        let here = parent.path.join(&name);
        let file = match open(&parent.descriptor, &name) {
            // Nobody but those who may write in its parent could make it.
            Err(Errno::NOENT) if wanted == Wanted::Folder => return unshared(parent),
            other => other.map_err(|error| cannot(&here, error.into()))?,
        };
        let meta = file.metadata().map_err(|error| cannot(&here, error))?;
        if parent.shared && !trusted(meta.uid(), user) {
            return Err(owned_by_other(&here, meta.uid()));
        }
        if parent.shared && !pinned && meta.uid() != 0 {
            let folder = parent.path.display();
            return Err(format!(
                "{} is not root's, and anybody can put files into {folder}, while the policy names no user",
                here.display()
            ));
        }
        if matches!(wanted, Wanted::Script(_)) && !meta.is_dir() {
            unshared(parent)?;
        }
        if meta.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(format!("{} leads through too many symbolic links", path.display()));
            }
            let target = readlinkat(&file, "", Vec::new()).map_err(|error| cannot(&here, error.into()))?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                folders.truncate(1);
            }
            for name in names(&target).into_iter().rev() {
                steps.push_front(name);
            }
        } else if meta.is_dir() {
            folders.push(folder(file, here, user)?);
        } else {
            // What was checked is what was captured, or it does not count.
            let same = files::named_by(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
            let is_it = match wanted {
                Wanted::File(wanted) | Wanted::Script(wanted) => same == Some(wanted),
                Wanted::Folder => false,
            };
            if !is_it || !steps.is_empty() {
                return Err(format!("{} was exchanged while it was looked at", path.display()));
            }
            return writable(&meta, &file, &here, user).map_or(Ok(()), Err);
        }
    }
    match (wanted, folders.last()) {
        (Wanted::Folder, Some(folder)) => unshared(folder),
        _ => Err(format!("{} was exchanged while it was looked at", path.display())),
    }
}

/// Nobody else can put a file into the folder.
fn unshared(folder: &Folder) -> Result<(), String> {
    match folder.shared {
        true => Err(format!("{} can be written by everybody", folder.path.display())),
        false => Ok(()),
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// A folder in which others than root and `user` can exchange nothing but what is their own; else why they can.
fn folder(file: File, path: PathBuf, user: u32) -> Result<Folder, String> {
    let meta = file.metadata().map_err(|error| format!("{} cannot be looked at: {error}", path.display()))?;
    if fstatfs(&file).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC) {
        return Err(format!(
            "{} is of a file system where a name means something else to each",
            path.display()
        ));
    }
    let others = writable(&meta, &file, &path, user);
    // The sticky bit does not keep the owner of the folder from anything.
    let shared = others.is_some() && meta.mode() & STICKY != 0 && trusted(meta.uid(), user);
    match others {
        Some(why) if !shared => Err(format!("{why}, and so what is in it can be exchanged")),
        _ => Ok(Folder { descriptor: file.into(), path, shared }),
    }
}

/// Owner and mode of a file or folder. POSIX access lists need no reading: the mask, which bounds what they give, is what
/// the mode shows as the group's rights (acl(5)). Only where we would trust the group itself it must be known that there
/// is no list.
fn writable(meta: &Metadata, file: &File, path: &Path, user: u32) -> Option<String> {
    let mode = meta.mode();
    let shown = || format!("(mode {:03o})", mode & 0o7777);
    if !trusted(meta.uid(), user) {
        return Some(owned_by_other(path, meta.uid()));
    }
    if mode & OTHERS != 0 {
        return Some(format!("{} can be written by everybody {}", path.display(), shown()));
    }
    if mode & GROUP == 0 {
        return None;
    }
    if !is_own_group(meta.gid(), user) {
        let group = group_name(meta.gid());
        return Some(format!("{} can be written by group {group} {}", path.display(), shown()));
    }
    has_access_list(file)
        .then(|| format!("{} can be written by whom its access list names {}", path.display(), shown()))
}

fn trusted(owner: u32, user: u32) -> bool {
    owner == 0 || owner == user
}

fn owned_by_other(path: &Path, owner: u32) -> String {
    let name = User::from_uid(Uid::from_raw(owner)).ok().flatten();
    let name = name.map_or_else(|| format!("uid {owner}"), |user| format!("user {}", user.name));
    format!("{} belongs to {name}, who can change it", path.display())
}

fn group_name(gid: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

/// Whether a group is root's, or the private group of the user: his primary one, named like him, with nobody else in it.
fn is_own_group(gid: u32, user: u32) -> bool {
    if gid == 0 {
        return true;
    }
    let (Ok(Some(user)), Ok(Some(group))) =
        (User::from_uid(Uid::from_raw(user)), Group::from_gid(Gid::from_raw(gid)))
    else {
        return false;
    };
    user.gid.as_raw() == gid
        && group.name == user.name
        && group.mem.iter().all(|member| *member == user.name)
        && std::fs::read_to_string("/etc/passwd")
            .is_ok_and(|passwd| !is_primary_of_another(&passwd, gid, user.uid.as_raw()))
}

/// Whether passwd(5) has the group as the primary one of another user, who is then in it without being listed.
fn is_primary_of_another(passwd: &str, gid: u32, user: u32) -> bool {
    passwd.lines().any(|line| {
        let mut fields = line.split(':').skip(2).map(|field| field.parse::<u32>().ok());
        let (uid, group) = (fields.next().flatten(), fields.next().flatten());
        group == Some(gid) && uid != Some(user)
    })
}

/// Whether a file has a POSIX access list beyond its mode. What cannot be known counts as one.
fn has_access_list(file: &File) -> bool {
    // A descriptor that is only a path does not do for fgetxattr(2); its name does.
    let name = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    match rustix::fs::getxattr_query(name, "system.posix_acl_access") {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => false,
        Ok(_) | Err(_) => true,
    }
}

#[cfg(test)]
#[path = "writers_tests.rs"]
mod tests;
