//! What a workload must be to have an identity: executable, digest, user, group, cgroup, unit, container.
//!
//! Patterns follow the table of the crate documentation: `*` stays in one path segment, `**` crosses slashes.

use sha2::{Digest as _, Sha256};

use crate::container::{ContainerPattern, KubernetesPattern};
use crate::diagnostic::{Problem, quote};
use crate::glob::{Glob, Plain};
use crate::place::{Place, Spanned};

/// A literal or a pattern with `*` and `**`, for cgroups and units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    glob: Glob,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let glob = Glob::parse::<Plain>(text).map_err(|_| {
            Problem::new(
                format!("the pattern {} has a ** that is not a whole segment", quote(text)),
                "write ** alone between slashes, or * for a part of a segment",
            )
        })?;
        Ok(Self { text: text.to_owned(), glob })
    }

    /// A cgroup path below the root of the hierarchy: `/system.slice/bot.service`, `/bots.slice/**`.
    pub(crate) fn cgroup(text: &str) -> Result<Self, Problem> {
        check_path("cgroup", text, "/system.slice/invoice-bot.service")?;
        Self::parse(text)
    }

    /// A systemd unit: `invoice-bot.service`, `bot@*.service`.
    pub(crate) fn unit(text: &str) -> Result<Self, Problem> {
        if text.contains('/')
            || text.is_empty()
            || text.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            let help = "name it as systemd does, such as invoice-bot.service";
            return Err(Problem::new(format!("{} is not the name of a unit", quote(text)), help));
        }
        if !text.contains('.') && !text.ends_with('*') {
            let help = format!("write {}", quote(&format!("{text}.service")));
            return Err(Problem::new(format!("the unit {} has no suffix", quote(text)), help));
        }
        Self::parse(text)
    }

    /// Whether it has no wildcard.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.glob.is_literal()
    }

    /// The text, if it has no wildcard.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        self.is_literal().then_some(self.as_str())
    }

    /// Whether it matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self.literal() {
            Some(literal) => literal == text,
            None => self.text.starts_with('/') == text.starts_with('/') && self.glob.matches::<Plain>(text),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self.literal(), other.literal()) {
            (Some(a), Some(b)) => a == b,
            (_, Some(text)) => self.matches(text),
            _ => self.glob.covers(&other.glob),
        }
    }
}

/// An executable: an absolute path, or a pattern such as `/opt/bots/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExePattern(Pattern);

impl ExePattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        Self::of("exe", text, "/opt/bots/invoice-bot")
    }

    /// A script: as an executable.
    pub(crate) fn script(text: &str) -> Result<Self, Problem> {
        Self::of("script", text, "/opt/bots/report.py")
    }

    fn of(key: &str, text: &str, example: &str) -> Result<Self, Problem> {
        check_path(key, text, example)?;
        if text.ends_with('/') {
            let help = format!("name the file, or write {} for every file in it", quote(&format!("{text}*")));
            return Err(Problem::new(format!("\"{key}\" {} is a directory", quote(text)), help));
        }
        Pattern::parse(text).map(Self)
    }

    /// Whether it has no wildcard.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.0.is_literal()
    }

    /// The path, if it has no wildcard.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        self.0.literal()
    }

    /// Whether a path matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.0.matches(path)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The directory that holds everything that can match: `/opt/bots` for `/opt/bots/*`, `/` for `/**`.
    #[must_use]
    pub fn directory(&self) -> &str {
        let text = self.as_str();
        let fixed = text.find('*').and_then(|star| text.get(..star)).unwrap_or(text);
        match fixed.rsplit_once('/') {
            Some(("", _)) | None => "/",
            Some((directory, _)) => directory,
        }
    }
}

/// The conditions of an identity. At least one is given; every one that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conditions {
    /// The executable.
    pub exe: Option<Spanned<ExePattern>>,
    /// The SHA-256 of the executable.
    pub sha256: Option<Spanned<[u8; 32]>>,
    /// The user, by name or number; whether there is one is for the caller to find out.
    pub user: Option<Spanned<String>>,
    /// The group, by name or number.
    pub group: Option<Spanned<String>>,
    /// The cgroup, from the root of the hierarchy.
    pub cgroup: Option<Spanned<Pattern>>,
    /// The systemd unit.
    pub unit: Option<Spanned<Pattern>>,
    /// The script that an interpreter, which `exe` names, was started with.
    pub script: Option<Spanned<ExePattern>>,
    /// The SHA-256 of the script.
    pub script_sha256: Option<Spanned<[u8; 32]>>,
    /// Whether it must have been started without variables that carry code; not given: as [`Self::want_clean_environment`].
    pub clean_environment: Option<Spanned<bool>>,
    /// The container that it runs in.
    pub container: Option<Spanned<ContainerPattern>>,
    /// The service account of its pod.
    pub kubernetes: Option<Spanned<KubernetesPattern>>,
    /// Where `[identity]` stands.
    pub place: Spanned<()>,
}

impl Conditions {
    pub(crate) fn none(place: Place) -> Self {
        let place = Spanned::new((), place);
        Self {
            exe: None,
            sha256: None,
            user: None,
            group: None,
            cgroup: None,
            unit: None,
            script: None,
            script_sha256: None,
            clean_environment: None,
            container: None,
            kubernetes: None,
            place,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        // How it was started says nothing about who it is.
        let Self {
            exe,
            sha256,
            user,
            group,
            cgroup,
            unit,
            script,
            script_sha256,
            clean_environment: _,
            container,
            kubernetes,
            place: _,
        } = self;
        exe.is_none()
            && sha256.is_none()
            && user.is_none()
            && group.is_none()
            && cgroup.is_none()
            && unit.is_none()
            && script.is_none()
            && script_sha256.is_none()
            && container.is_none()
            && kubernetes.is_none()
    }

    /// Names what they ask: those that ask the same of a workload have the same key, wherever they stand.
    #[must_use]
    pub fn key(&self) -> u64 {
        fn text<T>(asked: Option<&Spanned<T>>, of: impl Fn(&T) -> String) -> Option<String> {
            asked.map(|asked| of(&asked.value))
        }
        let hex = |digest: &[u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let Self {
            exe,
            sha256,
            user,
            group,
            cgroup,
            unit,
            script,
            script_sha256,
            clean_environment: _,
            container,
            kubernetes,
            place: _,
        } = self;
        let parts = [
            text(exe.as_ref(), |it| it.as_str().to_owned()),
            text(sha256.as_ref(), hex),
            text(user.as_ref(), Clone::clone),
            text(group.as_ref(), Clone::clone),
            text(cgroup.as_ref(), |it| it.as_str().to_owned()),
            text(unit.as_ref(), |it| it.as_str().to_owned()),
            text(script.as_ref(), |it| it.as_str().to_owned()),
            text(script_sha256.as_ref(), hex),
            text(container.as_ref(), |it| it.as_str().to_owned()),
            text(kubernetes.as_ref(), |it| it.as_str().to_owned()),
        ];
        crate::memory::first(&Sha256::digest(format!("{parts:?} {}", self.want_clean_environment())))
    }

    /// Whether they say which script is executed.
    #[must_use]
    pub fn name_a_script(&self) -> bool {
        self.script.is_some() || self.script_sha256.is_some()
    }

    /// Whether the process must have been started without variables such as `LD_PRELOAD`: as it is said, else if the content
    /// of the executable is pinned or a script is named, because foreign code would make that meaningless.
    #[must_use]
    pub fn want_clean_environment(&self) -> bool {
        self.clean_environment
            .as_ref()
            .map_or(self.sha256.is_some() || self.name_a_script(), |wanted| wanted.value)
    }

    /// Whether they say more than which file is executed: a user, a unit, a cgroup or a container, none of which a
    /// process can take for itself. What is not pinned can be named by every user who may execute the file.
    #[must_use]
    pub fn are_pinned(&self) -> bool {
        self.user.is_some()
            || self.unit.is_some()
            || self.cgroup.is_some()
            || self.container.is_some()
            || self.kubernetes.is_some()
    }

    /// Whether it is certain that every workload that meets `other` meets these, too.
    pub(crate) fn cover(&self, other: &Self) -> bool {
        fn implied<T>(
            mine: Option<&Spanned<T>>,
            theirs: Option<&Spanned<T>>,
            by: impl Fn(&T, &T) -> bool,
        ) -> bool {
            match (mine, theirs) {
                (None, _) => true,
                (Some(mine), Some(theirs)) => by(&mine.value, &theirs.value),
                (Some(_), None) => false,
            }
        }
        implied(self.exe.as_ref(), other.exe.as_ref(), |a, b| a.0.covers(&b.0))
            && implied(self.sha256.as_ref(), other.sha256.as_ref(), |a, b| a == b)
            && implied(self.user.as_ref(), other.user.as_ref(), |a, b| a == b)
            && implied(self.group.as_ref(), other.group.as_ref(), |a, b| a == b)
            && implied(self.cgroup.as_ref(), other.cgroup.as_ref(), Pattern::covers)
            && implied(self.unit.as_ref(), other.unit.as_ref(), Pattern::covers)
            && implied(self.script.as_ref(), other.script.as_ref(), |a, b| a.0.covers(&b.0))
            && implied(self.script_sha256.as_ref(), other.script_sha256.as_ref(), |a, b| a == b)
            && implied(self.container.as_ref(), other.container.as_ref(), ContainerPattern::covers)
            && implied(self.kubernetes.as_ref(), other.kubernetes.as_ref(), KubernetesPattern::covers)
    }
}

/// An absolute path without anything that the kernel would not report.
fn check_path(key: &str, text: &str, example: &str) -> Result<(), Problem> {
    let bad = |what: &str, help: String| Err(Problem::new(format!("\"{key}\" {} {what}", quote(text)), help));
    if !text.starts_with('/') {
        return bad("is not an absolute path", format!("write it from the root, such as \"{example}\""));
    }
    if text.contains(char::is_control) {
        return bad("has a control character", "remove it".into());
    }
    if text.split('/').skip(1).any(|segment| matches!(segment, "." | "..")) {
        return bad("has a . or .. in it", "write the path that is meant".into());
    }
    if text.contains("//") {
        return bad("has two slashes in a row", "write one".into());
    }
    Ok(())
}

/// Sixty-four hexadecimal digits.
pub(crate) fn parse_sha256(key: &str, text: &str) -> Result<[u8; 32], Problem> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let bytes: Option<Vec<u8>> = digits.filter(|digits| digits.len() == 64).map(|digits| {
        let (pairs, _) = digits.as_chunks::<2>();
        pairs.iter().map(|[high, low]| u8::try_from(high * 16 + low).unwrap_or(0)).collect()
    });
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        Problem::new(
            format!("\"{key}\" must be 64 hexadecimal digits"),
            "write the first column of what sha256sum prints for the file",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exe(text: &str) -> ExePattern {
        ExePattern::parse(text).unwrap()
    }

    #[test]
    fn what_asks_the_same_has_the_same_key_and_every_condition_is_in_it() {
        let key = |before: &str, conditions: &str| {
            let text = format!("{before}[identity]\n{conditions}\n");
            let compiled = crate::compile(&[crate::SourceFile::new("policies/bot.toml", text)]);
            let set = compiled.set.unwrap_or_else(|| panic!("{conditions}: {:?}", compiled.diagnostics));
            set.identity_named("bot").unwrap().conditions.key()
        };
        let of = |value: &str| {
            let digest = value.repeat(64);
            [
                format!("exe = '/opt/{value}'"),
                format!("sha256 = '{digest}'"),
                format!("user = '{value}'"),
                format!("group = '{value}'"),
                format!("unit = '{value}.service'"),
                format!("cgroup = '/{value}'"),
                format!("exe = '/opt/x'\nuser = 'x'\nscript = '/opt/{value}'"),
                format!("exe = '/opt/x'\nuser = 'x'\nscript_sha256 = '{digest}'"),
                format!("container = 'docker:{value}'"),
                format!("kubernetes = '{value}/x'"),
                format!("exe = '/opt/x'\nclean_environment = {}", value == "a"),
            ]
        };
        let all = [of("a"), of("b")].concat();
        let keys: std::collections::BTreeSet<u64> = all.iter().map(|it| key("", it)).collect();
        assert_eq!(keys.len(), all.len());
        for conditions in &all {
            assert_eq!(key("", conditions), key("description = 'moved'\n\n", conditions));
        }
    }

    #[test]
    fn a_star_stays_in_its_directory() {
        assert!(exe("/opt/bots/*").matches("/opt/bots/a"));
        assert!(!exe("/opt/bots/*").matches("/opt/bots/a/b"));
        assert!(exe("/opt/bots/**").matches("/opt/bots/a/b"));
        assert!(exe("/opt/*/bin/bot").matches("/opt/x/bin/bot"));
        assert!(!exe("/opt/*").matches("opt/x"), "a label that is not a path");
        assert!(exe("/opt/a[1]").matches("/opt/a[1]"));
    }

    #[test]
    fn the_directory_of_a_pattern_is_its_literal_beginning() {
        for (pattern, directory) in [
            ("/opt/bots/*", "/opt/bots"),
            ("/opt/bots/x-*", "/opt/bots"),
            ("/opt/*/x", "/opt"),
            ("/**", "/"),
            ("/usr/bin/curl", "/usr/bin"),
            ("/init", "/"),
        ] {
            assert_eq!(exe(pattern).directory(), directory, "{pattern}");
        }
        assert_eq!(exe("/usr/bin/curl").literal(), Some("/usr/bin/curl"));
        assert_eq!(exe("/usr/bin/*").literal(), None);
    }

    #[test]
    fn a_path_that_the_kernel_would_not_report_is_refused() {
        for text in ["", "bot", "./bot", "/opt/../bot", "/opt//bot", "/opt/", "/opt/a**", "/opt/\u{7}"] {
            assert!(ExePattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_unit_has_a_suffix() {
        assert!(Pattern::unit("bot@*.service").unwrap().matches("bot@1.service"));
        assert!(Pattern::unit("bots-*").is_ok());
        assert_eq!(Pattern::unit("bot").unwrap_err().help, "write \"bot.service\"");
        assert!(Pattern::unit("a/b.service").is_err());
    }

    #[test]
    fn a_digest_is_64_hex_digits() {
        let text = "00ff".repeat(16);
        let parse_sha256 = |text: &str| parse_sha256("sha256", text);
        assert_eq!(parse_sha256(&text).unwrap()[..4], [0, 255, 0, 255]);
        assert_eq!(parse_sha256(&text.to_uppercase()), parse_sha256(&text));
        assert!(parse_sha256(&text[1..]).is_err());
        assert!(parse_sha256(&text.replace('f', "g")).is_err());
    }

    #[test]
    fn fewer_conditions_cover_more() {
        let at = Place::default();
        let spanned = |text: &str| Some(Spanned::new(text.to_owned(), at));
        let a = Conditions { exe: Some(Spanned::new(exe("/opt/*"), at)), ..Conditions::none(at) };
        let b = Conditions { exe: Some(Spanned::new(exe("/opt/x"), at)), user: spanned("u"), ..a.clone() };
        let c = Conditions { user: spanned("v"), ..a.clone() };
        assert!(a.cover(&a) && a.cover(&b) && a.cover(&c));
        assert!(!b.cover(&a) && !b.cover(&c) && !c.cover(&b));
    }
}
