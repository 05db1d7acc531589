//! Recognizes what a server says before the client has said anything: the greeting of a protocol in which it speaks first.

use super::progress::{Progress, Why};

/// The type of a SETTINGS frame (RFC 9113 section 6.5), with which a server of HTTP/2 may begin (section 3.4).
const SETTINGS: u8 = 4;

/// Tells a greeting from the first bytes of a server. What servers of HTTP and TLS say unasked, to whom they wait for, is
/// `NotThis`: such a server takes calls, which are to be seen.
///
/// That is a status line (`408`, as the time is up), an HTTP/2 server's settings, or a TLS alert.
pub fn parse(buf: &[u8]) -> Progress<()> {
    const STATUS: &[u8] = b"HTTP/";
    let other = Progress::NotThis(Why::OtherProtocol);
    match buf {
        [] => Progress::More,
        // A record of TLS, of any type that there is, and of any version (RFC 8446 section 5.1, RFC 6520).
        [20..=24] => Progress::More,
        [20..=24, 3, ..] => other,
        // The first frame is on stream 0 and much shorter than 64 KiB, so the first byte of its length is 0.
        [0] | [0, _] | [0, _, _] => Progress::More,
        [0, _, _, SETTINGS, rest @ ..] => match rest {
            [_, 0, 0, 0, 0, ..] => other,
            [] | [_] | [_, 0] | [_, 0, 0] | [_, 0, 0, 0] => Progress::More,
            _ => Progress::Done(()),
        },
        _ if buf.starts_with(STATUS) => other,
        _ if STATUS.starts_with(buf) => Progress::More,
        _ => Progress::Done(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every_prefix(bytes: &[u8]) -> Vec<Progress<()>> {
        (0..=bytes.len()).map(|length| parse(&bytes[..length])).collect()
    }

    #[test]
    fn greetings_are_told_by_their_first_bytes() {
        for (bytes, needed) in [
            (&b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n"[..], 1),
            (b"220 mail.example.com ESMTP\r\n", 1),
            (b"+OK ready\r\n", 1),
            (b"* OK IMAP4rev1\r\n", 1),
            // MySQL: length, sequence number, version of the protocol.
            (&[0x4a, 0, 0, 0, 10, b'8', b'.', b'0'], 1),
            // Telnet; VNC.
            (&[0xff, 0xfd, 0x18], 1),
            (b"RFB 003.008\n", 1),
            (b"HELLO\n", 2),
            (&[0, 0, 9, 5, 0, 0, 0, 0, 0], 4),
            (&[0, 0, 9, SETTINGS, 0, 0, 0, 0, 1], 9),
            (&[21, 4], 2),
        ] {
            for (length, answer) in every_prefix(bytes).into_iter().enumerate() {
                let expected = if length < needed { Progress::More } else { Progress::Done(()) };
                assert_eq!(answer, expected, "{bytes:?} at {length}");
            }
        }
    }

    #[test]
    fn what_servers_of_calls_say_unasked_is_no_greeting() {
        for (bytes, needed) in [
            (&b"HTTP/1.1 408 Request Timeout\r\n"[..], 5),
            (&[0, 0, 18, SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100], 9),
            (&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0], 9),
            (&[21, 3, 3, 0, 2, 1, 0], 2),
            (&[22, 3, 1, 0, 80], 2),
        ] {
            let other = Progress::NotThis(Why::OtherProtocol);
            for (length, answer) in every_prefix(bytes).into_iter().enumerate() {
                let expected = if length < needed { &Progress::More } else { &other };
                assert_eq!(&answer, expected, "{bytes:?} at {length}");
            }
        }
    }

    proptest! {
        #[test]
        fn an_answer_never_changes_when_more_bytes_come(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..16),
                proptest::collection::vec(prop_oneof![Just(0_u8), Just(SETTINGS), Just(3), Just(22), Just(b'H')], 0..16),
            ]
        ) {
            let mut decided = None;
            for answer in every_prefix(&bytes) {
                if let Some(decided) = &decided {
                    prop_assert_eq!(decided, &answer);
                } else if answer != Progress::More {
                    decided = Some(answer);
                }
            }
        }
    }
}
