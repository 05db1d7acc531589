//! Finds secrets in bytes, in whichever spelling they are there.

use std::fmt::Write as _;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter pieces are found in texts that have nothing to do with them.
const SHORTEST: usize = 12;
/// How much of the beginning and of the end of a secret must not be anywhere, either.
const PIECE: usize = 16;

/// Secrets to look for, with a name each by which a finding is told.
#[derive(Clone, Default)]
pub(super) struct Canaries(Vec<(String, Vec<u8>)>);

impl Canaries {
    /// A secret of random characters: pieces of it are as good as all of it.
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.to_owned(), value.to_vec()));
        if value.len() >= PIECE + 8 {
            self.0.push((format!("{name}, its beginning"), value[..PIECE].to_vec()));
            self.0.push((format!("{name}, its end"), value[value.len() - PIECE..].to_vec()));
        }
    }

    /// What is in a text of PEM blocks that are private: each line, and the private part of what they say.
    pub(super) fn add_pem(&mut self, name: &str, pem: &str) {
        let mut private = false;
        let mut body = String::new();
        for line in pem.lines() {
            if let Some(what) = line.strip_prefix("-----BEGIN ") {
                private = what.contains("PRIVATE");
            } else if line.starts_with("-----END") {
                if private {
                    self.add_der(name, &STANDARD_NO_PAD.decode(body.trim_end_matches('=')).unwrap());
                }
                body.clear();
            } else {
                body.push_str(line);
                if private && line.len() >= 24 {
                    self.0.push((format!("{name}, a line"), line.as_bytes().to_vec()));
                }
            }
        }
    }

    fn add_der(&mut self, name: &str, der: &[u8]) {
        // The scalar of P-256 and Ed25519: an octet string of 32 bytes. Else the coefficient of RSA, at the end.
        let scalar = der.windows(2).position(|it| it == [4, 32]).map(|at| &der[at + 2..at + 34]);
        self.0.push((format!("{name}, the key"), scalar.unwrap_or(&der[der.len() - 32..]).to_vec()));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// All spellings of all of them.
    pub(super) fn finder(&self) -> Finder {
        let mut names = Vec::new();
        let mut patterns = Vec::new();
        for (name, bytes) in &self.0 {
            for (form, pattern) in forms(bytes) {
                if pattern.len() >= SHORTEST {
                    names.push(format!("{name} ({form})"));
                    patterns.push(pattern);
                }
            }
        }
        Finder { names, automaton: AhoCorasick::new(patterns).unwrap() }
    }
}

/// Looks for all of them at once.
pub(super) struct Finder {
    names: Vec<String>,
    automaton: AhoCorasick,
}

impl Finder {
    /// What is there, each once, with what stands around it.
    pub(super) fn find(&self, bytes: &[u8]) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for one in self.automaton.find_overlapping_iter(bytes) {
            let name = &self.names[one.pattern().as_usize()];
            if found.len() < 20 && !found.iter().any(|it| it.starts_with(name)) {
                let (from, to) = (one.start().saturating_sub(200), (one.end() + 40).min(bytes.len()));
                found.push(format!("{name}: …{}…", bytes[from..to].escape_ascii()));
            }
        }
        found
    }
}

/// A secret as it is, and as people and programs write it.
fn forms(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let each = |shape: &dyn Fn(&mut String, u8)| {
        let mut text = String::new();
        bytes.iter().for_each(|byte| shape(&mut text, *byte));
        text
    };
    let hex = each(&|text, byte| write!(text, "{byte:02x}").unwrap());
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let percent = each(&|text, byte| match unreserved(byte) {
        true => text.push(char::from(byte)),
        false => write!(text, "%{byte:02X}").unwrap(),
    });
    let whole = each(&|text, byte| write!(text, "%{byte:02X}").unwrap());
    let listed = |text: String| text.trim_end_matches(", ").to_owned();
    let mut all = vec![
        ("plain", bytes.to_vec()),
        ("escaped", bytes.escape_ascii().to_string().into_bytes()),
        ("hex", hex.clone().into_bytes()),
        ("HEX", hex.to_uppercase().into_bytes()),
        ("percent", percent.clone().into_bytes()),
        ("percent, small", small_escapes(&percent).into_bytes()),
        ("percent, all", whole.clone().into_bytes()),
        ("percent, all, small", small_escapes(&whole).into_bytes()),
        ("numbers", listed(each(&|text, byte| write!(text, "{byte}, ").unwrap())).into_bytes()),
        ("hex numbers", listed(each(&|text, byte| write!(text, "{byte:x}, ").unwrap())).into_bytes()),
    ];
    if let Ok(text) = std::str::from_utf8(bytes) {
        let json = serde_json::to_string(text).unwrap();
        all.push(("JSON", json.trim_matches('"').to_owned().into_bytes()));
        // JSON within JSON, and the Debug of a Debug.
        let twice = serde_json::to_string(json.trim_matches('"')).unwrap();
        all.push(("JSON twice", twice.trim_matches('"').to_owned().into_bytes()));
    }
    for before in 0..3 {
        let shifted = [&vec![0; before], bytes].concat();
        // Without the characters in which bits of the neighbours are.
        let (from, to) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
        all.push(("base64", STANDARD_NO_PAD.encode(&shifted).as_bytes()[from..to].to_vec()));
        all.push(("base64url", URL_SAFE_NO_PAD.encode(&shifted).as_bytes()[from..to].to_vec()));
    }
    all.sort_by(|a, b| a.1.cmp(&b.1));
    all.dedup_by(|a, b| a.1 == b.1);
    all
}

fn small_escapes(text: &str) -> String {
    let mut small = String::new();
    let mut left = 0;
    for character in text.chars() {
        small.push(if left > 0 { character.to_ascii_lowercase() } else { character });
        left = if character == '%' { 2_usize } else { left.saturating_sub(1) };
    }
    small
}

#[test]
fn a_secret_is_found_in_every_spelling_and_in_no_other_text() {
    let secret = b"k3y-0123456789abcdef/+=%&~\"9f8e7d6c5b4a";
    let mut canaries = Canaries::default();
    canaries.add("it", secret);
    let finder = canaries.finder();
    let text = std::str::from_utf8(secret).unwrap();
    let spelled = [
        text.to_owned(),
        format!("{text:?}"),
        format!("{:?}", format!("{text:?}")),
        format!("{secret:?}"),
        format!("{secret:x?}"),
        serde_json::json!({ "a": text }).to_string(),
        STANDARD_NO_PAD.encode(secret),
        STANDARD_NO_PAD.encode([b"u", &secret[..], b"xyz"].concat()),
        URL_SAFE_NO_PAD.encode([b"us", &secret[..], b"x"].concat()),
        secret.iter().map(|byte| format!("{byte:02X}")).collect(),
        secret.iter().map(|byte| format!("{byte:02x}")).collect(),
        "k3y-0123456789abcdef%2F%2B%3D%25%26~%229f8e7d6c5b4a".to_owned(),
        "%2f%2b%3d%25%26~%229f8e7d6c5b4a".to_owned(),
        secret.iter().map(|byte| format!("%{byte:02x}")).collect(),
        "key begins k3y-0123456789abcd and so on".to_owned(),
        "and ends 6%22 \"9f8e7d6c5b4a no: &~\"9f8e7d6c5b4a%&~\"9f8e7d6c5b4a".to_owned(),
    ];
    for one in spelled {
        assert!(!finder.find(format!("before {one} after").as_bytes()).is_empty(), "{one}");
    }
    assert!(finder.find(b"k3y-012345, 9f8e7d6c, and nothing else of it").is_empty());
    let mut keys = Canaries::default();
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    keys.add_pem("key", &pem);
    let finder = keys.finder();
    for line in pem.lines().filter(|line| !line.starts_with("-----") && line.len() >= 24) {
        assert!(!finder.find(line.as_bytes()).is_empty());
    }
    let der: Vec<u8> = STANDARD_NO_PAD
        .decode(pem.lines().filter(|it| !it.starts_with('-')).collect::<String>().trim_end_matches('='))
        .unwrap();
    assert!(!finder.find(format!("{der:?}").as_bytes()).is_empty());
}
