//! The kernel side: programs that capture, redirect, refuse and count. They parse nothing.
#![no_std]
#![no_main]

mod capture;
mod connect;
mod create;
mod datagram;
mod egress;
mod environment;
mod family;
mod maps;
mod network;
mod peername;
mod program;
mod protect;
mod sockops;
mod start;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The programs contain no path that panics; the verifier would refuse the loop if one were reachable.
    loop {}
}

/// The kernel wants to know before it lets programs call GPL-only helpers (`bpf_probe_read_kernel`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
