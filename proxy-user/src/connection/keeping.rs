//! A call whose grant says that its bodies are kept for auditors: what they are kept in is there before it goes on.

use http_body::Body as _;

use super::inbound::Inbound;
use super::services::Services;
use crate::authorize::{Kind, Permit, Refusal};
use crate::forward::error::chain;
use crate::http::{Account, RequestTap};
use crate::record::{Capture, Captures};

/// Opens it where it must be; with what the answer is kept in.
///
/// # Errors
/// It cannot be kept, so the call does not go on.
pub(super) async fn open(
    services: &Services,
    permit: &Permit,
    identity: Option<&str>,
    account: &mut Account,
    inbound: &mut Inbound,
) -> Result<Option<Capture>, Refusal> {
    let (Some(most), Some(receipt)) = (permit.capture(), account.receipt()) else { return Ok(None) };
    let has_body = !inbound.body.is_end_stream();
    match services.recorder.capture(receipt, identity, most, has_body).await {
        Ok(Captures { request, response, ending }) => {
            account.kept(ending);
            inbound.tap = request.map(RequestTap::new);
            Ok(Some(response))
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "a call was refused because its bodies cannot be kept");
            let detail = "its bodies must be kept for auditors, and cannot be";
            Err(Refusal::new(Kind::JournalUnwritable, detail))
        }
    }
}
