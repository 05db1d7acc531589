//! How much of what was written to a socket its peer does not have yet.

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
        let mut written = 0;
        while let Ok(count) = client.write(&[7; 65536]) {
            written += count;
        }
        assert!(unacknowledged(&client).unwrap() > 0);
        let mut all = vec![0; written];
        server.read_exact(&mut all).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while unacknowledged(&client).unwrap() > 0 {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(unacknowledged(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
