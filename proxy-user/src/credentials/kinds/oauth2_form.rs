//! What is sent to a token endpoint: a form, in memory that is wiped.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::super::secret::Secret;

/// Of what a text may not have as much in common with a secret, or it is not shown.
const TELLING_BYTES: usize = 8;

/// Names and values, in their order. Those that are secrets are remembered as such.
#[derive(Default)]
pub(super) struct Form {
    fields: Vec<(&'static str, Arc<Secret>)>,
    secrets: Vec<Arc<Secret>>,
}

impl Form {
    pub(super) fn add(&mut self, name: &'static str, value: &str) {
        self.fields.push((name, Arc::new(Secret::new(value.as_bytes().to_vec()))));
    }

    pub(super) fn add_secret(&mut self, name: &'static str, value: &Arc<Secret>) {
        self.fields.push((name, Arc::clone(value)));
        self.remember(value);
    }

    /// What is sent elsewhere than in the form.
    pub(super) fn remember(&mut self, secret: &Arc<Secret>) {
        self.secrets.push(Arc::clone(secret));
    }

    /// As `application/x-www-form-urlencoded`.
    pub(super) fn encoded(&self) -> Secret {
        let most = self.fields.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
        // At its final size from the start: a buffer that grew would leave copies behind in freed memory.
        let mut body = Vec::with_capacity(most);
        for (name, value) in &self.fields {
            if !body.is_empty() {
                body.push(b'&');
            }
            body.extend_from_slice(name.as_bytes());
            body.push(b'=');
            encode(value.expose(), &mut body);
        }
        Secret::new(body)
    }

    /// Whether a text has a part of a secret in it that was sent: as it is, as it was encoded, or as texts are shown, without what
    /// is not plain.
    pub(super) fn is_told_in(&self, text: &str) -> bool {
        let text = text.as_bytes();
        let tells = |secret: &[u8]| {
            let length = secret.len().clamp(1, TELLING_BYTES);
            secret.windows(length).any(|part| text.windows(length).any(|it| it == part))
        };
        self.secrets.iter().map(|secret| secret.expose()).any(|secret| {
            let mut encoded = Zeroizing::new(Vec::with_capacity(3 * secret.len()));
            encode(secret, &mut encoded);
            let mut plain = Zeroizing::new(Vec::with_capacity(secret.len()));
            plain.extend(secret.iter().copied().filter(|byte| byte.is_ascii_graphic() || *byte == b' '));
            [secret, &encoded, &plain].into_iter().any(tells)
        })
    }
}

/// Letters, digits and `*-._` stay, a space is a plus (URL Standard, application/x-www-form-urlencoded).
pub(super) fn encode(bytes: &[u8], into: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or(b'0');
    for byte in bytes {
        match byte {
            byte if byte.is_ascii_alphanumeric() || b"*-._".contains(byte) => into.push(*byte),
            b' ' => into.push(b'+'),
            byte => into.extend([b'%', digit(byte >> 4), digit(*byte)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_encoded_as_browsers_do() {
        let mut form = Form::default();
        form.add("grant_type", "urn:ietf:params:oauth:x");
        form.add_secret("client_secret", &Arc::new(Secret::new("a b&c=\u{e9}+~*-._".as_bytes().to_vec())));
        let body = form.encoded();
        assert_eq!(
            std::str::from_utf8(body.expose()).unwrap(),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Ax&client_secret=a+b%26c%3D%C3%A9%2B%7E*-._"
        );
    }

    #[test]
    fn a_text_that_repeats_a_part_of_a_secret_is_known() {
        let mut form = Form::default();
        form.add("client_id", "a-well-known-name");
        form.add_secret("refresh_token", &Arc::new(Secret::new(b"0123456789abcdef".to_vec())));
        form.remember(&Arc::new(Secret::new(b"pin7".to_vec())));
        form.remember(&Arc::new(Secret::new("p\u{e4}ss:w\u{f6}rd/1".as_bytes().to_vec())));
        for told in [
            "not pss:wrd/1",
            "not p%C3%A4ss%3Aw%C3%B6rd%2F1",
            "the token 0123456789abcdef is gone",
            "token 6789abcd... is gone",
            "not pin7",
        ] {
            assert!(form.is_told_in(told), "{told}");
        }
        for fine in ["", "a-well-known-name is not a client", "0123 is not enough"] {
            assert!(!form.is_told_in(fine), "{fine}");
        }
    }
}
