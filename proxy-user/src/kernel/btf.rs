//! Offsets into kernel structures, read from the running kernel's own BTF.
//!
//! A small reader of the format (Documentation/bpf/btf.rst): of all that BTF holds, only the byte offset of a named
//! member of a named struct is wanted. aya-obj keeps these to itself, and the crates that do not are LGPL.
use std::collections::HashMap;

use memchr::memchr;
use proxy_common::Offsets;
use thiserror::Error;

/// Where the kernel shows its BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why the offsets could not be taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// Shorter than it says, or not BTF at all.
    #[error("the kernel's BTF is damaged at byte {at}")]
    Damaged {
        /// Where.
        at: usize,
    },
    /// The kernel has no such struct member.
    #[error("the kernel's BTF has no member {member} in struct {structure}")]
    Missing {
        /// The struct.
        structure: &'static str,
        /// The member, or the alternatives.
        member: &'static str,
    },
}

/// Reads what the programs need.
///
/// # Errors
/// [`BtfError`].
pub fn offsets(btf: &[u8]) -> Result<Offsets, BtfError> {
    let btf = Btf::parse(btf)?;
    Ok(Offsets {
        task_group_leader: btf.offset("task_struct", &["group_leader"])?,
        // Renamed in 5.5; the meaning is the same: CLOCK_BOOTTIME at fork.
        task_start_time: btf.offset("task_struct", &["start_boottime", "real_start_time"])?,
        task_mm: btf.offset("task_struct", &["mm"])?,
        task_nsproxy: btf.offset("task_struct", &["nsproxy"])?,
        mm_exe_file: btf.offset("mm_struct", &["exe_file"])?,
        file_inode: btf.offset("file", &["f_inode"])?,
        inode_ino: btf.offset("inode", &["i_ino"])?,
        inode_sb: btf.offset("inode", &["i_sb"])?,
        sb_dev: btf.offset("super_block", &["s_dev"])?,
        nsproxy_mnt_ns: btf.offset("nsproxy", &["mnt_ns"])?,
        mnt_ns_inum: btf
            .offset("mnt_namespace", &["ns"])?
            .checked_add(btf.offset("ns_common", &["inum"])?)
            .ok_or(BtfError::Damaged { at: 0 })?,
        // Two members since 6.11; before that a `timespec64`, which begins with the seconds (`__i_ctime` from 6.6 on).
        inode_ctime_sec: btf.offset("inode", &["i_ctime_sec", "__i_ctime", "i_ctime"])?,
        inode_ctime_nsec: match btf.offset("inode", &["i_ctime_nsec"]) {
            Ok(offset) => offset,
            Err(_) => btf
                .offset("inode", &["__i_ctime", "i_ctime"])?
                .checked_add(btf.offset("timespec64", &["tv_nsec"])?)
                .ok_or(BtfError::Damaged { at: 0 })?,
        },
        sock_socket: btf.offset("sock", &["sk_socket"])?,
        socket_file: btf.offset("socket", &["file"])?,
        task_pid: btf.offset("task_struct", &["pid"])?,
        task_tgid: btf.offset("task_struct", &["tgid"])?,
        task_signal: btf.offset("task_struct", &["signal"])?,
        signal_live: btf.offset("signal_struct", &["live"])?,
        mm_env_start: btf.offset("mm_struct", &["env_start"])?,
        mm_env_end: btf.offset("mm_struct", &["env_end"])?,
        mm_arg_start: btf.offset("mm_struct", &["arg_start"])?,
        mm_arg_end: btf.offset("mm_struct", &["arg_end"])?,
        task_fs: btf.offset("task_struct", &["fs"])?,
        fs_users: btf.offset("fs_struct", &["users"])?,
        fs_pwd_dentry: btf
            .offset("fs_struct", &["pwd"])?
            .checked_add(btf.offset("path", &["dentry"])?)
            .ok_or(BtfError::Damaged { at: 0 })?,
        dentry_inode: btf.offset("dentry", &["d_inode"])?,
        task_cred: btf.offset("task_struct", &["cred"])?,
        cred_user_ns: btf.offset("cred", &["user_ns"])?,
        user_ns_level: btf.offset("user_namespace", &["level"])?,
        skb_sk: btf.offset("sk_buff", &["sk"])?,
    })
}

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// Where each type stands, and the structs that have names. Members are read when they are asked for: of some ten thousand structs, two
/// dozen are.
pub(super) struct Btf<'a> {
    strings: &'a [u8],
    types: &'a [u8],
    /// By type id; the first has the id 1.
    places: Vec<usize>,
    structs: HashMap<&'a [u8], u32>,
}

struct Member {
    name: u32,
    kind: u32,
    bits: u32,
}

fn word(data: &[u8], at: usize) -> Result<u32, BtfError> {
    data.get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or(BtfError::Damaged { at })
}

fn name(strings: &[u8], at: u32) -> &[u8] {
    let rest = strings.get(at as usize..).unwrap_or_default();
    rest.get(..memchr(0, rest).unwrap_or(rest.len())).unwrap_or_default()
}

/// Kind, number of parts, and `kind_flag` of a `btf_type.info`.
const fn described(info: u32) -> (u32, usize, bool) {
    ((info >> 24) & 0x1f, (info & 0xffff) as usize, info >> 31 == 1)
}

impl<'a> Btf<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        // struct btf_header: magic u16, version u8, flags u8, hdr_len, type_off, type_len, str_off, str_len.
        if word(data, 0)? as u16 != MAGIC {
            return Err(BtfError::Damaged { at: 0 });
        }
        let header = word(data, 4)? as usize;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset).ok_or(BtfError::Damaged { at: 4 })?;
            let end = start.checked_add(length).ok_or(BtfError::Damaged { at: 4 })?;
            data.get(start..end).ok_or(BtfError::Damaged { at: start })
        };
        let types = section(word(data, 8)? as usize, word(data, 12)? as usize)?;
        let strings = section(word(data, 16)? as usize, word(data, 20)? as usize)?;

        let mut places = Vec::new();
        let mut structs = HashMap::new();
        let mut at = 0;
        let mut id = 0_u32;
        while at < types.len() {
            id += 1;
            places.push(at);
            let type_name = word(types, at)?;
            let (kind, count, _) = described(word(types, at + 4)?);
            if kind == KIND_STRUCT {
                structs.entry(name(strings, type_name)).or_insert(id);
            }
            at += 12;
            at += match kind {
                1 | 14 | 17 => 4,                       // INT, VAR, DECL_TAG
                3 => 12,                                // ARRAY
                KIND_STRUCT | KIND_UNION => count * 12, // members
                6 => count * 8,                         // ENUM
                13 => count * 8,                        // FUNC_PROTO
                15 => count * 12,                       // DATASEC
                19 => count * 12,                       // ENUM64
                2 | 7..=12 | 16 | 18 => 0,              // PTR, FWD, TYPEDEF, modifiers, FUNC, FLOAT, TYPE_TAG
                _ => return Err(BtfError::Damaged { at: at - 12 }),
            };
        }
        if at > types.len() {
            return Err(BtfError::Damaged { at });
        }
        Ok(Self { strings, types, places, structs })
    }

    /// The members of a struct or union; none of anything else.
    fn members(&self, id: u32) -> impl Iterator<Item = Member> + use<'a> {
        let types = self.types;
        let place = id.checked_sub(1).and_then(|index| self.places.get(index as usize)).copied();
        let info = place.and_then(|at| word(types, at + 4).ok()).unwrap_or(0);
        let (kind, count, flag) = described(info);
        let count = if kind == KIND_STRUCT || kind == KIND_UNION { count } else { 0 };
        let first = place.unwrap_or(0) + 12;
        (0..count).map_while(move |index| {
            let member = first + index * 12;
            let offset = word(types, member + 8).ok()?;
            // With kind_flag the upper eight bits are the size of a bit field.
            let bits = if flag { offset & 0x00ff_ffff } else { offset };
            Some(Member { name: word(types, member).ok()?, kind: word(types, member + 4).ok()?, bits })
        })
    }

    /// Byte offset of the first of `names` that the struct has, also inside its anonymous structs and unions.
    pub(super) fn offset(&self, structure: &'static str, names: &[&'static str]) -> Result<u32, BtfError> {
        let missing = BtfError::Missing { structure, member: names.first().copied().unwrap_or("") };
        let Some(id) = self.structs.get(structure.as_bytes()) else { return Err(missing) };
        names
            .iter()
            .find_map(|wanted| self.find(*id, wanted.as_bytes(), 0))
            .map(|bits| bits / 8)
            .ok_or(missing)
    }

    fn find(&self, id: u32, wanted: &[u8], depth: u8) -> Option<u32> {
        if depth > 8 {
            return None;
        }
        self.members(id).find_map(|member| match name(self.strings, member.name) {
            found if found == wanted => Some(member.bits),
            b"" => self.find(member.kind, wanted, depth + 1)?.checked_add(member.bits),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_all_offsets_and_they_differ() {
        let offsets = offsets(&std::fs::read(KERNEL_BTF).unwrap()).unwrap();
        let task =
            [offsets.task_group_leader, offsets.task_start_time, offsets.task_mm, offsets.task_nsproxy];
        assert!(task.iter().all(|offset| *offset > 0 && *offset < 1 << 16), "{offsets:?}");
        assert!(task.iter().enumerate().all(|(i, a)| task.iter().skip(i + 1).all(|b| a != b)), "{offsets:?}");
    }

    #[test]
    fn damaged_btf_is_an_error_at_every_length_and_never_a_panic() {
        let whole = std::fs::read(KERNEL_BTF).unwrap();
        for length in (0..64).chain([1 << 10, 1 << 16, whole.len() / 2, whole.len() - 1]) {
            assert!(offsets(&whole[..length]).is_err(), "{length}");
        }
    }
}
