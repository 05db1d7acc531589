//! Network rules and standings: what the programs may let pass without the proxy, and for whom.
//!
//! Rules and standings carry the *epoch* that they are of, a number that grows with each policy also over restarts of the
//! daemon; the programs look only at those of the one epoch in the map `GENERATION`. So a policy takes effect with one
//! write, and nothing of an older one is ever used.
use std::sync::{Mutex, PoisonError};

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, MapData, MapError,
        lpm_trie::{Key, LpmTrie},
    },
};
use proxy_common::{
    EVERYBODY, Facts, MAX_NETWORK_RULES, NETWORK_KEY_BITS, NetworkKey, PASSES_AND_IS_TOLD, STANDS_BY_START,
    Standing, names,
};

use super::{
    error::{KernelError, chain},
    maps::{array, failed, take},
};

/// A rule as the programs look it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRule {
    /// Position of the identity in its policy; `None`: everybody.
    pub identity: Option<u32>,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// Network order; IPv4 as v4-mapped IPv6.
    pub addr: [u8; 16],
    /// Bits of the address that count, of 128.
    pub bits: u8,
    /// `None`: every port.
    pub port: Option<u16>,
}

/// What a workload is, under one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It has this identity (its position in the policy).
    Identity(u32),
    /// It has this identity, to which everything that is not mediated is open.
    Open(u32),
    /// It has none, and nothing is open to it.
    Nobody,
    /// It has none, and everything that is not mediated is open to it.
    Passes,
    /// Everything that is not mediated is open to it because nothing is denied: what it does with that is told.
    Observed(Option<u32>),
}

/// The maps of rules and standings.
pub struct Network {
    inner: Mutex<Inner>,
    standings: Mutex<HashMap<MapData, Facts, Standing>>,
}

struct Inner {
    epoch_map: Array<MapData, u32>,
    rules: LpmTrie<MapData, NetworkKey, u32>,
    epoch: u32,
    /// Generation of the policy that the epoch is of.
    generation: Option<u64>,
}

impl Network {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let epoch_map: Array<MapData, u32> = array(ebpf, names::GENERATION)?;
        let epoch = epoch_map.get(&0, 0).map_err(failed("read the map GENERATION"))?;
        let rules = LpmTrie::try_from(take(ebpf, names::NETWORK)?).map_err(failed("use the map NETWORK"))?;
        let standings =
            HashMap::try_from(take(ebpf, names::STANDINGS)?).map_err(failed("use the map STANDINGS"))?;
        Ok(Self {
            inner: Mutex::new(Inner { epoch_map, rules, epoch, generation: None }),
            standings: Mutex::new(standings),
        })
    }

    /// Puts the rules of a policy in place of all others, at once. Standings of other policies end with it.
    ///
    /// # Errors
    /// [`KernelError`]; the rules before go on then.
    pub fn apply(&self, generation: u64, rules: &[KernelRule]) -> Result<(), KernelError> {
        let bound = usize::try_from(MAX_NETWORK_RULES).unwrap_or(usize::MAX);
        // Both sets are in the map for a moment.
        if rules.len() > bound / 2 {
            return Err(KernelError::TooManyRules { found: rules.len(), most: bound / 2 });
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let before = inner.epoch;
        // 0 is what the programs find before the first policy.
        let epoch = before.checked_add(1).unwrap_or(1);
        // What a daemon left that was killed in between.
        inner.keep_only(before)?;
        for rule in rules {
            let key = key_of(rule, epoch);
            if let Err(error) = inner.rules.insert(&key, 1, 0) {
                let _ = inner.keep_only(before);
                return Err(failed("write the map NETWORK")(error));
            }
        }
        inner.epoch_map.set(0, epoch, 0).map_err(failed("write the map GENERATION"))?;
        inner.epoch = epoch;
        inner.generation = Some(generation);
        inner.keep_only(epoch)
    }

    /// Tells the programs what all workloads with these facts are; `by_start`: only those of this one start of the program,
    /// because others may be somebody else. `facts.generation` is without meaning. Nothing happens when the policy is not the
    /// one whose rules are in place.
    pub fn stand(&self, facts: Facts, by_start: bool, generation: u64, stand: Stand) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be told apart is not remembered.
        if inner.generation != Some(generation) || facts.exe_ino == 0 || facts.exe_ctime_ns == 0 {
            return;
        }
        let facts = Facts { generation: inner.epoch, ..facts };
        drop(inner);
        let standing = match stand {
            Stand::Identity(id) => Standing { identity: slot(Some(id)), pass: 0 },
            Stand::Open(id) => Standing { identity: slot(Some(id)), pass: 1 },
            Stand::Nobody => Standing::default(),
            Stand::Passes => Standing { identity: 0, pass: 1 },
            Stand::Observed(id) => {
                Standing { identity: id.map_or(0, |id| slot(Some(id))), pass: PASSES_AND_IS_TOLD }
            }
        };
        let of_every_start = Facts { exec_tgid: 0, exec_ns: 0, ..facts };
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let told = match by_start {
            false => standings.insert(of_every_start, standing, 0),
            true => {
                let look_again = Standing { identity: STANDS_BY_START, pass: 0 };
                standings
                    .insert(facts, standing, 0)
                    .and_then(|()| standings.insert(of_every_start, look_again, 0))
            }
        };
        if let Err(error) = told {
            // It will be asked for again.
            tracing::warn!(error = %chain(&error), "cannot tell the programs who a workload is");
        }
    }
}

impl Inner {
    /// Removes every rule that is not of this epoch.
    fn keep_only(&mut self, epoch: u32) -> Result<(), KernelError> {
        let keys: Result<Vec<Key<NetworkKey>>, MapError> = self.rules.keys().collect();
        for key in keys.map_err(failed("read the map NETWORK"))? {
            let of = { key.data() }.generation;
            if of != epoch {
                self.rules.remove(&key).map_err(failed("write the map NETWORK"))?;
            }
        }
        Ok(())
    }
}

fn slot(identity: Option<u32>) -> u32 {
    identity.map_or(EVERYBODY, |id| id.saturating_add(1))
}

fn key_of(rule: &KernelRule, epoch: u32) -> Key<NetworkKey> {
    let data = NetworkKey {
        generation: epoch,
        identity: slot(rule.identity),
        protocol: u32::from(rule.protocol),
        port: rule.port.map_or(0, u32::from),
        addr: rule.addr,
    };
    Key::new(NETWORK_KEY_BITS + u32::from(rule.bits), data)
}
