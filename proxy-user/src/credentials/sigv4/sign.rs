//! Signs a request: in the header, or in the query where the client signed there.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use time::OffsetDateTime;

use super::super::attach::{Head, HeaderMemory, Misplaced, sensitive};
use super::super::escape;
use super::super::mask::Needles;
use super::super::parts;
use super::super::secret::Secret;
use super::super::signing::{Signer, Signing};
use super::chunks::{Chunks, Start};
use super::claimed::{self, Claimed, PARAMETERS, Said};
use super::{
    ALGORITHM, DayKey, DayKeys, Keys, Scope, Stamp, canonical, scope_text, sha256, signature, string_to_sign,
};

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// The most bytes of a body that is signed as a whole: more than the services take that want that.
const MOST_BODY: usize = 16 << 20;

const NOT_IN_CHUNKS: Misplaced = Misplaced::Unsigned(
    "only the store of objects takes a body in chunks, and not with a signature in the query",
);

/// The most seconds for which a signature of ours in the query holds. The call is on its way now.
const EXPIRES: u32 = 300;

/// Signs with one pair of keys.
pub(in super::super) struct AwsSigner {
    keys: Arc<Keys>,
    days: Arc<DayKeys>,
    region: Option<Box<str>>,
    service: Option<Box<str>>,
    needles: Option<Arc<Needles>>,
}

impl AwsSigner {
    /// `region` and `service` hold whatever the client and the host say.
    pub(in super::super) fn new(keys: Keys, region: Option<&str>, service: Option<&str>) -> Self {
        // Of the keys, only this is in a call.
        let needles = keys.session_token.as_ref().and_then(|token| Needles::of_signed(token));
        let (region, service) = (region.map(Box::from), service.map(Box::from));
        Self { keys: Arc::new(keys), days: Arc::default(), region, service, needles }
    }

    fn scope(&self, claimed: Option<&Scope>, host: &str) -> Result<Scope, Misplaced> {
        let of_host = claimed::of_host(host);
        let other = claimed.or(of_host.as_ref());
        let region = self.region.as_ref().or(other.map(|it| &it.region));
        let service = self.service.as_ref().or(other.map(|it| &it.service));
        match (region, service) {
            (Some(region), Some(service)) => Ok(Scope { region: region.clone(), service: service.clone() }),
            _ => Err(Misplaced::Unsigned(
                "for which region and service is not known: add \"region\" and \"service\" to the credential, or have \
                 the client sign",
            )),
        }
    }
}

impl Signer for AwsSigner {
    fn look(&self, head: &Head<'_>) -> Result<Arc<dyn Signing>, Misplaced> {
        let claimed = Claimed::read(head)?;
        let scope = self.scope(claimed.scope.as_ref(), head.authority.host())?;
        let body = match claimed.body {
            Said::Chunks { .. } if claimed.in_query.is_some() || !scope.is_store() => {
                return Err(NOT_IN_CHUNKS);
            }
            Said::Digest(text) if claimed.in_query.is_some() && text.starts_with("STREAMING") => {
                return Err(NOT_IN_CHUNKS);
            }
            // Of any other service, what the client says of its body is not believed: one that does not fit would have the service
            // tell what should have been signed.
            Said::Digest(_) if !scope.is_store() => Said::Nothing,
            said => said,
        };
        let (keys, days) = (Arc::clone(&self.keys), Arc::clone(&self.days));
        Ok(Arc::new(AwsSigning {
            keys,
            days,
            scope,
            in_query: claimed.in_query.map(|seconds| seconds.min(EXPIRES)),
            body,
        }))
    }

    fn needles(&self) -> Option<Arc<Needles>> {
        self.needles.clone()
    }
}

/// One request of a client.
struct AwsSigning {
    keys: Arc<Keys>,
    days: Arc<DayKeys>,
    scope: Scope,
    in_query: Option<u32>,
    body: Said,
}

impl Signing for AwsSigning {
    fn body_limit(&self) -> Option<usize> {
        (self.body == Said::Nothing && !self.scope.is_store()).then_some(MOST_BODY)
    }

    fn sets(&self, name: &HeaderName) -> bool {
        // What some servers take for ours, in other letters (RFC 3875, section 4.1.18), is none of the client's to set.
        let folded = name.as_str().contains('_').then(|| name.as_str().replace('_', "-"));
        [AUTHORIZATION, DATE, TOKEN].contains(name)
            || folded.is_some_and(|name| name.starts_with("x-amz-") || name == "authorization")
    }

    fn take_out(&self, head: &mut Head<'_>, taken: &mut Vec<(String, Secret)>) -> Result<(), Misplaced> {
        let is_meant = |piece: &str| PARAMETERS.iter().any(|name| parts::is_named(piece, name));
        if head.target.query().is_some_and(|query| parts::has_piece(query, &is_meant)) {
            let left = parts::without(head.target, &is_meant, taken);
            *head.target = left.map_err(|_| Misplaced::Unspeakable)?;
        }
        Ok(())
    }

    fn sign(&self, head: &mut Head<'_>, body: &[u8]) -> Result<Option<Chunks>, Misplaced> {
        self.sign_at(head, body, Stamp::of(OffsetDateTime::now_utc()))
    }
}

impl AwsSigning {
    fn sign_at(&self, head: &mut Head<'_>, body: &[u8], stamp: Stamp) -> Result<Option<Chunks>, Misplaced> {
        spell(head, self.scope.is_store())?;
        if !canonical::is_plain(head.headers) {
            return Err(Misplaced::Unsigned("a header that is signed has other characters than ASCII"));
        }
        let day = self.days.of(&self.keys.secret, &stamp, &self.scope);
        let scope = scope_text(&stamp, &self.scope);
        let signature = match self.in_query {
            Some(expires) => self.in_query(head, body, &stamp, &scope, &day, expires)?,
            None => self.in_header(head, body, &stamp, &scope, &day)?,
        };
        Ok(match self.body {
            Said::Chunks { trailers } => {
                Some(Chunks::new(Start { key: day.key.clone(), stamp, scope, signature, trailers }))
            }
            _ => None,
        })
    }

    /// What is signed of the body.
    fn digest(&self, body: &[u8]) -> String {
        match &self.body {
            Said::Digest(text) => text.clone(),
            Said::Chunks { trailers: false } => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD".to_owned(),
            Said::Chunks { trailers: true } => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER".to_owned(),
            Said::Nothing if self.scope.is_store() => UNSIGNED.to_owned(),
            Said::Nothing => sha256(body),
        }
    }

    fn in_header(
        &self,
        head: &mut Head<'_>,
        body: &[u8],
        stamp: &Stamp,
        scope: &str,
        day: &DayKey,
    ) -> Result<String, Misplaced> {
        let digest = self.digest(body);
        head.headers.insert(DATE, text_value(stamp.text())?);
        head.headers.remove(&TOKEN);
        if let Some(token) = &self.keys.session_token {
            let token =
                sensitive(Secret::new(token.expose().to_vec())).map_err(|_| Misplaced::Unspeakable)?;
            head.headers.insert(TOKEN, token);
        }
        if self.scope.is_store() || head.headers.contains_key(&DIGEST) {
            head.headers.insert(DIGEST, text_value(&digest)?);
        }
        let (lines, names) = canonical::headers(head.headers, head.authority.as_str(), false);
        let query = canonical::query(head.target.query().unwrap_or_default());
        // The session token is in it.
        let lines = Secret::new(lines);
        let request = Secret::new(self.request(head, &query, lines.expose(), &names, &digest));
        let signature = signature(&day.key, &string_to_sign(stamp, scope, request.expose()));
        let id = &self.keys.id;
        let value =
            format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
        let value = sensitive(Secret::new(value.into_bytes())).map_err(|_| Misplaced::Unspeakable)?;
        head.headers.insert(AUTHORIZATION, value);
        Ok(signature)
    }

    fn in_query(
        &self,
        head: &mut Head<'_>,
        body: &[u8],
        stamp: &Stamp,
        scope: &str,
        day: &DayKey,
        expires: u32,
    ) -> Result<String, Misplaced> {
        let digest = match (&self.body, self.scope.is_store()) {
            // The store of objects takes no other in the query.
            (Said::Nothing | Said::Digest(_), true) => UNSIGNED.to_owned(),
            _ => self.digest(body),
        };
        for header in [&DATE, &TOKEN, &DIGEST] {
            head.headers.remove(header);
        }
        let (lines, names) = canonical::headers(head.headers, head.authority.as_str(), false);
        let credential = format!("{}/{scope}", self.keys.id);
        let token = self.keys.session_token.as_ref().map(|token| escape::percent(token.expose()));
        let expires = expires.to_string();
        let mut added: Vec<(&str, Secret)> = vec![
            ("X-Amz-Algorithm", Secret::new(ALGORITHM.as_bytes().to_vec())),
            ("X-Amz-Credential", escape::percent(credential.as_bytes())),
            ("X-Amz-Date", Secret::new(stamp.text().as_bytes().to_vec())),
            ("X-Amz-Expires", Secret::new(expires.into_bytes())),
            ("X-Amz-SignedHeaders", escape::percent(names.as_bytes())),
        ];
        added.extend(token.map(|token| ("X-Amz-Security-Token", token)));
        let unsigned = with(head.target, &added)?;
        let query = Secret::new(canonical::query(unsigned.query().unwrap_or_default()));
        let request = Secret::new(self.request(head, query.expose(), &lines, &names, &digest));
        let signature = signature(&day.key, &string_to_sign(stamp, scope, request.expose()));
        *head.target = with(&unsigned, &[("X-Amz-Signature", Secret::new(signature.clone().into_bytes()))])?;
        Ok(signature)
    }

    /// The canonical request.
    fn request(&self, head: &Head<'_>, query: &[u8], lines: &[u8], names: &str, digest: &str) -> Vec<u8> {
        let path = canonical::path(head.target.path(), self.scope.is_store());
        let parts: [&[u8]; 6] =
            [head.method.as_str().as_bytes(), &path, query, lines, names.as_bytes(), digest.as_bytes()];
        parts.join(&b'\n')
    }
}

/// Has the target spelled as it is signed, so that whoever checks the signature cannot take it for another: the store's paths,
/// and every query.
fn spell(head: &mut Head<'_>, is_store: bool) -> Result<(), Misplaced> {
    let (path, query) = (head.target.path(), head.target.query());
    let spelled = match is_store {
        true => String::from_utf8(canonical::path(path, true)).map_err(|_| Misplaced::Unspeakable)?,
        false => path.to_owned(),
    };
    let escaped = query.filter(|query| query.contains('%'));
    if escaped.is_some_and(|query| String::from_utf8(escape::unpercent(query.as_bytes())).is_err()) {
        return Err(Misplaced::Unsigned("its query has escapes that are no UTF-8"));
    }
    let whole = match query {
        Some(query) => format!("{spelled}?{}", canonical::in_place(query)),
        None => spelled,
    };
    if whole != head.target.as_str() {
        *head.target = PathAndQuery::try_from(whole).map_err(|_| Misplaced::Unspeakable)?;
    }
    Ok(())
}

/// The target with these parameters behind the others, in memory that is wiped.
fn with(target: &PathAndQuery, added: &[(&str, Secret)]) -> Result<PathAndQuery, Misplaced> {
    let more: usize = added.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let mut whole = Vec::with_capacity(target.as_str().len() + more);
    whole.extend_from_slice(target.path().as_bytes());
    let mut mark = b'?';
    if let Some(query) = target.query().filter(|query| !query.is_empty()) {
        whole.push(mark);
        whole.extend_from_slice(query.as_bytes());
        mark = b'&';
    }
    for (name, value) in added {
        whole.push(mark);
        whole.extend_from_slice(name.as_bytes());
        whole.push(b'=');
        whole.extend_from_slice(value.expose());
        mark = b'&';
    }
    PathAndQuery::from_maybe_shared(Bytes::from_owner(HeaderMemory(Secret::new(whole))))
        .map_err(|_| Misplaced::Unspeakable)
}

fn text_value(text: &str) -> Result<HeaderValue, Misplaced> {
    HeaderValue::from_str(text).map_err(|_| Misplaced::Unspeakable)
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
