//! Archives as the kernel unpacks them into its first file system: cpio in the "newc" format.
//!
//! The kernel takes several archives one after the other, each padded (Documentation/driver-api/early-userspace/
//! buffer-format.rst), so what seldom changes is packed once.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Archives are padded to this, so that another may follow.
const BLOCK: u64 = 512;
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;

/// An archive that is being written. Everything in it belongs to root, unless it is taken from a tree.
pub(super) struct Archive<W> {
    out: W,
    written: u64,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0 }
    }

    /// Adds a folder; what holds it must be there already.
    pub(super) fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(name.as_bytes(), FOLDER, (0, 0), &[])
    }

    /// Adds a file with these permissions.
    pub(super) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name.as_bytes(), FILE | permissions, (0, 0), content)
    }

    /// Adds everything below `folder` under the same names. Device nodes, sockets and pipes are left out: `/dev` is the
    /// kernel's.
    pub(super) fn tree(&mut self, folder: &Path) -> Result<()> {
        self.branch(folder, folder)
    }

    fn branch(&mut self, root: &Path, folder: &Path) -> Result<()> {
        let what = || format!("cannot pack {}", folder.display());
        let mut entries =
            fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>).with_context(what)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let what = || format!("cannot pack {}", path.display());
            let data = fs::symlink_metadata(&path).with_context(what)?;
            let kind = data.file_type();
            let content = if kind.is_symlink() {
                fs::read_link(&path).with_context(what)?.as_os_str().as_bytes().to_vec()
            } else if kind.is_file() {
                fs::read(&path).with_context(what)?
            } else if kind.is_dir() {
                Vec::new()
            } else {
                continue;
            };
            let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes();
            self.entry(name, data.mode(), (data.uid(), data.gid()), &content).with_context(what)?;
            if kind.is_dir() {
                self.branch(root, &path)?;
            }
        }
        Ok(())
    }

    /// Ends the archive and returns what it was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(b"TRAILER!!!", 0, (0, 0), &[])?;
        self.pad(BLOCK)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &[u8], mode: u32, (uid, gid): (u32, u32), content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.inode, mode, uid, gid, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.put(header.as_bytes())?;
        self.put(name)?;
        self.put(&[0])?;
        self.pad(4)?;
        self.put(content)?;
        self.pad(4)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        while !self.written.is_multiple_of(to) {
            self.put(&[0])?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_headers_names_and_contents_each_padded_to_four() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("vm").unwrap();
        archive.file("vm/it", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        // 110 bytes of header and "vm\0" are 113, so 116; then 110 and "vm/it\0" are 116 and need no padding.
        assert_eq!(&text[116..122], "070701");
        assert_eq!(&text[130..138], "000081ed");
        assert_eq!(&text[226..240], "vm/it\0hello\0\0\0");
        assert_eq!(&text[240..246], "070701");
        assert!(text.contains("TRAILER!!!"));
    }

    #[test]
    fn a_tree_keeps_names_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("usr")).unwrap();
        fs::write(dir.path().join("usr/program"), "x").unwrap();
        std::os::unix::fs::symlink("usr", dir.path().join("bin")).unwrap();
        let mut archive = Archive::new(Vec::new());
        archive.tree(dir.path()).unwrap();
        let text = String::from_utf8(archive.finish().unwrap()).unwrap();
        for part in ["bin\0", "usr\0", "usr/program\0", "0000a1ff"] {
            assert!(text.contains(part), "{part:?}");
        }
    }
}
