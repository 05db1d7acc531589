//! Attaching a credential to a request: the client's own copies go out ([`strip`]), ours goes in ([`Attachment::attach`]).
//!
//! The caller does both after it has removed hop-by-hop headers: a client's `Connection: authorization` must not take our
//! header out again. Trailers may not bring a credential either: they are only stripped.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use http::uri::{Authority, PathAndQuery};

use super::inject::{Inject, Place, Strip};
use super::known::{self, Fingerprints};
use super::mask::Needles;
use super::placeholder::Stand;
use super::secret::Secret;
use super::signing::{Signer, Signing};
use super::sigv4::Chunks;
use super::{escape, parts};
use crate::trust::ClientIdentity;

/// The head of a request that is about to go out: what a credential can be part of, and what a signature covers.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path in normal form, and the query.
    pub target: &'a mut PathAndQuery,
    /// The host that was decided on, with its port unless it is the scheme's.
    pub authority: &'a Authority,
    /// The headers without those of the client's hop.
    pub headers: &'a mut HeaderMap,
}

/// A credential that is ready to go into one request, or into many. Clones share the secret's memory, which is wiped when
/// the last one is gone; `Debug` shows `Sensitive` in its place.
#[derive(Clone)]
pub struct Attachment {
    how: How,
    secret_name: Arc<str>,
    secret_version: u64,
    needles: Option<Arc<Needles>>,
}

/// What a credential does to a request.
#[derive(Clone)]
enum How {
    /// One header with the secret in it.
    Header(HeaderName, HeaderValue),
    /// One query parameter; the value is escaped.
    Query(Box<str>, Arc<Secret>),
    /// One cookie among those of the client.
    Cookie(Box<str>, Arc<Secret>),
    /// What stands where the client has a placeholder.
    Placeholder(Arc<Stand>),
    /// Nothing in the request: its connection proves who calls.
    Client(ClientIdentity),
    /// A signature over each request, which was not looked at yet.
    Signer(Arc<dyn Signer>),
    /// A signature over one request, with its body as far as it covers that.
    Signing(Arc<dyn Signing>, Bytes),
}

/// A place that cannot carry a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfit;

/// Why a credential that is at hand does not get into a request. The texts are about the request, never about the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// There is nothing to put it in the place of.
    #[error("the call does not have the placeholder of the credential where the API has it")]
    NoPlaceholder,
    /// Which one is meant cannot be told, and it may not be everywhere.
    #[error("the call has the placeholder of the credential more than once")]
    Twice,
    /// It would be no request any more.
    #[error("with the credential in it the call is too long, or is not HTTP")]
    Unspeakable,
    /// The body cannot be looked at.
    #[error("the body cannot have the placeholder: {0}")]
    Body(&'static str),
    /// What is under way takes all the room there is.
    #[error("too many bodies are being signed at once; try again")]
    Crowded,
    /// A signature cannot be made.
    #[error("the call cannot be signed: {0}")]
    Unsigned(&'static str),
}

/// Gives a secret's memory to a [`Bytes`], which drops, and so wipes, it after its last clone.
pub(super) struct HeaderMemory(pub(super) Secret);

impl AsRef<[u8]> for HeaderMemory {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

impl Attachment {
    /// Composes what goes into the part of a request that an API wants.
    ///
    /// # Errors
    /// The value has a byte that this part cannot carry. The error does not say which.
    pub(super) fn compose(
        inject: &Inject,
        secret: &Secret,
        secret_name: &str,
        secret_version: u64,
    ) -> Result<Self, Unfit> {
        let parts = [inject.prefix.as_bytes(), secret.expose(), inject.suffix.as_bytes()];
        // At its final size from the start: a buffer that grew would leave a copy behind in freed memory.
        let mut whole = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        let whole = Secret::new(whole);
        let mut sent = None;
        let how = match &inject.place {
            Place::Header(name) => How::Header(name.clone(), sensitive(whole)?),
            // Without a colon it is no user and no password (RFC 7617, section 2).
            Place::Basic if !whole.expose().contains(&b':') => return Err(Unfit),
            Place::Basic if whole.expose().iter().any(u8::is_ascii_control) => return Err(Unfit),
            Place::Basic => {
                let encoded = escape::base64(whole.expose());
                let value = Secret::new([b"Basic ", encoded.expose()].concat());
                sent = Some(encoded);
                How::Header(AUTHORIZATION, sensitive(value)?)
            }
            Place::Query(name) => How::Query(name.clone(), Arc::new(escape::percent(whole.expose()))),
            // RFC 6265, section 4.1.1.
            Place::Cookie(name) => {
                let fits = |byte: &u8| byte.is_ascii_graphic() && !br#"",;\"#.contains(byte);
                if !whole.expose().iter().all(fits) {
                    return Err(Unfit);
                }
                How::Cookie(name.clone(), Arc::new(whole))
            }
            Place::Placeholder(it) => How::Placeholder(Arc::new(Stand::new(it.clone(), whole)?)),
        };
        let needles = Needles::of(secret, sent.as_ref().map(Secret::expose));
        Ok(Self { how, secret_name: secret_name.into(), secret_version, needles })
    }

    /// Of a token, for the tests of other modules.
    #[cfg(test)]
    pub(crate) fn of_token(inject: &Inject, token: &[u8]) -> Self {
        Self::compose(inject, &Secret::new(token.to_vec()), "token", 1).unwrap()
    }

    /// What the connection proves itself with.
    pub(super) fn of_client(identity: ClientIdentity, secret_name: &str, secret_version: u64) -> Self {
        Self { how: How::Client(identity), secret_name: secret_name.into(), secret_version, needles: None }
    }

    /// A signature over each request.
    pub(super) fn of_signer(signer: Arc<dyn Signer>, secret_name: &str, secret_version: u64) -> Self {
        let needles = signer.needles();
        Self { how: How::Signer(signer), secret_name: secret_name.into(), secret_version, needles }
    }

    /// The same for one request, which stands as the client sent it; `None` when it does not depend on the request.
    ///
    /// # Errors
    /// The request cannot be signed.
    pub fn for_request(&self, head: &Head<'_>) -> Result<Option<Self>, Misplaced> {
        let How::Signer(signer) = &self.how else { return Ok(None) };
        let how = How::Signing(signer.look(head)?, Bytes::new());
        Ok(Some(Self { how, ..self.clone() }))
    }

    /// How many bytes the body may have at most that the signature covers, if it covers it.
    #[must_use]
    pub fn signs_body(&self) -> Option<usize> {
        match &self.how {
            How::Signing(signing, _) => signing.body_limit(),
            _ => None,
        }
    }

    /// The same with the body.
    #[must_use]
    pub fn over(self, body: Bytes) -> Self {
        match self.how {
            How::Signing(signing, _) => Self { how: How::Signing(signing, body), ..self },
            how => Self { how, ..self },
        }
    }

    /// Whom the connection must have proved to be, if this is a client certificate.
    #[must_use]
    pub fn client(&self) -> Option<&ClientIdentity> {
        match &self.how {
            How::Client(identity) => Some(identity),
            _ => None,
        }
    }

    /// The value of that header, for a call of our own; its memory is wiped, too.
    pub(super) fn into_header_value(self) -> Option<HeaderValue> {
        match self.how {
            How::Header(_, value) => Some(value),
            _ => None,
        }
    }

    /// The header that it sets, if it sets one: what the client brought under that name goes out first.
    #[must_use]
    pub fn header(&self) -> Option<&HeaderName> {
        match &self.how {
            How::Header(name, _) => Some(name),
            _ => None,
        }
    }

    /// What the client has a placeholder for, if this goes into its place.
    #[must_use]
    pub fn stand(&self) -> Option<&Stand> {
        match &self.how {
            How::Placeholder(stand) => Some(stand),
            _ => None,
        }
    }

    /// How it would look if the upstream sent it back; `None` when there is nothing to look for.
    #[must_use]
    pub fn needles(&self) -> Option<&Arc<Needles>> {
        self.needles.as_ref()
    }

    fn signing(&self) -> Option<&dyn Signing> {
        match &self.how {
            How::Signing(signing, _) => Some(&**signing),
            _ => None,
        }
    }

    /// Puts the credential into a request. What comes of it signs the body on its way, if that is signed in chunks.
    ///
    /// # Errors
    /// There is no place for it; what there is of the request is without meaning then, and must not be sent.
    pub fn attach(&self, head: &mut Head<'_>) -> Result<Option<Chunks>, Misplaced> {
        match &self.how {
            How::Header(name, value) => {
                head.headers.insert(name.clone(), value.clone());
            }
            How::Query(name, value) => {
                *head.target = parts::with_parameter(head.target, name, value.expose())
                    .map_err(|_| Misplaced::Unspeakable)?;
            }
            How::Cookie(name, value) => parts::with_cookie(head.headers, name, Some(value.expose())),
            How::Placeholder(stand) => stand.fill(head)?,
            How::Client(_) => {}
            How::Signing(signing, body) => return signing.sign(head, body),
            How::Signer(_) => return Err(Misplaced::Unsigned("it was not looked at before")),
        }
        Ok(None)
    }

    /// The name of what it was made of, for the journal: that of the secret in its store.
    #[must_use]
    pub fn secret_name(&self) -> &str {
        &self.secret_name
    }

    /// The version of the secret, for the journal.
    #[must_use]
    pub fn secret_version(&self) -> u64 {
        self.secret_version
    }
}

pub(super) fn sensitive(value: Secret) -> Result<HeaderValue, Unfit> {
    let memory = Bytes::from_owner(HeaderMemory(value));
    let mut value = HeaderValue::from_maybe_shared(memory).map_err(|_| Unfit)?;
    // Keeps it out of the dynamic table of HPACK (RFC 7541, section 7.1.3) and out of debug prints.
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attachment({} {})", self.secret_name, self.secret_version)
    }
}

/// How many parts the journal is told of, and how much of the name of each.
const TOLD: usize = 16;
const TOLD_CHARS: usize = 64;

/// What was taken out of a request, for the journal: the part that it was in, and its value, which only a fingerprint is made
/// of.
#[derive(Default)]
pub struct Removed(pub(super) Vec<(String, Secret)>);

impl Removed {
    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Something else that the client brought, by the part that it was in.
    pub fn add(&mut self, place: String, value: Secret) {
        self.0.push((place, value));
    }

    /// The parts, as in "header x-key", each with the fingerprint of what it held. Shortened: the client says how many there
    /// are, and how parameters of its query are called.
    #[must_use]
    pub fn told(&self, fingerprints: &Fingerprints) -> Vec<(String, String)> {
        let shown = |place: &str| place.chars().take(TOLD_CHARS).collect();
        let told =
            self.0.iter().take(TOLD).map(|(place, value)| (shown(place), fingerprints.of(value.expose())));
        told.collect()
    }
}

/// Takes every credential out of a request that the client brought, by its place, its name or its shape: headers as [`strip`]
/// does, parameters of the query, and the cookie of the API.
///
/// # Errors
/// What is left is no request any more.
pub fn strip_head(
    head: &mut Head<'_>,
    attachment: Option<&Attachment>,
    what: &Strip,
) -> Result<Removed, Misplaced> {
    let mut removed = strip(head.headers, attachment, what);
    let stand = attachment.and_then(Attachment::stand);
    let is_key =
        |piece: &str| what.is_key_piece(piece) && !stand.is_some_and(|stand| stand.is_in_query(piece));
    if head.target.query().is_some_and(|query| parts::has_piece(query, &is_key)) {
        let left = parts::without(head.target, &is_key, &mut removed.0);
        *head.target = left.map_err(|_| Misplaced::Unspeakable)?;
    }
    if let Some(name) = &what.cookie {
        parts::take_cookies(head.headers, name, &mut removed.0);
    }
    if let Some(signing) = attachment.and_then(Attachment::signing) {
        signing.take_out(head, &mut removed.0)?;
    }
    Ok(removed)
}

/// Takes every header out that carries a credential of the client's. A value with the placeholder of ours stays.
///
/// Out go, in all their occurrences: the header that `attachment` sets, `authorization`, `proxy-authorization`, those of
/// the API's list, those that carry nothing but keys at well-known APIs, and the twins of all these that are spelled with `_`
/// in place of `-`: many servers hand both spellings to the application under one name (RFC 3875, section 4.1.18), and
/// then the client's could win.
pub fn strip(headers: &mut HeaderMap, attachment: Option<&Attachment>, what: &Strip) -> Removed {
    let always = [AUTHORIZATION, PROXY_AUTHORIZATION];
    let ours = attachment.and_then(Attachment::header);
    let targets = ours.into_iter().chain(&always).chain(&what.headers);
    let signing = attachment.and_then(Attachment::signing);
    let is_key = |name: &&HeaderName| {
        signing.is_some_and(|signing| signing.sets(name))
            || targets.clone().any(|target| is_twin(name, target))
            || (known::is_key_header(name.as_str()) && !what.keeps_header(name))
    };
    let names: Vec<HeaderName> = headers.keys().filter(is_key).cloned().collect();
    let mut removed = Removed::default();
    let stand = attachment.and_then(Attachment::stand);
    for name in names {
        let values: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
        headers.remove(&name);
        for value in values {
            if stand.is_some_and(|stand| stand.is_in(&value)) {
                headers.append(name.clone(), value);
                continue;
            }
            removed.0.push((format!("header {name}"), token_of(&value)));
        }
    }
    removed
}

/// The key in a header, without what says how it is used: `Bearer` and the like.
fn token_of(value: &HeaderValue) -> Secret {
    let bytes = value.as_bytes().trim_ascii();
    let key = bytes.iter().position(|byte| *byte == b' ').and_then(|at| bytes.get(at + 1..));
    Secret::new(key.unwrap_or(bytes).to_vec())
}

/// Whether two names are the same when `_` counts as `-`.
pub(super) fn is_twin(name: &HeaderName, target: &HeaderName) -> bool {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.as_str().bytes().map(folded).eq(target.as_str().bytes().map(folded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(header: HeaderName, template: &str, secret: &[u8]) -> Attachment {
        let inject = Inject::from_template(header, template).unwrap();
        Attachment::compose(&inject, &Secret::new(secret.to_vec()), "stripe/restricted", 4).unwrap()
    }

    /// What becomes of the headers of a request.
    fn strip_and_attach(
        headers: &mut HeaderMap,
        attachment: Option<&Attachment>,
        names: &[HeaderName],
    ) -> Vec<String> {
        let what = Strip { headers: names.into(), ..Strip::default() };
        let removed = strip(headers, attachment, &what);
        let (mut target, authority) = (PathAndQuery::from_static("/"), Authority::from_static("api.test"));
        let mut head = Head { method: &Method::GET, target: &mut target, authority: &authority, headers };
        if let Some(attachment) = attachment {
            attachment.attach(&mut head).unwrap();
        }
        removed.0.into_iter().map(|(place, _)| place).collect()
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn the_clients_own_key_is_replaced_in_all_its_occurrences() {
        let mut map = headers(&[
            ("Authorization", "Bearer stolen"),
            ("accept", "*/*"),
            ("AUTHORIZATION", "Basic stolen-too"),
            ("Proxy-Authorization", "Basic third"),
        ]);
        let ours = attachment(AUTHORIZATION, "Bearer {secret}", b"rk_live");
        let removed = strip_and_attach(&mut map, Some(&ours), &[]);
        let sent: Vec<_> = map.get_all(AUTHORIZATION).iter().collect();
        assert_eq!(sent, ["Bearer rk_live"]);
        assert_eq!(map.len(), 2);
        assert_eq!(removed, ["header authorization", "header authorization", "header proxy-authorization"]);
    }

    #[test]
    fn a_key_in_another_header_goes_out_even_when_ours_goes_elsewhere() {
        let mut map = headers(&[("authorization", "Bearer stolen"), ("x-api-key", "a"), ("x-old-key", "b")]);
        let ours = attachment(HeaderName::from_static("x-api-key"), "{secret}", b"ours");
        let removed = strip_and_attach(&mut map, Some(&ours), &[HeaderName::from_static("x-old-key")]);
        assert_eq!(map.len(), 1);
        assert_eq!(map["x-api-key"], "ours");
        assert_eq!(removed, ["header authorization", "header x-api-key", "header x-old-key"]);
    }

    #[test]
    fn a_twin_with_underscores_cannot_compete_with_ours() {
        let mut map = headers(&[("X_Api_Key", "stolen"), ("x-api_key", "stolen"), ("x_other", "kept")]);
        let ours = attachment(HeaderName::from_static("x-api-key"), "{secret}", b"ours");
        assert_eq!(strip_and_attach(&mut map, Some(&ours), &[]).len(), 2);
        assert_eq!(map.len(), 2);
        assert_eq!(map["x_other"], "kept");
    }

    #[test]
    fn without_an_attachment_the_clients_credentials_still_go_out() {
        let mut map = headers(&[("authorization", "Bearer stolen"), ("accept", "*/*")]);
        assert_eq!(strip_and_attach(&mut map, None, &[]), ["header authorization"]);
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn keys_of_well_known_apis_go_out_unless_the_api_keeps_them() {
        let lines = [("x-api-key", "a"), ("private-token", "b"), ("x_auth_token", "c"), ("x-trace", "d")];
        let mut map = headers(&lines);
        let removed = strip_and_attach(&mut map, None, &[]);
        assert_eq!(removed, ["header x-api-key", "header private-token", "header x_auth_token"]);
        assert_eq!(map.len(), 1);
        let keep = Strip::of(&[], &["private-token".to_owned(), "?api_key".to_owned()], None);
        let mut map = headers(&lines);
        strip(&mut map, None, &keep);
        assert_eq!((map.len(), &map["private-token"]), (2, &HeaderValue::from_static("b")));
    }

    #[test]
    fn a_client_does_not_fill_the_journal_with_what_is_taken_from_it() {
        let mut map = HeaderMap::new();
        (0..1000).for_each(|_| {
            map.append(AUTHORIZATION, HeaderValue::from_static("own"));
        });
        let path = format!("/?{}=ghp_0123456789abcdefghijABCDEFGHIJ012345", "x".repeat(1000));
        let (mut target, authority) = (PathAndQuery::try_from(path).unwrap(), Authority::from_static("a"));
        let mut head =
            Head { method: &Method::GET, target: &mut target, authority: &authority, headers: &mut map };
        let told = |head: &mut Head<'_>| {
            let removed =
                strip_head(head, None, &Strip::default()).unwrap_or_else(|_| panic!("it is a request"));
            removed.told(&Fingerprints::new(&[1; 32]))
        };
        head.headers.remove(AUTHORIZATION);
        assert_eq!(told(&mut head)[0].0.len(), TOLD_CHARS);
        assert!(target == "/" && map.is_empty());
        (0..1000).for_each(|_| {
            map.append(AUTHORIZATION, HeaderValue::from_static("own"));
        });
        let mut head =
            Head { method: &Method::GET, target: &mut target, authority: &authority, headers: &mut map };
        assert_eq!(told(&mut head).len(), TOLD);
        assert!(map.is_empty());
    }

    #[test]
    fn keys_in_the_query_go_out_by_name_and_by_shape_with_a_fingerprint_of_each() {
        let token = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
        let path = format!("/a?page=2&access_token=own&x={token}&api_key=kept");
        let mut target = PathAndQuery::try_from(path).unwrap();
        let (mut map, authority) =
            (headers(&[("authorization", &format!("token {token}"))]), Authority::from_static("a"));
        let mut head =
            Head { method: &Method::GET, target: &mut target, authority: &authority, headers: &mut map };
        let what = Strip::of(&[], &["?api_key".to_owned()], None);
        let removed = strip_head(&mut head, None, &what).unwrap_or_else(|_| panic!("it is a request"));
        assert_eq!(target, "/a?page=2&api_key=kept");
        let told = removed.told(&Fingerprints::new(&[1; 32]));
        let places: Vec<_> = told.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, ["header authorization", "query access_token", "query x"]);
        assert_eq!(told[0].1, told[2].1, "the same token in two places");
        assert_ne!(told[0].1, told[1].1);
        assert!(!format!("{told:?}").contains(token));
    }

    #[test]
    fn a_request_without_credentials_has_nothing_removed() {
        let mut map = headers(&[("accept", "*/*")]);
        assert!(strip_and_attach(&mut map, None, &[]).is_empty());
    }

    #[test]
    fn clones_share_the_memory_that_is_wiped() {
        let ours = attachment(AUTHORIZATION, "Bearer {secret}", b"rk_live");
        let mut map = HeaderMap::new();
        strip_and_attach(&mut map, Some(&ours), &[]);
        let How::Header(_, value) = &ours.how else { unreachable!() };
        assert_eq!(map[AUTHORIZATION].as_bytes().as_ptr(), value.as_bytes().as_ptr());
        assert!(map[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn the_memory_is_given_back_after_the_last_clone() {
        struct Witness(HeaderMemory, #[expect(dead_code, reason = "counted, not read")] Arc<()>);
        impl AsRef<[u8]> for Witness {
            fn as_ref(&self) -> &[u8] {
                self.0.as_ref()
            }
        }
        let alive = Arc::new(());
        let memory = Witness(HeaderMemory(Secret::new(b"rk".to_vec())), Arc::clone(&alive));
        let value = HeaderValue::from_maybe_shared(Bytes::from_owner(memory)).unwrap();
        let clone = value.clone();
        drop(value);
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(clone);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn what_a_place_cannot_carry_is_refused() {
        let composed = |place: Place, secret: &[u8]| {
            let inject = Inject::at(place, "{secret}").unwrap();
            Attachment::compose(&inject, &Secret::new(secret.to_vec()), "n", 1).is_ok()
        };
        assert!(composed(Place::Basic, b"me:secret") && !composed(Place::Basic, b"secret"), "no user");
        assert!(!composed(Place::Basic, b"me:sec\nret"));
        assert!(composed(Place::Query("k".into()), b"any\n\xff"), "everything can be escaped");
        let cookie = |secret| composed(Place::Cookie("c".into()), secret);
        assert!(
            cookie(b"a=b/c+d") && !cookie(b"a;b") && !cookie(b"a b") && !cookie(b"\"a\"") && !cookie(b"\xff")
        );
    }

    #[test]
    fn a_value_that_a_header_cannot_carry_is_refused() {
        let inject = Inject::from_template(AUTHORIZATION, "Bearer {secret}").unwrap();
        for bytes in [&b"a\nb"[..], b"a\rb", b"a\0b", b"\x7f"] {
            assert!(Attachment::compose(&inject, &Secret::new(bytes.to_vec()), "n", 1).is_err());
        }
    }
}
