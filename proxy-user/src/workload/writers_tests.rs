//! Owners, modes, lists and folders that make an executable somebody else's. Needs root, to give files away.
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
};

use super::*;

/// The workload's user; no user of the system.
const BOT: u32 = 4242;
/// Somebody else.
const OTHER: u32 = 4343;

/// A folder of root's, `bots` in it, and `bots/bot`.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("bots")).unwrap();
        fs::write(place.path("bots/bot"), "a bot").unwrap();
        place.mode("bots", 0o755);
        place.mode("bots/bot", 0o755);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn own(&self, name: &str, user: u32, group: u32) {
        chown(self.path(name), Some(user), Some(group)).unwrap();
    }

    /// Whether the executable at this path is an identity's; why not.
    fn at(&self, name: &str) -> Result<(), String> {
        let path = self.path(name);
        let file = files::named_by(&path).unwrap();
        of_path(&path, file, BOT, true).map_or(Ok(()), Err)
    }

    fn bot(&self) -> Result<(), String> {
        self.at("bots/bot")
    }

    fn file(&self) -> Option<String> {
        of_file(&File::open(self.path("bots/bot")).unwrap(), Path::new("the bot"), BOT)
    }
}

#[test]
fn a_file_is_trusted_when_only_root_and_its_user_can_write_it() {
    let place = Place::new();
    for (owner, group, mode, trusted) in [
        (0, 0, 0o755, true),
        (BOT, OTHER, 0o755, true),
        (0, 0, 0o775, true),
        (0, BOT, 0o775, false),
        (BOT, OTHER, 0o770, false),
        (0, 0, 0o757, false),
        (OTHER, 0, 0o555, false),
    ] {
        place.own("bots/bot", owner, group);
        place.mode("bots/bot", mode);
        assert_eq!(place.bot().is_ok(), trusted, "{owner}:{group} {mode:o}: {:?}", place.bot());
        assert_eq!(place.file().is_none(), trusted, "{owner}:{group} {mode:o}");
    }
}

#[test]
fn the_reason_names_the_file_who_can_write_it_and_its_mode() {
    let place = Place::new();
    let path = place.path("bots/bot");
    place.own("bots/bot", 0, 50);
    place.mode("bots/bot", 0o775);
    let staff = group_name(50);
    assert_eq!(
        place.bot().unwrap_err(),
        format!("{} can be written by group {staff} (mode 775)", path.display())
    );
    place.own("bots/bot", 4343, 0);
    assert_eq!(
        place.bot().unwrap_err(),
        format!("{} belongs to uid 4343, who can change it", path.display())
    );
}

#[test]
fn whoever_can_exchange_it_in_a_folder_up_to_the_root_counts_but_not_for_the_content() {
    for folder in ["bots", "."] {
        let place = Place::new();
        place.mode(folder, 0o777);
        let why = place.bot().unwrap_err();
        assert!(why.contains("can be written by everybody (mode 777), and so what is in it"), "{why}");
        assert_eq!(place.file(), None, "an open file does not change by its folder");
        place.mode(folder, 0o755);
        assert_eq!(place.bot(), Ok(()));
        place.own(folder, OTHER, 0);
        assert!(place.bot().unwrap_err().contains("belongs to uid 4343"));
        place.own(folder, 0, OTHER);
        place.mode(folder, 0o775);
        assert!(place.bot().unwrap_err().contains("can be written by group 4343"));
    }
}

#[test]
fn in_a_folder_with_the_sticky_bit_only_what_belongs_to_others_can_be_exchanged() {
    let place = Place::new();
    place.mode("bots", 0o1777);
    assert_eq!(place.bot(), Ok(()));
    // A link of somebody else's in it can be turned elsewhere by him.
    fs::create_dir(place.path("real")).unwrap();
    fs::copy(place.path("bots/bot"), place.path("real/bot")).unwrap();
    symlink(place.path("real"), place.path("bots/link")).unwrap();
    assert_eq!(place.at("bots/link/bot"), Ok(()));
    std::os::unix::fs::lchown(place.path("bots/link"), Some(OTHER), None).unwrap();
    assert!(place.at("bots/link/bot").unwrap_err().contains("bots/link belongs to uid 4343"));
    // Its own owner is not kept by the bit.
    place.own("bots", OTHER, 0);
    assert!(place.bot().unwrap_err().contains("bots belongs to uid 4343"));
}

#[test]
fn in_a_folder_for_everybody_only_a_policy_that_names_the_user_believes_the_users_own_file() {
    let place = Place::new();
    let (path, bot) = (place.path("bots/bot"), files::named_by(&place.path("bots/bot")).unwrap());
    place.own("bots/bot", BOT, BOT);
    assert_eq!(of_path(&path, bot, BOT, false), None, "nobody but root could put it there");
    place.mode("bots", 0o1777);
    assert_eq!(of_path(&path, bot, BOT, true), None);
    let why = of_path(&path, bot, BOT, false).unwrap();
    assert!(why.contains("bots/bot is not root's, and anybody can put files into"), "{why}");
    place.own("bots/bot", 0, 0);
    assert_eq!(of_path(&path, bot, BOT, false), None);
}

#[test]
fn a_symbolic_link_is_as_good_as_the_folders_on_both_its_ways() {
    let place = Place::new();
    fs::create_dir(place.path("links")).unwrap();
    symlink("../bots/bot", place.path("links/relative")).unwrap();
    symlink(place.path("bots/bot"), place.path("links/absolute")).unwrap();
    for link in ["links/relative", "links/absolute"] {
        assert_eq!(place.at(link), Ok(()));
        place.mode("bots", 0o777);
        assert!(place.at(link).unwrap_err().contains("bots can be written"), "where it leads to");
        place.mode("bots", 0o755);
        place.mode("links", 0o777);
        assert!(place.at(link).unwrap_err().contains("links can be written"), "where it stands");
        place.mode("links", 0o755);
    }
    symlink("loop", place.path("links/loop")).unwrap();
    let bot = files::named_by(&place.path("bots/bot")).unwrap();
    assert!(of_path(&place.path("links/loop"), bot, BOT, true).unwrap().contains("too many symbolic links"));
}

#[test]
fn what_is_at_the_path_by_now_is_not_taken_for_what_was_captured() {
    let place = Place::new();
    let captured = files::named_by(&place.path("bots/bot")).unwrap();
    fs::write(place.path("bots/new"), "another").unwrap();
    fs::rename(place.path("bots/new"), place.path("bots/bot")).unwrap();
    let why = of_path(&place.path("bots/bot"), captured, BOT, true).unwrap();
    assert!(why.contains("was exchanged"), "{why}");
}

/// acl(5) as the kernel keeps it: owner rwx, user OTHER rwx, group r-x, mask rwx, others r-x.
fn list_for_other() -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1_u16, 7_u16, u32::MAX), (2, 7, OTHER), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

#[test]
fn an_access_list_that_lets_another_write_counts_also_where_the_group_is_roots() {
    let place = Place::new();
    let set = rustix::fs::setxattr(
        place.path("bots/bot"),
        "system.posix_acl_access",
        &list_for_other(),
        rustix::fs::XattrFlags::empty(),
    );
    if set == Err(rustix::io::Errno::OPNOTSUPP) {
        return;
    }
    set.unwrap();
    let mode = fs::metadata(place.path("bots/bot")).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o775, "the mask shows as the rights of the group");
    for why in [place.bot().unwrap_err(), place.file().unwrap()] {
        assert!(why.contains("can be written by whom its access list names (mode 775)"), "{why}");
    }
    // A mask without writing takes the right from whom the list names.
    place.mode("bots/bot", 0o755);
    assert_eq!(place.bot(), Ok(()));
}

#[test]
fn a_group_is_private_only_when_nobody_else_has_it_as_his_primary_one() {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nbot:x:4242:4242::/:/bin/false\nodd line\n";
    assert!(!is_primary_of_another(passwd, 4242, BOT));
    let passwd = format!("{passwd}other:x:4343:4242::/:/bin/sh\n");
    assert!(is_primary_of_another(&passwd, 4242, BOT));
    assert!(is_own_group(0, BOT) && !is_own_group(4242, BOT), "a user without a name has no private group");
}

#[test]
fn a_path_through_proc_names_something_else_to_each_process() {
    let me = files::named_by(&std::env::current_exe().unwrap()).unwrap();
    let why = of_path(Path::new("/proc/self/exe"), me, 0, true).unwrap();
    assert!(why.contains("means something else to each"), "{why}");
    let why = of_folder(Path::new("/proc/self"), 0).unwrap();
    assert!(why.contains("means something else to each"), "{why}");
}

#[test]
fn a_folder_is_ours_when_nobody_else_can_put_a_file_into_it() {
    assert_eq!(of_folder(Path::new("/usr/bin"), 4242), None);
    assert_eq!(of_folder(Path::new("/usr/bin/nothing-here"), 4242), None, "nobody else can make it");
    assert!(of_folder(Path::new("/tmp"), 4242).unwrap().contains("written by everybody"));
    assert!(of_folder(Path::new("/tmp/nothing-here"), 4242).unwrap().contains("written by everybody"));
}
