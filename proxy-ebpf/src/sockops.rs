//! `sock_ops`: publish the origin under the connection's own address, and withdraw it when the socket closes before the
//! proxy took it.
//!
//! Published when the connection is established on the bot's side: that is before its last ACK leaves, so before the
//! proxy can accept it, and only a socket that really has the 4-tuple gets there. One whose SYN runs into a connection
//! that somebody else queued under the same 4-tuple (bound to a device, a socket need not give way) never does.
use aya_ebpf::{
    bindings::{
        BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    },
    helpers::generated::bpf_sk_storage_get,
    macros::sock_ops,
    programs::SockOpsContext,
};
use proxy_common::{
    Counter, FAMILY_V6, OriginKey, ProxyConfig, SocketState, VETTED_NOT, VETTED_PASSIVE, mapped,
};

use crate::maps::{CONFIG, ORIGINS, SOCKETS, count};

/// `TCP_CLOSE` of include/net/tcp_states.h.
const TCP_CLOSE: u32 = 7;

#[sock_ops]
pub fn on_sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => publish(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => vet(&ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == TCP_CLOSE => withdraw(&ctx),
        _ => {}
    }
    1
}

/// A connection to a listener of a governed workload: it may answer.
#[inline(always)]
fn vet(ctx: &SockOpsContext) {
    if let Some(state) = state(ctx, u64::from(BPF_SK_STORAGE_GET_F_CREATE))
        && state.vetted == VETTED_NOT
    {
        state.vetted = VETTED_PASSIVE;
    }
}

/// The state that the connect hook left on this socket.
#[inline(always)]
fn state<'a>(ctx: &'a SockOpsContext, flags: u64) -> Option<&'a mut SocketState> {
    // SAFETY: the context is valid; the verifier wants the null check before the use.
    unsafe {
        let sk = (*ctx.ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let map = (&raw const SOCKETS).cast_mut().cast();
        let state = bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags).cast::<SocketState>();
        if state.is_null() { None } else { Some(&mut *state) }
    }
}

#[inline(always)]
fn publish(ctx: &SockOpsContext) {
    let Some(state) = state(ctx, 0) else { return };
    let Some(config) = CONFIG.get(0) else { return };
    if state.origin.family == 0 || !goes_to_proxy(ctx, config, state.origin.family) {
        return;
    }
    let addr = if state.origin.family == FAMILY_V6 {
        // SAFETY: a field of the context.
        unsafe { address(&raw const (*ctx.ops).local_ip6) }
    } else {
        mapped(ctx.local_ip4().to_ne_bytes())
    };
    state.key = OriginKey {
        netns_cookie: state.origin.capture.netns_cookie,
        addr,
        port: ctx.local_port() as u16,
        reserved: [0; 6],
    };
    match ORIGINS.insert(&state.key, &state.origin, 0) {
        Ok(()) => count(Counter::OriginPublished),
        Err(_) => count(Counter::OriginLost),
    }
    let _ = ctx.set_cb_flags(ctx.cb_flags() as i32 | BPF_SOCK_OPS_STATE_CB_FLAG as i32);
}

/// Whether this very connection goes to the proxy: storage may be older than the connect.
#[inline(always)]
fn goes_to_proxy(ctx: &SockOpsContext, config: &ProxyConfig, family: u8) -> bool {
    // `bpf_sock_ops.remote_port` is a 32-bit word in network order (include/uapi/linux/bpf.h).
    let port = u32::from_be(ctx.remote_port()) as u16;
    if family == FAMILY_V6 {
        // SAFETY: a field of the context.
        let remote = unsafe { address(&raw const (*ctx.ops).remote_ip6) };
        remote == config.listen_v6 && port == config.port_v6
    } else {
        ctx.remote_ip4().to_ne_bytes() == config.listen_v4 && port == config.port_v4
    }
}

/// An address of the context in network order. Each word is read on its own: the verifier allows four bytes at a time,
/// and LLVM would otherwise merge them.
///
/// # Safety
/// `field` is a field of a valid context.
#[inline(always)]
unsafe fn address(field: *const [u32; 4]) -> [u8; 16] {
    let word = field.cast::<u32>();
    // SAFETY: four words of the field; sixteen bytes are four words.
    unsafe {
        let words = [
            word.read_volatile(),
            word.add(1).read_volatile(),
            word.add(2).read_volatile(),
            word.add(3).read_volatile(),
        ];
        core::mem::transmute(words)
    }
}

#[inline(always)]
fn withdraw(ctx: &SockOpsContext) {
    let Some(state) = state(ctx, 0) else { return };
    if state.key.port == 0 {
        return;
    }
    // The address may be another socket's by now: only our own entry is removed.
    // SAFETY: the entry is only compared.
    let ours = match unsafe { ORIGINS.get(&state.key) } {
        Some(origin) => origin.socket_cookie == state.origin.socket_cookie,
        None => false,
    };
    if ours {
        let _ = ORIGINS.remove(&state.key);
    }
}
