//! The life of one request: facts, decision, credential, record, forward, record.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::Authority;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use proxy_journal::{Allowed, Decision};
use proxy_policy::{Host, Scheme};

use super::inbound::{Again, Inbound};
use super::mistrust::Doubt;
use super::refusing::answer;
use super::spell::{authority, target};
use super::{Connection, admission, credential, keeping, standing, token, upgrade};
use crate::authorize::{Answer, Asked, Facts, Kind, Permit, Refusal, Subject, authorize, entry};
use crate::base::addr::UpstreamAddr;
use crate::base::clock;
use crate::credentials::{Attachment, Head, Needles};
use crate::forward::error::chain;
use crate::forward::{ForwardError, Mode, Outbound, Route, UpstreamBody};
use crate::http::extended::Extended;
use crate::http::interims::Client;
use crate::http::reflect::Cover;
use crate::http::server::Handler;
use crate::http::{
    Account, Incoming, Interims, Lapse, Leg, Paired as _, Replay, ReplyBody, RequestBody, Transfer, exchange,
    facts, hop, reflect, seen,
};
use crate::http1::{OnSwitch, Spelling};
use crate::limits::Pass;
use crate::record::{Capture, Receipt};

pub(super) type Reply = Response<ReplyBody<UpstreamBody>>;

/// Answers the requests of one connection.
pub(super) struct Calls {
    pub(super) connection: Connection,
    pub(super) leg: Arc<Leg>,
    /// The client speaks HTTP/2.
    pub(super) http2: bool,
    /// Over TLS: whether the client trusts us.
    pub(super) doubt: Option<Doubt>,
    /// The host of the handshake, to share with routes, and as requests to it name it.
    host: Option<(Arc<str>, Option<Authority>)>,
}

/// What came of a request that was sent, and what it went with.
struct Once {
    sent: Result<Response<UpstreamBody>, ForwardError>,
    needed: Option<Arc<Needles>>,
    attachment: Option<Attachment>,
    transfer: Arc<Transfer>,
}

impl Handler for Calls {
    type Body = ReplyBody<UpstreamBody>;

    async fn call(
        self: Arc<Self>,
        request: Request<Incoming>,
        spelling: Option<Spelling>,
        client: Client,
    ) -> Reply {
        let _ = self.doubt.as_ref().map(|doubt| doubt.end(|| self.connection.caller.workload()));
        match self.is_for_a_proxy(&request) {
            false => self.one(request, spelling, client).await,
            true => Box::pin(self.of_a_proxy(request, spelling, client)).await,
        }
    }

    async fn malformed(&self, count: u32) {
        let detail = match count {
            1 => "what came is not a request: its stream was reset with PROTOCOL_ERROR".to_owned(),
            many => format!("what came is not {many} requests: their streams were reset with PROTOCOL_ERROR"),
        };
        self.connection.refuse(&self.asked(), &Refusal::new(Kind::BadRequest, detail)).await;
    }
}

impl Calls {
    pub(super) async fn one(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        spelling: Option<Spelling>,
        client: Client,
    ) -> Reply {
        let spoken = request.version();
        let extended = Extended::take(&mut request);
        let websocket = hop::wants_websocket(request.version(), request.method(), request.headers());
        let upgrade = request.extensions_mut().remove::<OnSwitch>().filter(|_| websocket);
        let (Parts { method, uri, version, headers, .. }, body) = request.into_parts();
        let services = &self.connection.services;
        let subject = self.connection.caller.current(&services.policy, &*services.identifier).await;
        let limit = services.settings.http.header_bytes;
        let facts = match facts::small_enough(limit, spoken, &uri, &headers)
            .and_then(|()| facts::well_formed(spoken, &uri, &headers))
            .and_then(|()| facts::read(&self.leg, version, &method, &uri, &headers))
        {
            Ok(facts) => facts,
            Err(refusal) => {
                let asked = Asked {
                    method: Some(method.as_str()),
                    path: Some(uri.path()),
                    has_query: uri.query().is_some(),
                    ..self.asked()
                };
                return self.refuse(&subject, &asked, &refusal, &method);
            }
        };
        let body = Replay::of(body);
        // It is handed on many times.
        let mut inbound = Box::new(Inbound {
            headers: Arc::new(headers),
            spelling,
            uri: uri.clone(),
            body,
            version,
            websocket,
            upgrade,
            extended,
            seen: None,
            again: false,
            client,
            tap: None,
        });
        let mut subject = subject;
        loop {
            let permitted = self.permitted(&subject, &facts, &mut inbound).await;
            let (permit, attachment, pass, waited) = match permitted {
                Ok(permitted) => permitted,
                Err(refusal) => {
                    let decision = || {
                        let asked = facts.asked(self.connection.dst, self.connection.proxy());
                        let fingerprints = self.fingerprints(&facts, subject.live(), &inbound.headers);
                        Decision { fingerprints, ..entry::refused(&subject, &asked, &refusal) }
                    };
                    return self.refuse_as(&subject, decision, &refusal, &method);
                }
            };
            if !waited.is_zero() {
                let now = self.connection.caller.current(&services.policy, &*services.identifier).await;
                // Another policy came while it waited.
                if now.live().generation() != subject.live().generation() {
                    subject = now;
                    continue;
                }
            }
            return self.forward(&subject, &facts, &permit, attachment, pass, inbound).await;
        }
    }

    pub(super) fn new(connection: Connection, leg: Leg, http2: bool) -> Self {
        let authority = |host: &Host| authority(host.name(), leg.port, leg.scheme).ok();
        let host = leg.host.as_ref().map(|host| (host.name().into(), authority(host)));
        let doubt = (leg.scheme == Scheme::Https).then(Doubt::begin);
        Self { connection, leg: Arc::new(leg), http2, doubt, host }
    }

    /// The host that was decided on, as requests name it.
    fn authority(&self, facts: &Facts<'_>) -> Result<Authority, ForwardError> {
        match &self.host {
            Some((host, Some(authority))) if **host == *facts.host.name() && facts.port == self.leg.port => {
                Ok(authority.clone())
            }
            _ => authority(facts.host.name(), facts.port, facts.scheme),
        }
    }

    /// What is known of the connection, where no request can be told.
    pub(super) fn asked(&self) -> Asked<'_> {
        let host = self.leg.host.as_ref().map(Host::name);
        self.connection.asked_of(self.leg.scheme.as_str(), host)
    }

    /// The permit, with the credential and the pass that it demands, and how long it waited for that. What has none is
    /// refused before anything is recorded as allowed.
    async fn permitted(
        &self,
        subject: &Subject,
        facts: &Facts<'_>,
        inbound: &mut Inbound,
    ) -> Result<(Permit, Option<Attachment>, Pass, Duration), Refusal> {
        let services = &self.connection.services;
        let permit = self.decided(subject, facts, inbound).await?;
        let (permit, pass, waited) =
            match admission::admit(services, subject, &permit, facts.host.name()).await {
                Ok((pass, waited)) => (permit, pass, waited),
                Err(refusal) => (permit.in_spite_of(refusal)?, Pass::default(), Duration::ZERO),
            };
        let Some(id) = permit.credential() else { return Ok((permit, None, pass, waited)) };
        let (attachment, took) = credential::attachment(subject, &permit, id, facts.host.name())
            .await
            .map_err(|refusal| refusal.with_basis(permit.basis().clone()))?;
        Ok((permit, Some(attachment), pass, waited + took))
    }

    /// Asks, and gathers what conditions look at when one does: nothing is looked at that no condition needs.
    async fn decided(
        &self,
        subject: &Subject,
        facts: &Facts<'_>,
        inbound: &mut Inbound,
    ) -> Result<Permit, Refusal> {
        let settings = &self.connection.services.settings;
        loop {
            match authorize(subject, facts, settings.unidentified, clock::now(), inbound.seen.as_ref())? {
                Answer::Permit(permit) => return Ok(permit),
                Answer::NeedsSeen if inbound.seen.is_none() => {
                    let websocket = inbound.websocket;
                    let seen =
                        seen::head(subject.live(), facts, &inbound.headers, inbound.version, websocket);
                    inbound.seen = Some(seen);
                }
                Answer::NeedsBody { limit } => {
                    let time = settings.http.header_time;
                    let body = seen::body(&mut inbound.body, &inbound.headers, limit, time).await;
                    inbound.seen.get_or_insert_default().body = body;
                }
                Answer::NeedsSeen | Answer::Untold(_) => {
                    let detail = "the conditions of the policy cannot be decided";
                    return Err(Refusal::new(Kind::NotGranted, detail));
                }
            }
        }
    }

    async fn forward(
        &self,
        subject: &Subject,
        facts: &Facts<'_>,
        permit: &Permit,
        attachment: Option<Attachment>,
        pass: Pass,
        mut inbound: Box<Inbound>,
    ) -> Reply {
        let services = &self.connection.services;
        let asked = facts.asked(self.connection.dst, self.connection.proxy());
        let fingerprints = self.fingerprints(facts, permit.live(), &inbound.headers);
        let allowed = Allowed { fingerprints, ..entry::permitted(subject, &asked, permit) };
        let receipt = match services.recorder.begin_call(&allowed).await {
            Ok(receipt) => receipt,
            Err(error) => {
                tracing::error!(error = %chain(&error), "a call was refused because it cannot be recorded");
                services.refused_without_record(subject);
                let refusal = Refusal::new(
                    Kind::JournalUnwritable,
                    "calls are refused until the journal can be written",
                );
                return answer(&refusal, None, subject, facts.method);
            }
        };
        services.counters.tally(subject).count_allowed();
        let id = receipt.id();
        let transfer = Arc::new(Transfer::default());
        let mut account = Account::open(receipt, Arc::clone(&transfer), pass);
        let capture =
            match keeping::open(services, permit, allowed.identity, &mut account, &mut inbound).await {
                Ok(capture) => capture,
                Err(refusal) => {
                    account.refused(refusal.status());
                    account.fail(refusal.kind.blame(), refusal.reason());
                    return answer(&refusal, Some(id), subject, facts.method);
                }
            };
        let mut lapse = self.lapse(subject, facts, permit, &mut inbound);
        let (upgrade, extended) = (inbound.upgrade.take(), inbound.extended.take());
        if permit.answers().is_some() {
            return Box::pin(self.answer_token(subject, facts, permit, inbound, account, lapse)).await;
        }
        let sent = tokio::select! {
            biased;
            sent = self.send_current(subject, facts, permit, attachment, inbound, transfer, &mut account) => Ok(sent),
            refusal = &mut lapse => Err(refusal),
        };
        let (sent, needles) = match sent {
            Ok(sent) => sent,
            Err(refusal) => {
                account.refused(refusal.status());
                account.cut(&refusal);
                return answer(&refusal, Some(id), subject, facts.method);
            }
        };
        let covered = sent.and_then(|response| {
            let (status, headers) = (response.status(), response.headers());
            let switched = status == StatusCode::SWITCHING_PROTOCOLS;
            if switched && extended.as_ref().is_some_and(|extended| !extended.is_proved(headers)) {
                return Err(ForwardError::Unasked { addr: self.connection.dst.0 });
            }
            admission::note(services, subject, permit, facts.host.name(), status, headers);
            let Some(needles) = needles else { return Ok((response, None)) };
            let (mut head, mut body) = response.into_parts();
            let (mask, ended) = (permit.mask(), body.is_end_stream());
            let (wire, transfer) = (body.wire(), account.transfer());
            let cover = reflect::cover(mask, &needles, facts.method, &mut head, wire, ended, transfer)?;
            Ok((Response::from_parts(head, body), cover))
        });
        match covered {
            Ok((response, cover)) => {
                let mut reply = self.relay(response, account, upgrade, lapse, (cover, capture));
                if let Some(extended) = extended {
                    extended.spell(&mut reply);
                }
                reply
            }
            Err(error) => {
                let refusal = error.refusal(facts.host.name());
                account.refused(refusal.status());
                account.fail(refusal.kind.blame(), refusal.reason());
                self.last(answer(&refusal, Some(id), subject, facts.method), &refusal)
            }
        }
    }

    /// Answers what asks for a token: none of it is sent.
    async fn answer_token(
        &self,
        subject: &Subject,
        facts: &Facts<'_>,
        permit: &Permit,
        inbound: Box<Inbound>,
        mut account: Account,
        mut lapse: Lapse,
    ) -> Reply {
        let id = account.receipt().map(Receipt::id);
        let transfer = Arc::clone(account.transfer());
        let reading = async {
            let at = (target(facts, &inbound.uri)?, self.authority(facts)?);
            token::read(&self.connection.services, facts, permit, at, inbound, &transfer).await
        };
        let read = tokio::select! {
            biased;
            read = reading => read,
            refusal = &mut lapse => {
                account.refused(refusal.status());
                account.cut(&refusal);
                return answer(&refusal, id, subject, facts.method);
            }
        };
        match read {
            Ok(asked) => token::answer(&asked, permit, facts, id.unwrap_or_default(), &mut account),
            Err(error) => {
                let refusal = error.refusal(facts.host.name());
                account.refused(refusal.status());
                account.fail(refusal.kind.blame(), refusal.reason());
                answer(&refusal, id, subject, facts.method)
            }
        }
    }

    /// Sends it; and once more, if the upstream did not process it, or does not take a credential that became another one meanwhile. With
    /// what to look for in the response.
    #[allow(clippy::too_many_arguments, reason = "what there is of one call")]
    async fn send_current(
        &self,
        subject: &Subject,
        facts: &Facts<'_>,
        permit: &Permit,
        attachment: Option<Attachment>,
        inbound: Box<Inbound>,
        transfer: Arc<Transfer>,
        account: &mut Account,
    ) -> (Result<Response<UpstreamBody>, ForwardError>, Option<Arc<Needles>>) {
        let again = inbound.again();
        let needed = attachment.as_ref().and_then(Attachment::needles).cloned();
        let to = (Arc::clone(&transfer), needed.clone());
        let sent = self.send(facts, permit, attachment.clone(), inbound, to, account).await;
        let is_over = match &sent {
            Err(ForwardError::Untaken { .. }) => false,
            Ok(response) => response.status() != StatusCode::UNAUTHORIZED,
            Err(_) => true,
        };
        match again {
            Some(again) if !is_over => {
                let once = Once { sent, needed, attachment, transfer };
                Box::pin(self.send_again(subject, facts, permit, again, once, account)).await
            }
            _ => (sent, needed),
        }
    }

    /// What becomes of a request that was not taken, or whose credential was not.
    async fn send_again(
        &self,
        subject: &Subject,
        facts: &Facts<'_>,
        permit: &Permit,
        mut again: Again,
        Once { sent, needed, attachment, transfer }: Once,
        account: &mut Account,
    ) -> (Result<Response<UpstreamBody>, ForwardError>, Option<Arc<Needles>>) {
        match (&sent, attachment, permit.credential()) {
            (Err(_), attachment, _) => {
                let body = match again.body.take() {
                    Some(body) => Some(body),
                    None => transfer.come_back().await,
                };
                let Some(body) = body else { return (sent, needed) };
                tracing::debug!(
                    host = facts.host.name(),
                    "the upstream did not take the request; it is sent once more"
                );
                transfer.restart();
                let (again, to) = (again.with(body, true), (transfer, needed.clone()));
                (self.send(facts, permit, attachment, again, to, account).await, needed)
            }
            (Ok(_), Some(first), Some(id)) => {
                let Some(body) = again.body.take() else { return (sent, needed) };
                match credential::attachment(subject, permit, id, facts.host.name()).await {
                    Ok((second, _)) if second.secret_version() != first.secret_version() => {
                        transfer.note_repeated();
                        let after = second.needles().cloned();
                        let both = after.map(|after| after.and(needed.as_ref())).or(needed);
                        let (again, to) = (again.with(body, false), (transfer, both.clone()));
                        (self.send(facts, permit, Some(second), again, to, account).await, both)
                    }
                    // It is the one that the upstream does not take, or there is none any more.
                    _ => (sent, needed),
                }
            }
            _ => (sent, needed),
        }
    }

    /// Ends when the call is not permitted any more.
    fn lapse(&self, subject: &Subject, facts: &Facts<'_>, permit: &Permit, inbound: &mut Inbound) -> Lapse {
        let Connection { services, caller, .. } = &self.connection;
        let seen = inbound.seen.take().unwrap_or_default();
        let unidentified = services.settings.unidentified;
        let asked = (facts.method, &inbound.uri, inbound.version);
        let question = standing::Question::of(&self.leg, asked, &inbound.headers, seen, permit, unidentified);
        standing::of_call(services, caller, question, permit, subject)
    }

    async fn send(
        &self,
        facts: &Facts<'_>,
        permit: &Permit,
        attachment: Option<Attachment>,
        inbound: Box<Inbound>,
        (transfer, needles): (Arc<Transfer>, Option<Arc<Needles>>),
        account: &mut Account,
    ) -> Result<Response<UpstreamBody>, ForwardError> {
        let forward = &self.connection.services.forward;
        let dst = self.connection.dst;
        let Inbound { headers, spelling, uri, mut body, version, websocket, again, client, tap, .. } =
            *inbound;
        let (mut target, authority) = (target(facts, &uri)?, self.authority(facts)?);
        let mut headers = hop::strip_request(&headers, version, websocket);
        if attachment.as_ref().and_then(Attachment::needles).is_some() {
            reflect::ask(permit.mask(), &mut headers);
        }
        let mut attachment = attachment;
        if let Some(signer) = &attachment {
            let (method, target, headers) = (facts.method, &mut target, &mut headers);
            let head = Head { method, target, authority: &authority, headers };
            if let Some(mut signing) = signer.for_request(&head)? {
                if let Some(most) = signing.signs_body() {
                    let time = self.connection.services.settings.http.header_time;
                    signing = signing.over(exchange::whole(&mut body, most, time).await?);
                }
                attachment = Some(signing);
            }
        }
        let stand = attachment.as_ref().and_then(Attachment::stand);
        if let Some(stand) = stand.filter(|stand| stand.is_for_bodies()) {
            let (method, target, headers) = (facts.method, &mut target, &mut headers);
            if !stand.is_in_head(&Head { method, target, authority: &authority, headers })? {
                let time = self.connection.services.settings.http.header_time;
                exchange::fill(stand, headers, &mut body, tap.as_ref(), time).await?;
            }
        }
        let outbound = Box::new(Outbound {
            method: facts.method.clone(),
            target,
            authority,
            headers,
            spelling,
            body: RequestBody::new(body, Arc::clone(&transfer), permit).tapped(tap),
            interims: Interims::new(client, needles, permit.mask(), Arc::clone(&transfer)),
            transfer,
            upgrade: websocket,
            again,
        });
        let host = match &self.host {
            Some((host, _)) => Arc::clone(host),
            None => facts.host.name().into(),
        };
        match facts.scheme {
            Scheme::Https => {
                let mode = if websocket { Mode::Http1 } else { Mode::Any };
                let route = Route::new(host, UpstreamAddr(dst.0), mode).or_at(permit.addresses()).named();
                account.dialled(route.addr.0);
                account.proxied(forward.proxied(&route));
                let receipt = account.receipt().ok_or(ForwardError::Unrecorded)?;
                forward.send_verified(permit, receipt, &route, outbound, attachment.as_ref()).await
            }
            Scheme::Http => {
                let addr = match (permit.api(), &attachment) {
                    (_, Some(_)) => forward.resolve_loopback(&host, dst.0).await?,
                    (Some(_), None) => forward.resolve(permit, &host, dst.0).await?,
                    (None, None) => UpstreamAddr(dst.0),
                };
                let mode = if self.http2 && !websocket { Mode::Http2 } else { Mode::Http1 };
                // What goes with a credential goes to the one address at which there is a server.
                let others = permit.addresses().filter(|_| attachment.is_none());
                let route = Route::new(host, addr, mode).or_at(others);
                // Of an API it is the address that was held against its policy: nothing else ties it to the host.
                let by_name = permit.api().is_none() && self.connection.named().is_some();
                let route = if by_name { route.named() } else { route };
                account.dialled(route.addr.0);
                account.proxied(forward.proxied(&route));
                let receipt = account.receipt().ok_or(ForwardError::Unrecorded)?;
                match &attachment {
                    Some(attachment) => {
                        forward.send_loopback(permit, receipt, &route, outbound, attachment).await
                    }
                    None => forward.send_plain(permit, receipt, &route, outbound).await,
                }
            }
        }
    }

    /// The upstream's response, for the client.
    fn relay(
        &self,
        response: Response<UpstreamBody>,
        mut account: Account,
        client: Option<OnSwitch>,
        lapse: Lapse,
        (cover, capture): (Option<Cover>, Option<Capture>),
    ) -> Reply {
        account.answered(response.status());
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched {
            let (head, mut body) = response.into_parts();
            let wire = Box::new(body.take_wire());
            if let (Some(client), Some(upstream)) = (client, body.into_switched()) {
                let idle = self.connection.services.forward.limits().tunnel_idle_time;
                tokio::spawn(upgrade::carry(client, upstream, account, idle, lapse));
            }
            let mut reply = Response::from_parts(head, ReplyBody::Head(wire));
            *reply.headers_mut() = hop::strip_response(std::mem::take(reply.headers_mut()), true);
            return reply;
        }
        let mut reply = response.map(|body| ReplyBody::stream(body, account, lapse, cover, capture));
        *reply.headers_mut() = hop::strip_response(std::mem::take(reply.headers_mut()), false);
        *reply.version_mut() = Version::default();
        reply
    }
}
