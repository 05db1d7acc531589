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

/// Where something goes. Without gaps: functions get it as bytes that are all set.
#[repr(C)]
pub struct Target {
    /// `IPPROTO_*`; MPTCP is TCP.
    pub protocol: u32,
    /// Host order.
    pub port: u32,
    /// Network order; IPv4 as v4-mapped IPv6.
    pub addr: [u8; 16],
}

impl Target {
    #[inline(always)]
    pub fn new(protocol: u32, addr: [u8; 16], port: u16) -> Self {
        Self { protocol, port: u32::from(port), addr }
    }
}

/// The generation of the policy that holds.
#[inline(always)]
pub fn generation() -> u32 {
    GENERATION.get(0).copied().unwrap_or(0)
}

// What is a function that others could call (`no_mangle`) the verifier looks at by itself and once, and not once for each way that leads
// to a call of it (`BTF_FUNC_GLOBAL`, Documentation/bpf/btf.rst). Such a one takes and returns numbers, and pointers that may be null.

/// Whether a rule of this identity covers the target.
#[inline(always)]
fn covers(identity: u32, target: &Target) -> bool {
    find_rule(identity, target) != 0
}

/// 1: there is a rule.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_rule(identity: u32, target: *const Target) -> u32 {
    // SAFETY: a target of one of our programs, or null.
    let Some(target) = (unsafe { target.as_ref() }) else { return 0 };
    let mut key = Key::new(
        NETWORK_KEY_BITS + 128,
        NetworkKey {
            generation: generation(),
            identity,
            protocol: target.protocol,
            port: target.port,
            addr: target.addr,
        },
    );
    if NETWORK.get(&key).is_some() {
        return 1;
    }
    key.data.port = 0;
    u32::from(NETWORK.get(&key).is_some())
}

/// Whether a rule for everybody covers the target.
#[inline(always)]
pub fn is_open(target: &Target) -> bool {
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
    let found = find_standing(capture);
    Standing { identity: found as u32, pass: (found >> 32) as u32 }
}

/// A [`Standing`] as one number: the identity below, the pass above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_standing(capture: *const Capture) -> u64 {
    // SAFETY: a capture of one of our programs, or null.
    let found = unsafe { capture.as_ref() }.map_or(UNKNOWN, look_up_both);
    u64::from(found.identity) | u64::from(found.pass) << 32
}

#[inline(always)]
fn look_up_both(capture: &Capture) -> Standing {
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
pub fn decide(capture: &Capture, target: &Target, told: bool) -> Answer {
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
pub fn decide_again(capture: &Capture, target: &Target) -> Answer {
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
pub fn ask(capture: &Capture, target: &Target) {
    count(Counter::RefusedUnknown);
    tell(capture, target, EVENT_ASK);
}

/// Tells the daemon what was decided.
#[inline(always)]
pub fn tell(capture: &Capture, target: &Target, kind: u16) {
    tell_daemon(capture, target, u32::from(kind));
}

/// 1: it was told.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_daemon(capture: *const Capture, target: *const Target, kind: u32) -> u32 {
    // SAFETY: a capture and a target of one of our programs, or null.
    let (Some(capture), Some(target)) = (unsafe { (capture.as_ref(), target.as_ref()) }) else { return 0 };
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(Counter::EventsLost);
        return 0;
    };
    entry.write(Event {
        capture: *capture,
        dst_addr: target.addr,
        dst_port: target.port as u16,
        kind: kind as u16,
        protocol: target.protocol,
    });
    entry.submit(0);
    1
}
