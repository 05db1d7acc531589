//! Recognizes the first bytes of HTTP/1.x and of HTTP/2 with prior knowledge.

use super::progress::{Progress, Why};

/// What an HTTP/2 client sends first (RFC 9113 section 3.4).
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest method name that is recognized, in bytes. The longest registered one has 16.
const MAX_METHOD: usize = 32;

/// The version of HTTP that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 or HTTP/1.1: a request line follows.
    Http1,
    /// HTTP/2 with prior knowledge: the preface is complete.
    Http2,
}

/// Recognizes HTTP by its first bytes: the whole HTTP/2 preface, or a method and a space.
///
/// A method is letters, `-` and `_` here, though RFC 9110 section 5.6.2 admits more: every registered method is, and
/// an SSH banner (`SSH-2.0-OpenSSH_9.2 …`) is not. One empty line may come before it (RFC 9112 section 2.2).
pub fn parse(buf: &[u8]) -> Progress<Version> {
    if HTTP2_PREFACE.starts_with(buf) {
        return if buf.len() == HTTP2_PREFACE.len() {
            Progress::Done(Version::Http2)
        } else {
            Progress::More
        };
    }
    if buf.starts_with(HTTP2_PREFACE) {
        return Progress::Done(Version::Http2);
    }
    // `PRI *` is reserved for the preface above (RFC 9113 section 11.6): cut short, it is no request either.
    if buf.starts_with(b"PRI ") {
        return Progress::NotThis(Why::OtherProtocol);
    }
    let line = match buf {
        [b'\r'] => return Progress::More,
        [b'\r', b'\n', line @ ..] => line,
        line => line,
    };
    let method =
        line.iter().take_while(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_')).count();
    match line.get(method) {
        _ if method > MAX_METHOD => Progress::NotThis(Why::OtherProtocol),
        Some(b' ') if method > 0 => Progress::Done(Version::Http1),
        Some(_) => Progress::NotThis(Why::OtherProtocol),
        None => Progress::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What every proper prefix and the whole of `bytes` are answered with.
    fn every_prefix(bytes: &[u8]) -> Vec<Progress<Version>> {
        (0..=bytes.len()).map(|length| parse(&bytes[..length])).collect()
    }

    #[test]
    fn the_http2_preface_is_recognized_when_it_is_whole_and_not_before() {
        let (last, before) = {
            let mut answers = every_prefix(HTTP2_PREFACE);
            (answers.pop(), answers)
        };
        assert_eq!(last, Some(Progress::Done(Version::Http2)));
        assert!(before.iter().all(|answer| *answer == Progress::More), "{before:?}");
        let with_settings = [HTTP2_PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        assert_eq!(parse(&with_settings), Progress::Done(Version::Http2));
    }

    #[test]
    fn a_preface_that_goes_wrong_is_neither_version() {
        for at in 4..HTTP2_PREFACE.len() {
            let mut bytes = HTTP2_PREFACE.to_vec();
            bytes[at] ^= 0x20;
            assert_eq!(parse(&bytes), Progress::NotThis(Why::OtherProtocol), "byte {at}");
        }
    }

    #[test]
    fn a_method_and_a_space_are_http1_and_every_shorter_prefix_needs_more() {
        for method in ["GET", "POST", "PATCH", "PRIVATE", "P", "PROPFIND", "M-SEARCH", "BASELINE-CONTROL"] {
            for start in ["", "\r\n"] {
                let bytes = format!("{start}{method} / HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes();
                let decided = start.len() + method.len() + 1;
                for (length, answer) in every_prefix(&bytes).into_iter().enumerate() {
                    let expected =
                        if length < decided { Progress::More } else { Progress::Done(Version::Http1) };
                    assert_eq!(answer, expected, "{method} at {length}");
                }
            }
        }
    }

    #[test]
    fn other_protocols_are_not_http() {
        let foreign: &[&[u8]] = &[
            b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
            b" GET / HTTP/1.1",
            b"\n",
            b"\r\r",
            b"*1\r\n$4\r\nPING\r\n",
            &[0x16, 3, 1],
            &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f],
            &[b'A'; MAX_METHOD + 1],
        ];
        for bytes in foreign {
            assert_eq!(parse(bytes), Progress::NotThis(Why::OtherProtocol), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn an_answer_never_changes_when_more_bytes_come(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
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
