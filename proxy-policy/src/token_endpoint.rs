//! `token_endpoint` of an API: where its bots ask for OAuth 2.0 tokens themselves (RFC 6749 section 3.2), and the proxy answers.

use std::time::Duration;

use crate::decide::CallKind;
use crate::operation::Operation;
use crate::path::CallPath;

/// Where an API gives tokens. What is asked there is answered by the proxy and goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenEndpoint {
    pub(crate) paths: Vec<Operation>,
    /// How long what is given is told to last.
    pub expires_in: Duration,
}

impl TokenEndpoint {
    /// Whether a path is one of it, also as the most forgiving server reads it: no spelling of it goes on to the API.
    #[must_use]
    pub fn is_at(&self, path: &CallPath<'_>) -> bool {
        self.paths.iter().any(|operation| operation.denies(CallKind::Plain, "POST", path))
    }

    /// The paths, as they were written.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(Operation::path_text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_path_is_another_place() {
        let paths = ["/oauth2/token", "/*/oauth2/v2.0/token"];
        let paths = paths.iter().map(|path| Operation::parse(&format!("* {path}")).unwrap()).collect();
        let endpoint = TokenEndpoint { paths, expires_in: Duration::from_secs(60) };
        let is_at = |path: &str| endpoint.is_at(&CallPath::normalize(path).unwrap());
        for path in [
            "/oauth2/token",
            "/oauth2/token/",
            "/oauth2//token",
            "/x/../oauth2/token",
            "/OAuth2/Token",
            "/oauth2/token;v=1",
            "/%6Fauth2/token",
            "/tenant/oauth2/v2.0/token",
        ] {
            assert!(is_at(path), "{path}");
        }
        for path in ["/", "/oauth2", "/oauth2/token/x", "/oauth2/tokens", "/a/b/oauth2/v2.0/token"] {
            assert!(!is_at(path), "{path}");
        }
    }
}
