//! What a proxy answers to `CONNECT`: one head, perhaps with interim ones before it, and behind it the tunnel. A body that its fields tell
//! of is none (RFC 9110 §9.3.6).

use httparse::Status;

/// Bytes of all heads together.
pub const MOST: usize = 8 * 1024;
const MOST_FIELDS: usize = 100;

/// As much of an answer as came.
#[derive(Debug, Default)]
pub struct Answer {
    head: Vec<u8>,
    /// Bytes of the interim ones before it.
    before: usize,
}

impl Answer {
    /// Takes the bytes that came next: how many of them belong to the answer, and the status when that is its end. What is not the
    /// end is to be taken before the next bytes are shown.
    ///
    /// # Errors
    /// It is no answer, or larger than any may be.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<u16>), String> {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let begun = self.head.len();
            self.head.extend_from_slice(rest);
            let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
            let mut parsed = httparse::Response::new(&mut fields);
            let (length, status) = match parsed.parse(&self.head) {
                Ok(Status::Complete(length)) => (length, parsed.code.unwrap_or_default()),
                Ok(Status::Partial) if self.before + self.head.len() >= MOST => {
                    return Err(format!("it is larger than {MOST} bytes"));
                }
                Ok(Status::Partial) => return Ok((bytes.len(), None)),
                Err(error) => return Err(format!("it is not HTTP ({error})")),
            };
            taken += length.saturating_sub(begun);
            self.before += length;
            if self.before > MOST {
                return Err(format!("it is larger than {MOST} bytes"));
            }
            self.head.clear();
            match status {
                101 => return Err("it switched protocols unasked".to_owned()),
                100..=199 => {}
                _ => return Ok((taken, Some(status))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows the bytes in pieces of this size; the status, and what is left behind the answer.
    fn read(bytes: &[u8], piece: usize) -> Result<Option<(u16, Vec<u8>)>, String> {
        let mut answer = Answer::default();
        let mut at = 0;
        while at < bytes.len() {
            let shown = &bytes[at..(at + piece).min(bytes.len())];
            let (taken, status) = answer.take(shown)?;
            at += taken;
            match status {
                Some(status) => return Ok(Some((status, bytes[at..].to_vec()))),
                None => assert_eq!(taken, shown.len(), "all of it, as long as there is no end"),
            }
        }
        Ok(None)
    }

    #[test]
    fn an_answer_ends_where_its_head_ends_however_it_comes() {
        for (text, behind, status) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", "SSH-2.0-x\r\n", 200),
            ("HTTP/1.0 200 OK\r\nVia: 1.1 squid\r\nContent-Length: 5\r\n\r\n", "220 x", 200),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n", 200),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\na: b\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
                "\r\n\r\n",
                204,
            ),
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n",
                "<html>",
                407,
            ),
            ("HTTP/1.1 503 x\r\n\r\n", "", 503),
        ] {
            let all = format!("{text}{behind}");
            for piece in [1, 2, 7, 64, 4096] {
                let expected = Some((status, behind.as_bytes().to_vec()));
                assert_eq!(read(all.as_bytes(), piece), Ok(expected), "{text:?} in pieces of {piece}");
            }
            for end in 0..text.len() {
                assert_eq!(read(&all.as_bytes()[..end], 5), Ok(None), "{text:?} up to {end}");
            }
        }
    }

    #[test]
    fn what_is_no_answer_or_has_no_end_is_refused() {
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(MOST));
        let many = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MOST / 20);
        let switched = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
        for text in
            ["SSH-2.0-OpenSSH\r\n", "\x16\x03\x01\x02", "HTTP/2 200\r\n\r\n", &endless, &many, switched]
        {
            for piece in [1, 512, MOST] {
                assert!(read(text.as_bytes(), piece).is_err(), "{:?}", &text[..20.min(text.len())]);
            }
        }
    }
}
