//! Secrets from files, as an operator changes them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn reference(text: &str) -> SecretRef {
    let text = format!("[credential.c]\nkind = \"static\"\nsecret = \"{text}\"\n");
    let compiled =
        proxy_policy::compile(&[proxy_policy::SourceFile { path: "credentials/c.toml".into(), text }]);
    let set = compiled.set.unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics));
    set.credentials().next().unwrap().kind.secrets()[0].clone()
}

/// A file with a secret, which only its owner can read.
struct Keys(tempfile::TempDir);

impl Keys {
    fn with(content: &str) -> Self {
        let keys = Self(tempfile::tempdir().unwrap());
        keys.write(content);
        keys
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("key")
    }

    fn write(&self, content: &str) {
        fs::write(self.path(), content).unwrap();
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn reference(&self) -> SecretRef {
        reference(&format!("file:{}", self.path().display()))
    }
}

fn text(held: Option<Result<Held, SourceError>>) -> Result<(String, u64), SourceError> {
    let held = held.expect("it was read")?;
    Ok((String::from_utf8(held.secret.expose().to_vec()).unwrap(), held.version))
}

fn prepared(reference: &SecretRef) -> Texts {
    let texts = Texts::with_unit(None);
    texts.prepare(&[reference]);
    texts
}

#[test]
fn a_file_is_a_secret_without_its_last_line_break() {
    for (content, secret) in [("key\n", "key"), ("key", "key"), ("key\r\n", "key"), ("a\nb\n\n", "a\nb\n")] {
        let keys = Keys::with(content);
        let reference = keys.reference();
        assert_eq!(text(prepared(&reference).held(&reference)), Ok((secret.to_owned(), 1)));
    }
}

#[test]
fn a_change_is_taken_up_once_the_file_stands_still() {
    let keys = Keys::with("one");
    let reference = keys.reference();
    let texts = prepared(&reference);
    texts.follow();
    assert_eq!(text(texts.held(&reference)), Ok(("one".into(), 1)));
    keys.write("half of tw");
    texts.follow();
    assert_eq!(text(texts.held(&reference)), Ok(("one".into(), 1)), "it may not be whole");
    keys.write("the whole of two");
    texts.follow();
    assert_eq!(text(texts.held(&reference)), Ok(("one".into(), 1)), "it changed since the last look");
    texts.follow();
    assert_eq!(text(texts.held(&reference)), Ok(("the whole of two".into(), 2)));
}

#[test]
fn the_same_content_stays_the_same_secret() {
    let keys = Keys::with("one");
    let reference = keys.reference();
    let texts = prepared(&reference);
    let before = texts.held(&reference).unwrap().ok().unwrap();
    keys.write("one\n");
    texts.read_again();
    let after = texts.held(&reference).unwrap().ok().unwrap();
    assert!(Arc::ptr_eq(&before.secret, &after.secret));
    assert_eq!(after.version, 1);
}

#[test]
fn a_file_that_is_gone_takes_its_secret_with_it_and_versions_go_on() {
    let keys = Keys::with("one");
    let reference = keys.reference();
    let texts = prepared(&reference);
    fs::remove_file(keys.path()).unwrap();
    texts.follow();
    let error = text(texts.held(&reference)).unwrap_err();
    assert!(error.to_string().contains("there is no file"), "{error}");
    keys.write("two");
    texts.follow();
    texts.follow();
    assert_eq!(text(texts.held(&reference)), Ok(("two".into(), 2)));
}

#[test]
fn a_file_that_others_could_read_or_write_is_refused() {
    for (mode, told) in
        [(0o604, "open to everybody"), (0o602, "open to everybody"), (0o620, "writable by its group")]
    {
        let keys = Keys::with("one");
        fs::set_permissions(keys.path(), fs::Permissions::from_mode(mode)).unwrap();
        let reference = keys.reference();
        let error = text(prepared(&reference).held(&reference)).unwrap_err();
        assert!(error.to_string().contains(told), "{mode:o}: {error}");
        assert!(error.to_string().contains("chmod 0600"), "{error}");
    }
    assert!(judge(1000, 0, 0o600, 0, 0).is_some_and(|why| why.contains("uid 1000")));
    assert!(judge(0, 5, 0o640, 0, 0).is_some_and(|why| why.contains("group 5")));
    assert_eq!(judge(0, 5, 0o440, 7, 5), None, "the daemon's own group may read it");
    assert_eq!(judge(7, 9, 0o400, 7, 5), None);
}

#[test]
fn a_file_that_others_could_exchange_is_refused() {
    let keys = Keys::with("one");
    let folder = keys.0.path().join("open");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    // The path leads through a folder that everybody can write, though the file itself is where nobody else can.
    symlink(keys.path(), folder.join("link")).unwrap();
    let reference = reference(&format!("file:{}", folder.join("link").display()));
    let error = text(prepared(&reference).held(&reference)).unwrap_err();
    assert!(error.to_string().contains("can be written by everybody"), "{error}");
}

#[test]
fn what_is_no_file_or_has_too_much_or_nothing_in_it_is_refused() {
    let keys = Keys::with(&"x".repeat(MAX_SECRET_BYTES + 1));
    let error = text(prepared(&keys.reference()).held(&keys.reference())).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    keys.write("\n");
    let error = text(prepared(&keys.reference()).held(&keys.reference())).unwrap_err();
    assert!(error.to_string().contains("empty"), "{error}");
    let folder = reference(&format!("file:{}", keys.0.path().display()));
    let error = text(prepared(&folder).held(&folder)).unwrap_err();
    assert!(error.to_string().contains("is not a file"), "{error}");
}

#[test]
fn a_credential_of_the_unit_is_read_from_where_systemd_puts_it() {
    let keys = Keys::with("of the unit");
    let reference = reference("systemd:key");
    let texts = Texts::with_unit(Some(keys.0.path().to_owned()));
    assert!(texts.held(&reference).is_none(), "nothing was read yet");
    assert_eq!(text(Some(texts.read(&reference))), Ok(("of the unit".into(), 1)));
    let error = text(Some(Texts::with_unit(None).read(&reference))).unwrap_err();
    assert!(error.to_string().contains("LoadCredential=key:PATH"), "{error}");
}

#[test]
fn a_variable_is_a_secret_and_one_that_is_not_set_is_told() {
    // Cargo sets it for every test.
    let known = reference("env:CARGO_PKG_NAME");
    assert_eq!(text(prepared(&known).held(&known)), Ok(("vouchsafe".into(), 1)));
    let unknown = reference("env:NOBODY_SETS_THIS_1");
    let error = text(prepared(&unknown).held(&unknown)).unwrap_err();
    assert!(error.to_string().contains("no variable NOBODY_SETS_THIS_1"), "{error}");
}

#[test]
fn what_no_policy_names_any_more_is_forgotten() {
    let keys = Keys::with("one");
    let reference = keys.reference();
    let texts = prepared(&reference);
    texts.prepare(&[]);
    assert!(texts.held(&reference).is_none());
}
