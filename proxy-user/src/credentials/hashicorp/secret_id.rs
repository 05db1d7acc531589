//! The secret id of the daemon's own AppRole: made anew, tried, destroyed (<https://developer.hashicorp.com/vault/api-docs/auth/approle>).

use http::StatusCode;

use super::super::secret::Secret;
use super::answers;
use super::client::{Call, object, told};
use super::login::Login;
use crate::config::HashicorpLogin;

const NONE: &str = "[hashicorp] does not log in with an AppRole";

impl Login {
    /// Another secret id of the role of this name, beside those that there are.
    pub(in super::super) async fn new_secret_id(&self, role_name: &str) -> Result<Secret, String> {
        let (mount, _) = self.approle()?;
        let path = format!("auth/{mount}/role/{role_name}/secret-id");
        let made = self.call(|| Call::post(&path, Secret::new(b"{}".to_vec()))).await;
        let (_, answer) = made.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            let (address, told) = (self.keeper.client.address(), told(&answer));
            return Err(format!(
                "{address} answered {told} to {path}; check role_name, and allow the daemon `update` there"
            ));
        }
        let address = self.keeper.client.address();
        let (made, logins) =
            answers::secret_id(answer.body.expose()).map_err(|what| format!("{address}: {what}"))?;
        if logins == 1 {
            // It would be tried by its only login, and be the current one that no login goes with.
            let left = self.destroy_secret_id(role_name, &made).await.err();
            let left = left.map_or(String::new(), |left| format!("; the new one could not be ended: {left}"));
            return Err(format!(
                "{address} makes secret ids of {role_name} that are good for one login; set secret_id_num_uses to 0 there{left}"
            ));
        }
        Ok(made)
    }

    /// Logs in with it, and gives the token back.
    pub(in super::super) async fn takes_secret_id(&self, it: &Secret) -> Result<(), String> {
        let (mount, role_id) = self.approle()?;
        let path = format!("auth/{mount}/login");
        let body = object(&[("role_id", role_id.as_bytes()), ("secret_id", it.expose())]);
        let body = body.ok_or("the new secret id is no text")?;
        let (client, way) = (&self.keeper.client, &self.keeper.way);
        let answer = client.call(way, None, Call::post(&path, body)).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!(
                "{} answered {} to a login with the new one",
                client.address(),
                told(&answer)
            ));
        }
        let given = answers::login(answer.body.expose());
        let given = given.map_err(|what| format!("{}: {what}", client.address()))?;
        let end = Call::post("auth/token/revoke-self", Secret::new(Vec::new()));
        if client.call(way, Some(&given.token), end).await.is_err() {
            tracing::warn!(
                "the token of the login with the new secret id could not be given back; it ends by itself"
            );
        }
        Ok(())
    }

    /// Ends one. The tokens that were had with it go on.
    pub(in super::super) async fn destroy_secret_id(
        &self,
        role_name: &str,
        it: &Secret,
    ) -> Result<(), String> {
        let (mount, _) = self.approle()?;
        let path = format!("auth/{mount}/role/{role_name}/secret-id/destroy");
        let body = object(&[("secret_id", it.expose())]).ok_or("the secret id that ends is no text")?;
        let ended = self.call(|| Call::post(&path, Secret::new(body.expose().to_vec()))).await;
        let (_, answer) = ended.map_err(|error| error.to_string())?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(format!(
                "{} answered {} to {path}; allow the daemon `update` there",
                self.keeper.client.address(),
                told(&answer)
            )),
        }
    }

    fn approle(&self) -> Result<(&str, &str), String> {
        match &self.keeper.how {
            HashicorpLogin::Approle { role_id, mount, .. } => Ok((mount, role_id)),
            _ => Err(NONE.to_owned()),
        }
    }
}
