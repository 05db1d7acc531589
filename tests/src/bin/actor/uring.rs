//! What a program does that makes no system calls for its network: everything is asked of io_uring.
#![allow(unsafe_code, reason = "the queue takes entries whose buffers must outlive them")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use io_uring::{IoUring, opcode, squeue, types};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrLike as _, SockaddrStorage, socket};

/// Sends one datagram.
pub(crate) fn send(from: &UdpSocket, address: &str) -> io::Result<usize> {
    let to = SockaddrStorage::from(address.parse::<SocketAddr>().unwrap());
    let fd = types::Fd(from.as_raw_fd());
    let mut part = libc::iovec { iov_base: b"hello".as_ptr().cast_mut().cast(), iov_len: 5 };
    // SAFETY: all zeros is a message without parts, which are filled in below.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    run(&mut IoUring::new(4)?, &opcode::SendMsg::new(fd, &raw const message).build())
}

/// A connection, a request, and what comes first.
pub(crate) fn get(address: &str, path: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::empty(), None)?;
    let fd = types::Fd(socket.as_raw_fd());
    let to = SockaddrStorage::from(address);
    let mut ring = IoUring::new(4)?;
    run(&mut ring, &opcode::Connect::new(fd, to.as_ptr().cast(), to.len()).build())?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n");
    let length = u32::try_from(request.len()).unwrap();
    run(&mut ring, &opcode::Send::new(fd, request.as_ptr(), length).build())?;
    let mut answer = vec![0; 4096];
    let length = run(&mut ring, &opcode::Recv::new(fd, answer.as_mut_ptr(), 4096).build())?;
    Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
}

/// One entry to its end.
fn run(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<usize> {
    // SAFETY: the caller's buffers live until this returns, and it returns when the entry is done.
    unsafe { ring.submission().push(entry).unwrap() };
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().unwrap();
    usize::try_from(done.result()).map_err(|_| io::Error::from_raw_os_error(-done.result()))
}
