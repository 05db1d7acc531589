//! A request on its way through a connection, and the same once more, where nobody took it.

use std::sync::Arc;

use http::{HeaderMap, Uri, Version};

use crate::authorize::Seen;
use crate::http::extended::Extended;
use crate::http::interims::Client;
use crate::http::{Replay, RequestTap};
use crate::http1::{OnSwitch, Spelling};

/// A request on its way, apart from what it is asked to be.
pub(super) struct Inbound {
    /// As they came, also for whoever asks again.
    pub(super) headers: Arc<HeaderMap>,
    /// How their names were spelled.
    pub(super) spelling: Option<Spelling>,
    /// As it came.
    pub(super) uri: Uri,
    pub(super) body: Replay,
    pub(super) version: Version,
    /// A WebSocket is asked for.
    pub(super) websocket: bool,
    /// Gives the client's stream when both sides switch.
    pub(super) upgrade: Option<OnSwitch>,
    /// It was asked for over HTTP/2.
    pub(super) extended: Option<Extended>,
    /// What conditions looked at.
    pub(super) seen: Option<Seen>,
    /// It was sent already, and nobody took it.
    pub(super) again: bool,
    /// How the client is sent what comes before the answer.
    pub(super) client: Client,
    /// Where its body is kept for auditors.
    pub(super) tap: Option<RequestTap>,
}

impl Inbound {
    /// The same once more, unless it switches protocols.
    pub(super) fn again(&self) -> Option<Again> {
        if self.websocket {
            return None;
        }
        let (headers, spelling, uri) = (Arc::clone(&self.headers), self.spelling.clone(), self.uri.clone());
        let (client, tap) = (self.client.clone(), self.tap.clone());
        Some(Again { headers, spelling, uri, body: self.body.copy(), version: self.version, client, tap })
    }
}

/// A request that can be sent once more, if there is its body.
pub(super) struct Again {
    headers: Arc<HeaderMap>,
    pub(super) spelling: Option<Spelling>,
    pub(super) uri: Uri,
    /// Where it was here as a whole before it was sent; else it may come back.
    pub(super) body: Option<Replay>,
    pub(super) version: Version,
    pub(super) client: Client,
    tap: Option<RequestTap>,
}

impl Again {
    pub(super) fn with(self, body: Replay, again: bool) -> Box<Inbound> {
        let Self { headers, spelling, uri, version, client, tap, .. } = self;
        let (websocket, upgrade, extended) = (false, None, None);
        Box::new(Inbound {
            headers,
            spelling,
            uri,
            body,
            version,
            websocket,
            upgrade,
            extended,
            seen: None,
            again,
            client,
            tap,
        })
    }
}
