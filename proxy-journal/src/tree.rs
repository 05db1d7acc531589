//! The Merkle tree over the records of a segment: one root for all of them, and a short path that proves one (RFC 9162, 2.1).

use sha2::{Digest as _, Sha256};

use crate::chain::ChainHash;

/// What begins the hash of a leaf, and of an inner node, so that neither can be taken for the other (RFC 9162, 2.1.1).
const LEAF: u8 = 0;
const INNER: u8 = 1;

/// A tree that grows at its end, in memory for one hash at each level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// The roots of the full trees that it consists of, the largest first.
    spine: Vec<ChainHash>,
}

impl Tree {
    /// How many records are in it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the record with this hash.
    pub fn push(&mut self, record: ChainHash) {
        let mut node = leaf(record);
        let mut rest = self.size;
        while rest & 1 == 1
            && let Some(left) = self.spine.pop()
        {
            node = inner(left, node);
            rest >>= 1;
        }
        self.spine.push(node);
        self.size += 1;
    }

    /// Its root; of an empty one the hash of nothing.
    pub fn root(&self) -> ChainHash {
        let mut from_the_right = self.spine.iter().rev().copied();
        let Some(last) = from_the_right.next() else { return ChainHash::of(b"") };
        from_the_right.fold(last, |right, left| inner(left, right))
    }
}

fn leaf(record: ChainHash) -> ChainHash {
    hash(&[&[LEAF], record.bytes()])
}

fn inner(left: ChainHash, right: ChainHash) -> ChainHash {
    hash(&[&[INNER], left.bytes(), right.bytes()])
}

fn hash(parts: &[&[u8]]) -> ChainHash {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part);
    }
    ChainHash::from(<[u8; 32]>::from(sha.finalize()))
}

/// The hashes that lead from the record at `index` (from 0) to the root of the tree of all `records`; `None` when there is none there.
pub fn path(records: &[ChainHash], index: usize) -> Option<Vec<ChainHash>> {
    if index >= records.len() {
        return None;
    }
    let mut found = Vec::new();
    let (mut part, mut at) = (records, index);
    while part.len() > 1 {
        let (left, right) = part.split_at(part.len().next_power_of_two() / 2);
        let other = if at < left.len() {
            part = left;
            right
        } else {
            (part, at) = (right, at - left.len());
            left
        };
        found.push(root_of(other));
    }
    found.reverse();
    Some(found)
}

fn root_of(records: &[ChainHash]) -> ChainHash {
    let mut tree = Tree::default();
    for record in records {
        tree.push(*record);
    }
    tree.root()
}

/// The root that `path` leads to from `record`, at `index` of a tree with `size` records; `None` when it is no path of such a tree
/// (RFC 9162, 2.1.3.2).
pub fn root_by(record: ChainHash, index: u64, size: u64, path: &[ChainHash]) -> Option<ChainHash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last) = (index, size - 1);
    let mut node = leaf(record);
    for other in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            node = inner(*other, node);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            node = inner(node, *other);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(count: usize) -> Vec<ChainHash> {
        (0..count).map(|n| ChainHash::of(&n.to_le_bytes())).collect()
    }

    /// As RFC 9162, 2.1.1 defines it.
    fn by_definition(records: &[ChainHash]) -> ChainHash {
        match records {
            [] => ChainHash::of(b""),
            [one] => leaf(*one),
            more => {
                let (left, right) = more.split_at(more.len().next_power_of_two() / 2);
                inner(by_definition(left), by_definition(right))
            }
        }
    }

    #[test]
    fn the_root_that_grows_is_the_root_of_the_definition() {
        for count in 0..70 {
            let records = records(count);
            assert_eq!(root_of(&records), by_definition(&records), "{count}");
        }
    }

    proptest! {
        #[test]
        fn a_path_leads_from_its_record_to_the_root_and_from_no_other(
            count in 1_usize..200, index in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
            bit in any::<prop::sample::Index>(),
        ) {
            let records = records(count);
            let at = index.index(count);
            let path = path(&records, at).unwrap();
            let root = root_of(&records);
            let wide = |n: usize| u64::try_from(n).unwrap();
            prop_assert_eq!(root_by(records[at], wide(at), wide(count), &path), Some(root));
            let other = other.index(count);
            if other != at {
                prop_assert_ne!(root_by(records[other], wide(at), wide(count), &path), Some(root));
                prop_assert_ne!(root_by(records[at], wide(other), wide(count), &path), Some(root));
            }
            prop_assert_eq!(root_by(records[at], wide(count), wide(count), &path), None);
            if !path.is_empty() {
                let mut changed = path.clone();
                let place = bit.index(path.len());
                changed[place] = ChainHash::of(b"another");
                prop_assert_ne!(root_by(records[at], wide(at), wide(count), &changed), Some(root));
                prop_assert_ne!(root_by(records[at], wide(at), wide(count), &path[1..]), Some(root));
            }
            let longer = [path.as_slice(), &[root]].concat();
            prop_assert_eq!(root_by(records[at], wide(at), wide(count), &longer), None);
        }
    }
}
