//! What a WebSocket becomes after both sides switched: bytes both ways, until the call is over.

use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use proxy_journal::Blame;

use crate::forward::error::chain;
use crate::forward::tunnel;
use crate::http::{Account, Lapse};

/// Waits for both sides to switch, then carries their bytes, for as long as the call is permitted. Closes the account.
pub(super) async fn carry(
    client: OnUpgrade,
    upstream: OnUpgrade,
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

async fn switched(client: OnUpgrade, upstream: OnUpgrade, account: &mut Account, idle: Duration) {
    let (client, upstream) = match tokio::join!(client, upstream) {
        (Ok(client), Ok(upstream)) => (TokioIo::new(client), TokioIo::new(upstream)),
        (Err(error), _) => {
            return account.fail(Blame::Client, format!("the client did not switch: {}", chain(&error)));
        }
        (_, Err(error)) => {
            return account.fail(Blame::Upstream, format!("the upstream did not switch: {}", chain(&error)));
        }
    };
    let transfer = std::sync::Arc::clone(account.transfer());
    match tunnel(client, upstream, &transfer, idle).await.failure() {
        None => account.close(),
        Some((blame, error)) => account.fail(blame, error),
    }
}
