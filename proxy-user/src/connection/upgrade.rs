//! What a WebSocket becomes after both sides switched: bytes both ways, until the call is over.

use std::time::Duration;

use proxy_journal::Blame;

use crate::forward::tunnel;
use crate::http::{Account, Lapse};
use crate::http1::{OnSwitch, Switched};

/// Waits for the client's side to switch, then carries the bytes of both, for as long as the call is permitted. Closes the account.
pub(super) async fn carry(
    client: OnSwitch,
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

async fn switched(client: OnSwitch, upstream: Switched, account: &mut Account, idle: Duration) {
    const GONE: &str = "the client went away before it switched";
    let transfer = std::sync::Arc::clone(account.transfer());
    let ended = match client.stream().await {
        Some(client) => tunnel(client, upstream, &transfer, idle).await,
        None => return account.fail(Blame::Client, GONE),
    };
    match ended.failure() {
        None => account.close(),
        Some((blame, error)) => account.fail(blame, error),
    }
}
