//! Connections that go through as they are, or are refused as a whole.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use proxy_journal::{Decision, Mistrust};
use proxy_policy::{Host, Scheme};
use tokio::net::TcpStream;

use super::services::RefusedBy;
use super::{Connection, standing};
use crate::authorize::{
    Asked, Kind, Passage, Refusal, Subject, Unidentified, authorize_network, authorize_passage,
    authorize_whole, entry,
};
use crate::base::addr::{OriginalDst, UpstreamAddr};
use crate::base::clock;
use crate::forward::error::chain;
use crate::forward::{Passed, relay};
use crate::http::{Account, Lapse, Transfer};
use crate::limits::Pass;
use crate::sniff::Prefixed;
use crate::trust::{self, Alert};

/// How a connection goes through.
pub(super) enum Way {
    /// To a mediated port, because no API names its host, if it named one.
    Unmatched(Option<Host>),
    /// To an API, without being looked into (`intercept = false`); the address, where it is known.
    Whole(Host, Option<IpAddr>),
    /// To a port that is not mediated, by a network grant.
    Network,
}

impl Way {
    /// Decides it, at the beginning and whenever the policy changes.
    pub(super) fn decide(
        &self,
        subject: &Subject,
        dst: OriginalDst,
        unidentified: Unidentified,
    ) -> Result<Passage, Refusal> {
        const TCP: u8 = 6;
        let now = clock::now();
        match self {
            Self::Unmatched(host) => {
                authorize_passage(subject, Scheme::Https, host.as_ref(), dst.port(), unidentified, now)
            }
            Self::Whole(host, address) => authorize_whole(subject, host, dst.port(), *address, now)
                .unwrap_or_else(|| {
                    let detail = format!("connections to {} are looked into now", host.name());
                    Err(Refusal::new(Kind::NotGranted, detail))
                }),
            // We would dial in the daemon's namespace, where the same address is another place.
            Self::Network if subject.workload().foreign => Err(Refusal::new(
                Kind::UnknownHost,
                "from another network namespace than the host's only calls to APIs are carried; a network grant \
                 holds once the kernel knows the program, from its next connection on",
            )),
            Self::Network => authorize_network(subject, TCP, dst, unidentified, now),
        }
    }
}

/// A connection that is recorded and dialled, and goes through from now on.
pub(super) struct Dialled {
    client: Prefixed<TcpStream>,
    upstream: TcpStream,
    transfer: Arc<Transfer>,
    account: Account,
    lapse: Lapse,
}

/// What becomes of a connection to the host of an API.
pub(super) enum Whole {
    /// It is looked into.
    Not(Prefixed<TcpStream>),
    /// It goes through.
    Dialled(Box<Dialled>),
    /// It is over.
    Over,
}

// Deciding, recording and dialling take more memory than carrying does: it is theirs alone, and given back.
impl Connection {
    /// Passes the connection to where the workload wanted it, or refuses it. `scheme` is `tls` or `tcp`; `upstream` is there
    /// when it was dialled already.
    pub(super) async fn pass(
        self,
        stream: Prefixed<TcpStream>,
        scheme: &str,
        host: Option<&Host>,
        upstream: Option<Passed>,
    ) {
        if let Some(dialled) = Box::pin(self.begin_passing(stream, scheme, host, upstream)).await {
            self.carry(dialled).await;
        }
    }

    /// A connection to a port that is not mediated, of a workload that the kernel did not know when it was opened: decided
    /// and carried here. The next one is decided in the kernel.
    pub(super) async fn network(self, stream: Prefixed<TcpStream>) {
        if let Some(dialled) = Box::pin(self.begin_network(stream)).await {
            self.carry(dialled).await;
        }
    }

    async fn begin_passing(
        &self,
        stream: Prefixed<TcpStream>,
        scheme: &str,
        host: Option<&Host>,
        upstream: Option<Passed>,
    ) -> Option<Dialled> {
        let Self { services, caller, dst, .. } = self;
        let subject = caller.current(&services.policy, &*services.identifier).await;
        let host = host.or(self.named());
        let asked = self.asked_of(scheme, host.map(Host::name));
        let way = Way::Unmatched(host.cloned());
        match way.decide(&subject, *dst, services.settings.unidentified) {
            Err(refusal) => {
                self.refuse(&asked, &refusal).await;
                turn_away(stream, scheme, Alert::AccessDenied).await;
                None
            }
            Ok(passage) => self.begin(stream, upstream, &subject, &asked, &passage, way).await,
        }
    }

    /// Decides whether a connection to the host of an API is passed on as it is, and if so, dials.
    pub(super) async fn begin_whole(&self, stream: Prefixed<TcpStream>, host: &Host) -> Whole {
        let Self { services, caller, dst, .. } = self;
        let subject = caller.current(&services.policy, &*services.identifier).await;
        let Some(decided) = authorize_whole(&subject, host, dst.port(), self.address(), clock::now()) else {
            return Whole::Not(stream);
        };
        let asked = self.asked_of("tls", Some(host.name()));
        match decided {
            Err(refusal) => {
                self.refuse(&asked, &refusal).await;
                turn_away(stream, "tls", Alert::AccessDenied).await;
                Whole::Over
            }
            Ok(passage) => {
                let way = Way::Whole(host.clone(), self.address());
                let dialled = self.begin(stream, None, &subject, &asked, &passage, way).await;
                dialled.map_or(Whole::Over, |dialled| Whole::Dialled(Box::new(dialled)))
            }
        }
    }

    async fn begin_network(&self, stream: Prefixed<TcpStream>) -> Option<Dialled> {
        let Self { services, caller, dst, .. } = self;
        let subject = caller.current(&services.policy, &*services.identifier).await;
        let asked = self.asked_of("tcp", self.named().map(Host::name));
        let way = Way::Network;
        match way.decide(&subject, *dst, services.settings.unidentified) {
            Err(refusal) => {
                self.refuse(&asked, &refusal).await;
                None
            }
            Ok(passage) => self.begin(stream, None, &subject, &asked, &passage, way).await,
        }
    }

    /// Records a connection to where the workload wanted it, and dials; `None` when it ended.
    async fn begin(
        &self,
        stream: Prefixed<TcpStream>,
        passed: Option<Passed>,
        subject: &Subject,
        asked: &Asked<'_>,
        passage: &Passage,
        way: Way,
    ) -> Option<Dialled> {
        let Self { services, dst, caller, .. } = self;
        let scheme = asked.scheme.unwrap_or_default();
        let receipt = match services.recorder.begin_together(entry::passing(subject, asked, passage)).await {
            Ok(receipt) => receipt,
            Err(error) => {
                tracing::error!(error = %chain(&error), "a connection was refused because it cannot be recorded");
                services.refused_without_record(subject);
                turn_away(stream, scheme, Alert::InternalError).await;
                return None;
            }
        };
        services.counters.tally(subject).count_allowed();
        let transfer = Arc::new(Transfer::default());
        let mut account = Account::open(receipt, Arc::clone(&transfer), Pass::default());
        account.dialled(dst.0);
        let others = match &way {
            // No other address was held against the policy.
            Way::Whole(..) => &[],
            _ => self.proxied.as_ref().map(|proxied| proxied.others.as_slice()).unwrap_or_default(),
        };
        // What is past us by a network grant is past the proxy of the site as well.
        let leads = match &way {
            Way::Unmatched(host) => Some(host.as_ref().map(Host::name).map(str::to_owned)),
            // By its address: a name could lead the proxy of the site elsewhere.
            Way::Whole(..) => Some(None),
            Way::Network => None,
        };
        let mut lapse =
            standing::of_passage(services, caller, way, *dst, subject.live().generation(), passage.until());
        let dialling = async {
            match (passed, leads) {
                (Some(passed), _) => Ok(passed),
                (None, Some(host)) => {
                    services.forward.pass(host.as_deref(), UpstreamAddr(dst.0), others).await
                }
                (None, None) => {
                    let upstream = UpstreamAddr(dst.0);
                    let dialled = services.forward.dial(upstream).await;
                    dialled.map(|tcp| Passed { tcp, upstream, proxied: None })
                }
            }
        };
        let dialled = tokio::select! {
            dialled = dialling => dialled,
            refusal = &mut lapse => {
                account.cut(&refusal);
                return None;
            }
        };
        match dialled {
            Ok(Passed { tcp, upstream, proxied }) => {
                account.dialled(upstream.0);
                account.proxied(proxied);
                Some(Dialled { client: stream, upstream: tcp, transfer, account, lapse })
            }
            Err(error) => {
                error.reached().into_iter().for_each(|addr| account.dialled(addr));
                account.fail(error.refusal("the destination").kind.blame(), chain(&error));
                None
            }
        }
    }

    /// Carries a connection for as long as it is permitted.
    pub(super) async fn carry(&self, dialled: Dialled) {
        let Dialled { client, upstream, transfer, mut account, lapse } = dialled;
        let idle = self.services.forward.limits().tunnel_idle_time;
        let (first, client) = client.into_parts();
        let ended = {
            // Pinned here, and not moved: each move of a future is a place for it in the one that moves it.
            let carried = pin!(relay(client, first, upstream, &transfer, idle));
            tokio::select! {
                end = carried => Ok(end.failure()),
                refusal = lapse => Err(refusal),
            }
        };
        match ended {
            Ok(None) => account.close(),
            Ok(Some((blame, error))) => account.fail(blame, error),
            Err(refusal) => account.cut(&refusal),
        }
    }

    /// Records a refusal of the whole connection.
    pub(super) async fn refuse(&self, asked: &Asked<'_>, refusal: &Refusal) {
        self.refuse_with(asked, refusal, None).await;
    }

    /// The same, with what is the matter with a client that does not trust us.
    pub(super) async fn refuse_with(&self, asked: &Asked<'_>, refusal: &Refusal, mistrust: Option<Mistrust>) {
        let services = &self.services;
        let subject = self.caller.current(&services.policy, &*services.identifier).await;
        let mistrust = mistrust.map(Box::new);
        services.refused(&subject, RefusedBy::Proxy, || Decision {
            mistrust,
            ..entry::refused(&subject, asked, refusal)
        });
    }
}

/// Ends the client's side: TLS with an alert, anything else by closing it.
async fn turn_away(mut stream: Prefixed<TcpStream>, scheme: &str, alert: Alert) {
    if scheme == "tls" {
        trust::refuse(&mut stream, alert).await;
    }
}
