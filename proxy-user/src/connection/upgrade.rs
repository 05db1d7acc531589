//! What a WebSocket becomes after both sides switched: bytes both ways, until the call is over.

use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use proxy_journal::Blame;

use crate::forward::tunnel;
use crate::http::{Account, Lapse};
use crate::http1::{OnSwitch, Switched};

/// The client's side, which switches when it has the answer.
#[derive(Debug)]
pub(super) enum Client {
    /// A connection.
    Http1(OnSwitch),
    /// A stream of one.
    Http2(OnUpgrade),
}

/// Waits for the client's side to switch, then carries the bytes of both, for as long as the call is permitted. Closes the account.
pub(super) async fn carry(
    client: Client,
    upstream: Switched,
    mut account: Account,
    idle: Duration,
    lapse: Lapse,
) {
    let refusal = tokio::select! {
        () = switched(client, upstream, &mut account, idle) => return,
        refusal = lapse => refusal,
    };
    account.cut(&refusal);
}

async fn switched(client: Client, upstream: Switched, account: &mut Account, idle: Duration) {
    const GONE: &str = "the client went away before it switched";
    let transfer = std::sync::Arc::clone(account.transfer());
    let ended = match client {
        Client::Http1(client) => match client.stream().await {
            Some(client) => tunnel(client, upstream, &transfer, idle).await,
            None => return account.fail(Blame::Client, GONE),
        },
        Client::Http2(client) => match client.await {
            Ok(client) => tunnel(TokioIo::new(client), upstream, &transfer, idle).await,
            Err(_) => return account.fail(Blame::Client, GONE),
        },
    };
    match ended.failure() {
        None => account.close(),
        Some((blame, error)) => account.fail(blame, error),
    }
}
