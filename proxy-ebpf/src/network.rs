//! What is neither mediated nor refused outright: network rules, and the standing of a workload.
//!
//! Invariant: a socket is vetted only by a rule for where it goes now, or by a standing that the daemon gave to the very
//! facts of the process that asks.
use aya_ebpf::btf_maps::lpm_trie::Key;
use proxy_common::{
    Capture, Counter, EVENT_ALLOWED, EVENT_ASK, EVENT_REFUSED, EVERYBODY, Event, Facts, NETWORK_KEY_BITS,
    NetworkKey, PASSES_AND_IS_TOLD, STANDS_BY_START, Standing,
};

use crate::maps::{EVENTS, GENERATION, NETWORK, STANDINGS, count};

/// What the rules say.
pub enum Answer {
    /// It may pass.
    Pass,
    /// It may not; the event is out.
    Refuse,
    /// Nobody knows yet who this is.
    Unknown,
}

/// Where something goes.
pub struct Target<'a> {
    /// `IPPROTO_*`; MPTCP is TCP.
    pub protocol: u32,
    /// Network order; IPv4 as v4-mapped IPv6.
    pub addr: &'a [u8; 16],
    /// Host order.
    pub port: u16,
}

/// The generation of the policy that holds.
#[inline(always)]
pub fn generation() -> u32 {
    GENERATION.get(0).copied().unwrap_or(0)
}

/// Whether a rule of this identity covers the target.
#[inline(always)]
fn covers(identity: u32, target: &Target<'_>) -> bool {
    let mut key = Key::new(
        NETWORK_KEY_BITS + 128,
        NetworkKey {
            generation: generation(),
            identity,
            protocol: target.protocol,
            port: u32::from(target.port),
            addr: *target.addr,
        },
    );
    if NETWORK.get(&key).is_some() {
        return true;
    }
    key.data.port = 0;
    NETWORK.get(&key).is_some()
}

/// Whether a rule for everybody covers the target.
#[inline(always)]
pub fn is_open(target: &Target<'_>) -> bool {
    let open = covers(EVERYBODY, target);
    if open {
        count(Counter::NetworkAllowed);
    }
    open
}

/// Nobody knows yet who this is: [`STANDS_BY_START`] with nothing that stands by it. (An `Option` would leave bytes that the
/// compiler reads and the verifier knows to be unset.)
const UNKNOWN: Standing = Standing { identity: STANDS_BY_START, pass: 0 };

/// The standing of a process: that of every start of its program, or that of its own start where this matters.
#[inline(always)]
fn standing_of(capture: &Capture) -> Standing {
    let mut facts = Facts::of(capture, generation());
    let standing = look_up(&facts);
    if standing.identity != STANDS_BY_START {
        return standing;
    }
    (facts.exec_tgid, facts.exec_ns) = (capture.exec_tgid, capture.exec_ns);
    look_up(&facts)
}

#[inline(always)]
fn look_up(facts: &Facts) -> Standing {
    // SAFETY: the value is copied at once.
    unsafe { STANDINGS.get(facts) }.copied().unwrap_or(UNKNOWN)
}

/// What the rules say of this process and target. A refusal, and what an identity was allowed, is told to the daemon; the
/// latter not again when it was `told`.
#[inline(always)]
pub fn decide(capture: &Capture, target: &Target<'_>, told: bool) -> Answer {
    // Who cannot be told apart has no standing.
    if capture.start_time_ns == 0 || capture.exe_ino == 0 {
        return Answer::Unknown;
    }
    let standing = standing_of(capture);
    if standing.identity == STANDS_BY_START {
        return Answer::Unknown;
    }
    if standing.pass != 0 {
        count(Counter::NetworkAllowed);
        if standing.pass == PASSES_AND_IS_TOLD && !told {
            tell(capture, target, EVENT_ALLOWED);
        }
        return Answer::Pass;
    }
    if standing.identity != 0 && covers(standing.identity, target) {
        count(Counter::NetworkAllowed);
        if !told {
            tell(capture, target, EVENT_ALLOWED);
        }
        return Answer::Pass;
    }
    count(Counter::RefusedNetwork);
    tell(capture, target, EVENT_REFUSED);
    Answer::Refuse
}

/// Whether a socket that an older policy let through may go on. Tells nobody of a pass; of the rest as [`decide`] does.
#[inline(always)]
pub fn decide_again(capture: &Capture, target: &Target<'_>) -> Answer {
    if covers(EVERYBODY, target) {
        return Answer::Pass;
    }
    if capture.start_time_ns == 0 || capture.exe_ino == 0 {
        return Answer::Refuse;
    }
    let standing = standing_of(capture);
    if standing.identity == STANDS_BY_START {
        ask(capture, target);
        return Answer::Unknown;
    }
    if standing.pass != 0 || (standing.identity != 0 && covers(standing.identity, target)) {
        return Answer::Pass;
    }
    count(Counter::RefusedNetwork);
    tell(capture, target, EVENT_REFUSED);
    Answer::Refuse
}

/// Whether everything may pass for this process.
#[inline(always)]
pub fn passes_all(capture: &Capture) -> bool {
    let standing = standing_of(capture);
    capture.start_time_ns != 0 && capture.exe_ino != 0 && standing.pass != 0
}

/// Asks the daemon who this is.
#[inline(always)]
pub fn ask(capture: &Capture, target: &Target<'_>) {
    count(Counter::RefusedUnknown);
    tell(capture, target, EVENT_ASK);
}

/// Tells the daemon what was decided.
#[inline(always)]
pub fn tell(capture: &Capture, target: &Target<'_>, kind: u16) {
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(Counter::EventsLost);
        return;
    };
    entry.write(Event {
        capture: *capture,
        dst_addr: *target.addr,
        dst_port: target.port,
        kind,
        protocol: target.protocol,
    });
    entry.submit(0);
}
