//! Reads a TLS ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2) without answering it.
//!
//! A pure function from the bytes received so far to what the client asked for. It reads the record layer only as far
//! as a ClientHello needs it: unencrypted handshake records, over which the message may be split in any way.

use super::progress::{Progress, Why};

/// The largest ClientHello that is read, in bytes on the wire, record headers included.
pub const MAX_BYTES: usize = 64 * 1024;

/// The most records that one ClientHello may be split over. A message in thousands of one-byte records would make
/// each new byte cost a walk over all of them.
const MAX_RECORDS: usize = 1024;

/// The largest payload of an unencrypted record (RFC 8446 section 5.1).
const MAX_RECORD: usize = 1 << 14;

const RECORD_HEADER: usize = 5;
const CONTENT_HANDSHAKE: u8 = 22;
const LEGACY_MAJOR: u8 = 3;
const MESSAGE_CLIENT_HELLO: u8 = 1;

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_SIGNATURE_ALGORITHMS: u16 = 13;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
const EXTENSION_ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// `ecdsa_secp256r1_sha256` (RFC 8446 section 4.2.3).
const ECDSA_P256_SHA256: u16 = 0x0403;

/// The suites that we speak over a certificate with ECDSA: those of TLS 1.3, and ECDHE_ECDSA of TLS 1.2 (RFC 8446 appendix B.4,
/// RFC 5289, RFC 7905).
const ECDSA_SUITES: [u16; 6] = [0x1301, 0x1302, 0x1303, 0xc02b, 0xc02c, 0xcca9];

/// What a client asked for in its ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name of the server_name extension (RFC 6066 section 3): a DNS name, lower case, without a trailing
    /// dot. `None` when the client sent none, as for IP addresses.
    pub server_name: Option<String>,
    /// The protocols of the ALPN extension (RFC 7301 section 3.1), in the client's order; empty when not sent.
    pub alpn: Vec<Vec<u8>>,
    /// The highest TLS version that the client offers, as on the wire: `0x0304` is TLS 1.3, `0x0303` is TLS 1.2.
    pub max_version: u16,
    /// Whether the client offers Encrypted ClientHello. `server_name` is then only the outer, public name; a client
    /// that only greases the extension looks the same.
    pub ech: bool,
    /// Whether the client verifies ECDSA with P-256: it offers `ecdsa_secp256r1_sha256` (RFC 8446 section 4.2.3), and TLS 1.3 or a
    /// suite of TLS 1.2 that goes with it.
    pub ecdsa: bool,
}

impl ClientHello {
    /// Whether the client offers `protocol` in ALPN.
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|offered| offered == protocol)
    }
}

/// Reads a ClientHello from the first bytes of a connection.
///
/// `NotThis(OtherProtocol)` means that these are not TLS records at all; every other `NotThis` is TLS that must be
/// refused. Never panics, whatever the bytes.
pub fn parse(buf: &[u8]) -> Progress<ClientHello> {
    let buf = buf.get(..MAX_BYTES).unwrap_or(buf);
    match message(buf) {
        Ok(Some(body)) => match hello(&body) {
            Ok(hello) => Progress::Done(hello),
            Err(why) => Progress::NotThis(why),
        },
        Ok(None) if buf.len() >= MAX_BYTES => Progress::NotThis(Why::TooLarge { limit: MAX_BYTES }),
        Ok(None) => Progress::More,
        Err(why) => Progress::NotThis(why),
    }
}

/// The body of the first handshake message, put together from its records; `None` while it is incomplete.
fn message(buf: &[u8]) -> Result<Option<Vec<u8>>, Why> {
    let mut fragments: Vec<&[u8]> = Vec::new();
    let mut received = 0;
    let mut rest = buf;
    loop {
        let Some((length, body)) = record(rest, fragments.is_empty())? else { return Ok(None) };
        let available = body.get(..length).unwrap_or(body);
        fragments.push(available);
        received += available.len();

        let mut header = [0_u8; 4];
        for (slot, byte) in header.iter_mut().zip(fragments.iter().copied().flatten()) {
            *slot = *byte;
        }
        let [kind, high, middle, low] = header;
        if received >= 1 && kind != MESSAGE_CLIENT_HELLO {
            return Err(Why::Malformed("the first TLS message is not a ClientHello"));
        }
        if received >= header.len() {
            let needed = u32::from_be_bytes([0, high, middle, low]) as usize;
            if needed > MAX_BYTES {
                return Err(Why::TooLarge { limit: MAX_BYTES });
            }
            if received - header.len() >= needed {
                let bytes = fragments.iter().copied().flatten().copied();
                return Ok(Some(bytes.skip(header.len()).take(needed).collect()));
            }
        }
        match body.get(length..) {
            Some(next) => rest = next,
            None => return Ok(None),
        }
        if fragments.len() >= MAX_RECORDS {
            return Err(Why::Malformed("the TLS ClientHello is split over too many records"));
        }
    }
}

/// The payload length of the record that `bytes` starts with, and all that follows its header; `None` while the
/// header is incomplete. What of the header is there is judged at once.
fn record(bytes: &[u8], first: bool) -> Result<Option<(usize, &[u8])>, Why> {
    let foreign = if first {
        Why::OtherProtocol
    } else {
        Why::Malformed("the TLS ClientHello is interrupted by another record")
    };
    if bytes.first().is_some_and(|&content| content != CONTENT_HANDSHAKE)
        || bytes.get(1).is_some_and(|&major| major != LEGACY_MAJOR)
    {
        return Err(foreign);
    }
    let mut reader = Reader(bytes);
    let (Some(_), Some(length)) = (reader.take(RECORD_HEADER - 2), reader.u16()) else { return Ok(None) };
    match usize::from(length) {
        0 => Err(Why::Malformed("a TLS handshake record is empty")),
        length if length > MAX_RECORD => Err(Why::Malformed("a TLS record is longer than 2^14 bytes")),
        length => Ok(Some((length, reader.0))),
    }
}

/// Reads the body of a ClientHello message.
fn hello(body: &[u8]) -> Result<ClientHello, Why> {
    let mut reader = Reader(body);
    let fixed = (|| {
        let legacy_version = reader.u16()?;
        let _random = reader.take(32)?;
        let session_id = reader.vector8()?;
        let cipher_suites = reader.vector16()?;
        let compressions = reader.vector8()?;
        (session_id.len() <= 32
            && !cipher_suites.is_empty()
            && cipher_suites.len().is_multiple_of(2)
            && !compressions.is_empty())
        .then_some((legacy_version, cipher_suites))
    })();
    const DAMAGED_BEFORE: Why = Why::Malformed("the TLS ClientHello is damaged before its extensions");
    let (max_version, suites) = fixed.ok_or(DAMAGED_BEFORE)?;
    let mut hello =
        ClientHello { server_name: None, alpn: Vec::new(), max_version, ech: false, ecdsa: false };
    let takes_suite = pairs(suites).any(|suite| ECDSA_SUITES.contains(&suite));
    if reader.is_empty() {
        return Ok(hello);
    }

    const DAMAGED: Why = Why::Malformed("the extensions of the TLS ClientHello are damaged");
    let mut extensions = Reader(reader.vector16().ok_or(DAMAGED)?);
    if !reader.is_empty() {
        return Err(DAMAGED);
    }
    let mut seen = Vec::new();
    while !extensions.is_empty() {
        let (kind, data) = extensions.u16().zip(extensions.vector16()).ok_or(DAMAGED)?;
        seen.push(kind);
        match kind {
            EXTENSION_SERVER_NAME => hello.server_name = Some(server_name(data)?),
            EXTENSION_ALPN => {
                hello.alpn =
                    alpn(data).ok_or(Why::Malformed("the ALPN list of the TLS ClientHello is damaged"))?;
            }
            EXTENSION_SUPPORTED_VERSIONS => {
                hello.max_version = max_version_of(data).ok_or(Why::Malformed(
                    "the supported_versions of the TLS ClientHello name no TLS version",
                ))?;
            }
            EXTENSION_SIGNATURE_ALGORITHMS => {
                let schemes = Some(Reader(data)).and_then(|mut reader| {
                    let list = reader.vector16()?;
                    (reader.is_empty() && !list.is_empty() && list.len().is_multiple_of(2)).then_some(list)
                });
                let schemes = schemes
                    .ok_or(Why::Malformed("the signature_algorithms of the TLS ClientHello are damaged"))?;
                hello.ecdsa = takes_suite && pairs(schemes).any(|scheme| scheme == ECDSA_P256_SHA256);
            }
            EXTENSION_ENCRYPTED_CLIENT_HELLO => hello.ech = true,
            _ => {}
        }
    }
    // RFC 8446 section 4.2. Two server names would let us and the upstream read different ones.
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(Why::Malformed("the TLS ClientHello carries an extension twice"));
    }
    Ok(hello)
}

/// The numbers of a list of 16 bits each.
fn pairs(list: &[u8]) -> impl Iterator<Item = u16> {
    list.chunks_exact(2).map(|pair| {
        u16::from_be_bytes([pair.first().copied().unwrap_or(0), pair.last().copied().unwrap_or(0)])
    })
}

/// The one host name of a server_name extension.
fn server_name(data: &[u8]) -> Result<String, Why> {
    const DAMAGED: Why = Why::Malformed("the server_name of the TLS ClientHello is damaged");
    let mut reader = Reader(data);
    let mut list = Reader(reader.vector16().ok_or(DAMAGED)?);
    let kind = list.u8().ok_or(DAMAGED)?;
    let name = list.vector16().ok_or(DAMAGED)?;
    // Only host_name(0) was ever defined, and no kind may occur twice (RFC 6066 section 3).
    if kind != 0 || !list.is_empty() || !reader.is_empty() {
        return Err(DAMAGED);
    }
    host_name(name).ok_or(Why::BadServerName)
}

/// `name` as a DNS host name: lower case, no trailing dot. `None` for IP literals and for anything that is not
/// letters, digits, `-` and `_` in labels of 1 to 63, 253 bytes at most (RFC 1035 section 2.3.4).
///
/// An all-numeric last label is refused: it can be no top-level domain, but some resolvers read it as an address
/// (RFC 3696 section 2).
pub fn host_name(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next()?;
    let valid = name.len() <= 253 && name.split('.').all(label) && !numeric(last);
    valid.then(|| name.to_ascii_lowercase())
}

/// Whether inet_aton and its descendants read `label` as a number: decimal, octal or hexadecimal.
fn numeric(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// The protocol names of an ALPN extension.
fn alpn(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.vector16()?);
    let mut names = Vec::new();
    while !list.is_empty() {
        let name = list.vector8().filter(|name| !name.is_empty())?;
        names.push(name.to_vec());
    }
    (reader.is_empty() && !names.is_empty()).then_some(names)
}

/// The highest version of a supported_versions extension, without GREASE values (RFC 8701).
fn max_version_of(data: &[u8]) -> Option<u16> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.vector8()?);
    let mut highest = None;
    while !list.is_empty() {
        let version = list.u16()?;
        if version >> 8 == u16::from(LEGACY_MAJOR) {
            highest = highest.max(Some(version));
        }
    }
    highest.filter(|_| reader.is_empty())
}

/// Takes big-endian numbers and length-prefixed vectors off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
#[path = "client_hello_tests.rs"]
pub(super) mod tests;
