//! How much of what was written to a socket its peer does not have yet, and how much room it has for more.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::libc;

/// Bytes of a TCP connection that the peer's kernel has not acknowledged (`SIOCOUTQ`, tcp(7)).
///
/// # Errors
/// It is no such socket.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int there (`put_user` in tcp_ioctl, net/ipv4/tcp.c), which is ours.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The peer's receive window in bytes (`tcpi_snd_wnd` of `TCP_INFO`, tcp(7), since Linux 5.4): less of it when the peer's program does not
/// read. `None` where the kernel does not say.
///
/// # Errors
/// It is no such socket.
pub fn window(socket: impl AsFd) -> io::Result<Option<u32>> {
    /// Where it is in `struct tcp_info` (include/uapi/linux/tcp.h), which only grows at its end.
    const AT: std::ops::Range<usize> = 228..232;
    let mut info = [0_u8; 512];
    let mut length: libc::socklen_t = 512;
    // SAFETY: the kernel writes `length` bytes at most (do_tcp_getsockopt, net/ipv4/tcp.c), and all of them are ours; it says how many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let told = usize::try_from(length).ok().and_then(|length| info.get(..length));
    let bytes = told.and_then(|told| told.get(AT)).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    Ok(bytes.map(u32::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_a_peer_has_no_room_for_is_counted_until_it_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        let first = window(&client).unwrap().unwrap();
        assert!((1024..1 << 30).contains(&first), "{first}");
        let mut written = 0;
        while let Ok(count) = client.write(&[7; 65536]) {
            written += count;
        }
        assert!(unacknowledged(&client).unwrap() > 0);
        let until = Instant::now() + Duration::from_secs(20);
        while window(&client).unwrap().unwrap() >= first / 2 {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut all = vec![0; written];
        server.read_exact(&mut all).unwrap();
        while unacknowledged(&client).unwrap() > 0 {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
        while window(&client).unwrap().unwrap() < first / 2 {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(window(std::fs::File::open("/dev/null").unwrap()).is_err());
        assert!(unacknowledged(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
