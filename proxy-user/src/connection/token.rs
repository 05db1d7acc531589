//! A request at the token endpoint of an API: answered here, and nothing of it goes anywhere.

use std::sync::Arc;

use http::HeaderMap;
use http::uri::{Authority, PathAndQuery};
use proxy_policy::BodyFault;
use uuid::Uuid;

use super::call::Reply;
use super::inbound::Inbound;
use super::services::Services;
use crate::authorize::{Facts, Permit};
use crate::credentials::Head;
use crate::forward::ForwardError;
use crate::http::token::{self, Form, TokenFault, TokenRequest};
use crate::http::{Account, ReplyBody, Transfer, seen};

/// What a bot asked for.
pub(super) type Asked = Result<TokenRequest, TokenFault>;

/// Reads what the bot asks for, and notes what it brought with it to prove something.
///
/// # Errors
/// The head of the request cannot be looked through.
pub(super) async fn read(
    services: &Services,
    facts: &Facts<'_>,
    permit: &Permit,
    (mut target, authority): (PathAndQuery, Authority),
    inbound: Box<Inbound>,
    transfer: &Arc<Transfer>,
) -> Result<Asked, ForwardError> {
    let Inbound { headers, mut body, .. } = *inbound;
    let mut headers = HeaderMap::clone(&headers);
    let checked = token::check_head(facts.method, &headers);
    let time = services.settings.http.header_time;
    let body = match checked {
        Ok(()) => match tokio::time::timeout(time, seen::read(&mut body, token::MOST)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(BodyFault::TooLarge { .. })) => Err(TokenFault::TOO_LARGE),
            Ok(Err(_)) | Err(_) => Err(TokenFault::NO_BODY),
        },
        Err(fault) => Err(fault),
    };
    let form = body.as_ref().map(|bytes| Form::read(bytes)).map_err(|fault| *fault);
    let proofs = form.as_ref().map(Form::proofs).unwrap_or_default();
    let mut head =
        Head { method: facts.method, target: &mut target, authority: &authority, headers: &mut headers };
    services.forward.note_brought(permit, &mut head, proofs, transfer)?;
    Ok(form.and_then(|form| token::check(&form)))
}

/// The answer, after which the account is closed.
pub(super) fn answer(
    asked: &Asked,
    permit: &Permit,
    facts: &Facts<'_>,
    entry: Uuid,
    account: &mut Account,
) -> Reply {
    let expires_in = permit.answers().unwrap_or_default();
    let reply = token::response(asked, expires_in, entry, facts.method, ReplyBody::text);
    account.transfer().note_answered();
    account.refused(reply.status());
    match asked {
        Ok(_) => account.close(),
        Err(fault) => account.fail(proxy_journal::Blame::Client, fault.to_string()),
    }
    reply
}
