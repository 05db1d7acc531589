//! What comes back of a secret that was sent: found in headers and in pieces of a body, and covered with `*` byte for byte, so that
//! lengths stay true.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use memchr::memmem;
use zeroize::Zeroizing;

use super::secret::Secret;
use super::{escape, hex};

/// Shorter ones are found in texts that have nothing to do with them.
const SHORTEST: usize = 8;

/// From how many bytes at the end of a piece on these are held back until the next one, when they may be the beginning of a secret.
/// Fewer are sent at once: whoever waits for an answer that happens to end so must not wait on.
const HELD: usize = 4;

/// The spellings of a secret that are looked for.
pub struct Needles(Vec<Secret>);

impl Needles {
    /// The secret as it is, percent-encoded, and as `sent`, which is what went into the request; each of them also
    /// percent-encoded and within JSON. `None` when it is too short to be looked for.
    pub(super) fn of(secret: &Secret, sent: Option<&[u8]>) -> Option<Arc<Self>> {
        Self::spelled(secret, sent.map(|sent| Secret::new(sent.to_vec())))
    }

    /// The same for what is part of a signed request: a server that does not take the signature tells what it expected, also byte by
    /// byte in hexadecimal.
    pub(super) fn of_signed(secret: &Secret) -> Option<Arc<Self>> {
        let digits = hex::encode(secret.expose());
        let mut spaced = Zeroizing::new(Vec::with_capacity(digits.len() / 2 * 3));
        for pair in digits.as_bytes().chunks(2) {
            if !spaced.is_empty() {
                spaced.push(b' ');
            }
            spaced.extend_from_slice(pair);
        }
        let upper = |text: &[u8]| Secret::new(text.to_ascii_uppercase());
        let more = [
            upper(digits.as_bytes()),
            upper(&spaced),
            Secret::new(digits.as_bytes().to_vec()),
            Secret::from(spaced),
        ];
        Self::spelled(secret, more)
    }

    fn spelled(secret: &Secret, more: impl IntoIterator<Item = Secret>) -> Option<Arc<Self>> {
        let raw = secret.expose();
        if raw.len() < SHORTEST {
            return None;
        }
        // What was sent may come back encoded once more: a query parameter within a link, basic authentication within a cookie.
        let percent = escape::percent(raw);
        let mut as_sent = vec![Secret::new(raw.to_vec()), lower_escapes(percent.expose()), percent];
        as_sent.extend(more);
        let mut all = Vec::new();
        for one in as_sent {
            if !one.expose().iter().all(is_unreserved) {
                let (percent, json) = (escape::percent(one.expose()), escape::json(one.expose()));
                // As others spell the same: with small digits, and with `/` escaped, as PHP does.
                all.push(lower_escapes(percent.expose()));
                all.push(solidus_escaped(json.expose()));
                all.extend([percent, json]);
            }
            all.push(one);
        }
        Some(Arc::new(Self::ordered(all)))
    }

    /// These and others: what was sent first may come back as well as what was sent then.
    #[must_use]
    pub fn and(self: &Arc<Self>, others: Option<&Arc<Self>>) -> Arc<Self> {
        let Some(others) = others else { return Arc::clone(self) };
        let all = self.each().chain(others.each()).map(|needle| Secret::new(needle.to_vec()));
        Arc::new(Self::ordered(all.collect()))
    }

    /// One that has another in it is found with it; the longest is covered whole.
    fn ordered(mut all: Vec<Secret>) -> Self {
        all.sort_by(|a, b| (b.len(), a.expose()).cmp(&(a.len(), b.expose())));
        all.dedup_by(|a, b| a.expose() == b.expose());
        Self(all)
    }

    fn each(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Secret::expose)
    }

    /// Whether one of them is in it.
    #[must_use]
    pub fn are_in(&self, bytes: &[u8]) -> bool {
        // Most of what is asked about is shorter than any secret.
        self.each().any(|needle| needle.len() <= bytes.len() && find(bytes, needle).is_some())
    }

    fn longest(&self) -> usize {
        self.each().map(<[u8]>::len).max().unwrap_or(0)
    }

    /// Covers every occurrence; whether there was one. All are found before any is covered: one may be within another.
    fn cover(&self, bytes: &mut [u8]) -> bool {
        let mut found = Vec::new();
        for needle in self.each() {
            // Also those that overlap with themselves.
            let mut from = 0;
            while let Some(at) = bytes.get(from..).and_then(|rest| find(rest, needle)) {
                found.push(from + at..from + at + needle.len());
                from += at + 1;
            }
        }
        for range in &found {
            if let Some(place) = bytes.get_mut(range.clone()) {
                place.fill(b'*');
            }
        }
        !found.is_empty()
    }

    /// How many bytes at the end could be the beginning of one that is not there as a whole.
    fn begun(&self, bytes: &[u8]) -> usize {
        let longest = |needle: &[u8]| {
            let most = bytes.len().min(needle.len().saturating_sub(1));
            (HELD..=most).rev().find(|length| bytes.ends_with(needle.get(..*length).unwrap_or_default()))
        };
        self.each().filter_map(longest).max().unwrap_or(0)
    }

    /// Covers what is in the values of headers, and takes out those that have it in their names; whether there was anything.
    #[must_use]
    pub fn cover_headers(&self, headers: &mut HeaderMap) -> bool {
        // A name cannot be written over: it would be another field.
        let named: Vec<_> =
            headers.keys().filter(|name| self.are_in(name.as_str().as_bytes())).cloned().collect();
        let mut any = !named.is_empty();
        for name in named {
            headers.remove(name);
        }
        for value in headers.values_mut().filter(|value| self.are_in(value.as_bytes())) {
            let mut bytes = value.as_bytes().to_vec();
            self.cover(&mut bytes);
            *value = HeaderValue::from_bytes(&bytes).unwrap_or_else(|_| HeaderValue::from_static("*"));
            any = true;
        }
        any
    }
}

/// Where it is. In what is short, one look at each place that it may begin at costs less than to prepare a search.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    const SHORT: usize = 512;
    let (Some(first), true) = (needle.first(), bytes.len() <= SHORT) else {
        return memmem::find(bytes, needle);
    };
    let last = bytes.len().checked_sub(needle.len())?;
    let places = memchr::memchr_iter(*first, bytes.get(..=last)?);
    places.into_iter().find(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(needle)))
}

/// What no encoding spells in another way (RFC 3986 §2.3).
fn is_unreserved(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(byte)
}

/// Percent-encoded with the digits `a` to `f`.
fn lower_escapes(percent: &[u8]) -> Secret {
    let is_digit = |at: usize| {
        let before = |by: usize| at.checked_sub(by).and_then(|at| percent.get(at)) == Some(&b'%');
        before(1) || before(2)
    };
    let lower = |(at, byte): (usize, &u8)| if is_digit(at) { byte.to_ascii_lowercase() } else { *byte };
    Secret::new(percent.iter().enumerate().map(lower).collect())
}

/// Within JSON with `\/` for `/` (RFC 8259 §7 allows both).
fn solidus_escaped(json: &[u8]) -> Secret {
    let mut out = Vec::with_capacity(2 * json.len());
    for byte in json {
        out.extend_from_slice(if *byte == b'/' { b"\\" } else { b"" });
        out.push(*byte);
    }
    Secret::new(out)
}

impl fmt::Debug for Needles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Needles")
    }
}

/// Covers a body that comes in pieces.
#[derive(Debug)]
pub struct Masker {
    needles: Arc<Needles>,
    /// Not only trailers are looked through.
    bodies: bool,
    /// The last bytes that were sent, fewer than [`HELD`]: a secret may have begun there.
    before: Zeroizing<Vec<u8>>,
    /// What is held back, and the same as it may go on: the end of one secret may be the beginning of the next.
    held: Zeroizing<Vec<u8>>,
    held_covered: Zeroizing<Vec<u8>>,
}

impl Masker {
    /// For one body; without `bodies`, for its trailers alone.
    #[must_use]
    pub fn new(needles: Arc<Needles>, bodies: bool) -> Self {
        Self {
            needles,
            bodies,
            before: Zeroizing::default(),
            held: Zeroizing::default(),
            held_covered: Zeroizing::default(),
        }
    }

    /// The spellings that are looked for.
    #[must_use]
    pub fn needles(&self) -> &Needles {
        &self.needles
    }

    /// Whether something is held back.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The next piece as it may go on, and whether there was something to cover. `last`: nothing comes after it.
    pub fn next(&mut self, piece: Bytes, last: bool) -> (Bytes, bool) {
        if !self.bodies {
            return (piece, false);
        }
        let is_plain = self.held.is_empty() && !self.needles.are_in(&piece) && !self.begins_before(&piece);
        if is_plain && (last || !self.is_begun(&piece)) {
            if !last {
                self.remember(&piece);
            }
            return (piece, false);
        }
        let sent = self.before.len();
        let mut whole = Zeroizing::new(Vec::with_capacity(sent + self.held.len() + piece.len()));
        whole.extend_from_slice(&self.before);
        whole.extend_from_slice(&self.held);
        whole.extend_from_slice(&piece);
        let begun = if last { 0 } else { self.needles.begun(&whole) };
        // What was sent of its first bytes cannot be taken back.
        let ready = (whole.len() - begun).max(sent);
        let mut covered = whole.clone();
        let any = self.needles.cover(&mut covered);
        for (byte, before) in covered.iter_mut().skip(sent).zip(self.held_covered.iter()) {
            if *before == b'*' {
                *byte = b'*';
            }
        }
        self.held = Zeroizing::new(whole.get(ready..).unwrap_or_default().to_vec());
        self.held_covered = Zeroizing::new(covered.get(ready..).unwrap_or_default().to_vec());
        self.before.clear();
        self.remember(whole.get(..ready).unwrap_or_default());
        (Bytes::copy_from_slice(covered.get(sent..ready).unwrap_or_default()), any)
    }

    /// Whether a secret that began in what was sent goes on in this piece.
    fn begins_before(&self, piece: &[u8]) -> bool {
        if self.before.is_empty() {
            return false;
        }
        let next = piece.get(..self.needles.longest().min(piece.len())).unwrap_or_default();
        let both = Zeroizing::new([&self.before, next].concat());
        self.needles.are_in(&both)
    }

    /// Whether a secret may have begun at the end, also with what was sent before.
    fn is_begun(&self, piece: &[u8]) -> bool {
        match self.before.is_empty() || piece.len() >= self.needles.longest() {
            true => self.needles.begun(piece) > 0,
            false => self.needles.begun(&Zeroizing::new([&self.before, piece].concat())) > 0,
        }
    }

    fn remember(&mut self, sent: &[u8]) {
        if sent.len() >= HELD - 1 {
            self.before.clear();
        }
        self.before.extend_from_slice(sent.get(sent.len().saturating_sub(HELD - 1)..).unwrap_or_default());
        let more = self.before.len().saturating_sub(HELD - 1);
        self.before.drain(..more);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_secrets_are_found_where_a_call_was_made_twice() {
        let needles = |text: &[u8]| Needles::of(&Secret::new(text.to_vec()), None).unwrap();
        let both = needles(b"first-secret").and(Some(&needles(b"second-secret-1")));
        let mut body = b"first-secret second-secret-1".to_vec();
        assert!(both.cover(&mut body) && body == b"************ ***************");
        let one = needles(b"first-secret").and(None);
        assert!(!one.cover(&mut b"second-secret-1".to_vec()));
    }

    #[test]
    fn a_token_of_a_signed_request_is_found_byte_by_byte_too() {
        let needles = Needles::of_signed(&Secret::new(b"token/12".to_vec())).unwrap();
        for told in [
            "token/12",
            "token%2F12",
            "746f6b656e2f3132",
            "74 6F 6B 65 6E 2F 31 32",
            "74 6f 6b 65 6e 2f 31 32",
        ] {
            let mut body = format!("<a>50 {told} 0a</a>").into_bytes();
            assert!(needles.cover(&mut body), "{told}");
            assert!(!String::from_utf8(body).unwrap().contains(told), "{told}");
        }
    }

    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"sk/live\"0123456789";

    fn masker() -> Masker {
        Masker::new(Needles::of(&Secret::new(SECRET.to_vec()), Some(b"c2svbGl2ZSI=")).unwrap(), true)
    }

    /// What goes on of these pieces.
    fn through(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut masker = masker();
        let (mut out, mut any) = (Vec::new(), false);
        for (number, piece) in pieces.iter().enumerate() {
            let (next, found) = masker.next(Bytes::copy_from_slice(piece), number + 1 == pieces.len());
            out.extend_from_slice(&next);
            any |= found;
        }
        assert!(!masker.holds());
        (out, any)
    }

    #[test]
    fn every_spelling_is_covered_and_lengths_stay() {
        for spelled in [
            "sk/live\"0123456789",
            "sk%2Flive%220123456789",
            "sk%2flive%220123456789",
            "sk/live\\\"0123456789",
            "sk\\/live\\\"0123456789",
            "c2svbGl2ZSI=",
            "sk%252Flive%25220123456789",
            "sk%252flive%25220123456789",
            "c2svbGl2ZSI%3D",
            "c2svbGl2ZSI%3d",
        ] {
            let text = format!("<{spelled}> and <{spelled}>");
            let (out, any) = through(&[text.as_bytes()]);
            assert_eq!(String::from_utf8(out).unwrap(), text.replace(spelled, &"*".repeat(spelled.len())));
            assert!(any);
        }
    }

    #[test]
    fn what_has_no_secret_goes_on_as_it_is_and_at_once() {
        let mut masker = masker();
        for text in ["data: hello\n\n", "a", "s", "sk/", "", "it asks"] {
            let piece = Bytes::copy_from_slice(text.as_bytes());
            let (out, any) = masker.next(piece.clone(), false);
            assert_eq!((out.as_ptr(), out.len(), any), (piece.as_ptr(), text.len(), false), "{text}");
        }
        assert_eq!(masker.next("sk/live".into(), false), (Bytes::new(), false), "that could be it");
        assert_eq!(masker.next(" is not".into(), false), ("sk/live is not".into(), false));
    }

    #[test]
    fn the_end_of_one_secret_that_could_be_the_beginning_of_another_stays_covered() {
        let mut masker = Masker::new(Needles::of(&Secret::new(b"abcdXYabcd".to_vec()), None).unwrap(), true);
        assert_eq!(masker.next("abcdXYabcd".into(), false), ("******".into(), true));
        assert_eq!(masker.next(" end".into(), false).0, "**** end");
        assert_eq!(masker.next("abcdXYabcd".into(), false), ("******".into(), true));
        assert_eq!(masker.next("XYabcd".into(), true).0, "**********");
    }

    #[test]
    fn short_secrets_are_not_looked_for() {
        assert!(Needles::of(&Secret::new(b"1234567".to_vec()), None).is_none());
    }

    #[test]
    fn headers_are_covered() {
        let mut headers = HeaderMap::new();
        headers.insert("location", "https://a.test/?key=sk%2Flive%220123456789".parse().unwrap());
        headers.insert("server", "nginx".parse().unwrap());
        assert!(masker().needles().cover_headers(&mut headers));
        assert_eq!(headers["location"], format!("https://a.test/?key={}", "*".repeat(22)));
        assert_eq!(headers["server"], "nginx");
        assert!(!masker().needles().cover_headers(&mut headers));
    }

    proptest! {
        #[test]
        fn what_is_short_is_searched_as_what_is_long(hay in "[ab]{0,40}", needle in "[ab]{1,8}", more in 0..600usize) {
            let hay = [hay.as_bytes(), &b"a".repeat(more), hay.as_bytes()].concat();
            prop_assert_eq!(find(&hay, needle.as_bytes()), memmem::find(&hay, needle.as_bytes()));
        }

        /// At most the first three bytes of a secret go on, when a piece ends within them.
        #[test]
        fn no_way_to_cut_a_body_lets_a_secret_through(
            before in "[a-s/k\"]{0,12}",
            between in "[a-s/k\"]{0,12}",
            cuts in prop::collection::vec(0..80usize, 0..12),
        ) {
            let text = [before.as_bytes(), SECRET, between.as_bytes(), SECRET].concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let (out, any) = through(&pieces);
            prop_assert_eq!(out.len(), text.len());
            prop_assert!(any);
            prop_assert!(memmem::find(&out, &SECRET[HELD - 1..]).is_none(), "{:?}", String::from_utf8_lossy(&out));
            let (whole, _) = through(&[&text]);
            for (a, b) in out.iter().zip(&whole) {
                prop_assert!(a == b || *b == b'*', "nothing but secrets is covered");
            }
        }
    }
}
