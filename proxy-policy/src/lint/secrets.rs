//! Secrets that somebody typed into a file: told by the shapes that issuers give them. What is found is never repeated.

use std::sync::LazyLock;

use regex::Regex;

use crate::diagnostic::Findings;
use crate::place::{FileId, Lines};

/// Whose secrets have which shape. Long enough that what only tells of such a secret (`sk_live_…`) is none.
const SHAPES: [(&str, &str); 17] = [
    ("an Anthropic key", r"\bsk-ant-[A-Za-z0-9_-]{20,}"),
    ("an AWS access key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("a DigitalOcean token", r"\bdop_v1_[a-f0-9]{32,}"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})"),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{18,}"),
    ("a Google API key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{30,}"),
    ("a JSON Web Token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("a Linear key", r"\blin_(?:api|oauth)_[A-Za-z0-9]{30,}"),
    ("a Notion token", r"\b(?:ntn_|secret_)[A-Za-z0-9]{40,}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}"),
    ("an OpenAI key", r"\bsk-(?:proj-|svcacct-)?[A-Za-z0-9_-]{32,}"),
    ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    ("a SendGrid key", r"\bSG\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}"),
    ("a Slack token", r"\bxox[abprs]-[A-Za-z0-9-]{20,}"),
    ("a Stripe key", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("a header with a credential", r"(?i)\b(?:bearer|basic) [A-Za-z0-9+/_.~-]{24,}={0,2}"),
];

static COMPILED: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    // A shape that is no expression would be found by the test below.
    SHAPES.iter().filter_map(|(what, shape)| Some((*what, Regex::new(shape).ok()?))).collect()
});

/// Reports every line of a file with something in it that looks like a secret, once.
pub(crate) fn scan(file: FileId, text: &str, findings: &mut Findings) {
    let lines = Lines::new(file, text);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let found = COMPILED.iter().find_map(|(what, shape)| Some((what, shape.find(line)?.start())));
        if let Some((what, at)) = found {
            findings.warning(
                lines.place(start + at),
                format!("this looks like {what}"),
                "secrets are never typed into a policy, not even into a comment: store it by `vouchsafe secret set`, and replace it, because it was here",
            );
        }
        start += line.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        let mut findings = Findings::default();
        scan(FileId::default(), text, &mut findings);
        findings.len()
    }

    #[test]
    fn every_shape_finds_one_and_leaves_what_only_tells_of_it() {
        assert_eq!(COMPILED.len(), SHAPES.len());
        // Put together here, so that no search for secrets finds this file.
        let long = "a1B2".repeat(12);
        let digits = "0123456789ABCDEF".repeat(3);
        for secret in [
            format!("sk-ant-api03-{long}"),
            format!("AKIA{}", &digits[..16]),
            format!("dop_v1_{}", digits.to_lowercase()),
            format!("ghp_{}", &long[..36]),
            format!("github_pat_{long}"),
            format!("glpat-{}", &long[..20]),
            format!("AIza{}", &long[..35]),
            format!("hf_{}", &long[..34]),
            format!("eyJ{long}.eyJ{long}.{long}"),
            format!("lin_api_{}", &long[..40]),
            format!("ntn_{}", &long[..46]),
            format!("npm_{}", &long[..36]),
            format!("sk-proj-{long}"),
            format!("-----BEGIN {} KEY-----", "RSA PRIVATE"),
            format!("SG.{}.{}", &long[..22], &long[..43]),
            format!("xoxb-{}", &long[..24]),
            format!("sk_{}_{}", "live", &long[..24]),
            format!("Bearer {}", &long[..32]),
        ] {
            assert_eq!(found(&format!("x = \"{secret}\"\n# {secret}\n")), 2, "{}", &secret[..8]);
        }
        for text in ["sk_live_…", "a token (xoxb-…)", "value = \"Bearer {secret}\"", "ghp_short", "AKIA", ""]
        {
            assert_eq!(found(text), 0, "{text}");
        }
    }
}
