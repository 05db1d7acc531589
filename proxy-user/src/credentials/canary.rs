//! Looks for one secret everywhere it must not be, after it was set, read and attached.

use std::sync::{Arc, Mutex};
use std::{fs, io};

use http::Request;
use http::header::AUTHORIZATION;

use super::live::tests::{World, attached, bearer, policy, ready};
use super::{Fingerprints, KeySource, Secret, StorePaths, Strip, hex, strip};

const CANARY: &str = "canary-7d1f0c9e5b";

/// Where a subscriber writes, at every level.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// All that the tasks of this thread log from now on.
    pub(super) fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let own = log.clone();
        let everything = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        let subscriber = everything.with_writer(move || own.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[track_caller]
fn assert_absent(place: &str, bytes: &[u8]) {
    assert!(!contains(bytes, CANARY.as_bytes()), "the secret is in {place}");
    assert!(!contains(bytes, hex::encode(CANARY.as_bytes()).as_bytes()), "the secret is in {place}, as hex");
    // The Debug of a byte slice.
    let numbers = format!("{:?}", CANARY.as_bytes());
    assert!(
        !contains(bytes, numbers.trim_matches(['[', ']']).as_bytes()),
        "the secret is in {place}, as numbers"
    );
}

#[test]
fn a_secret_is_in_the_request_and_nowhere_else() {
    let world = World::new();
    let (directory, store) = (world.store.path().parent().unwrap(), &world.store);
    let key = KeySource::file(directory.join("store.key"));
    world.set("canary", CANARY.as_bytes());
    let credentials = world.credentials();
    let credential =
        credentials.adopt(&policy("kind = \"static\"\nsecret = \"vault:canary\"")).pop().unwrap();

    let inject = bearer();
    let attachment = ready(&credential, inject.clone()).unwrap();
    let mut headers = attached(&attachment);
    let removed = strip(&mut headers.clone(), Some(&attachment), &Strip::default());
    headers.insert("x-other", "1".parse().unwrap());
    assert!(contains(headers[AUTHORIZATION].as_bytes(), CANARY.as_bytes()));

    assert_absent("Attachment", format!("{attachment:?}").as_bytes());
    assert_absent("HeaderMap", format!("{headers:#?}").as_bytes());
    let mut request = Request::new(());
    *request.headers_mut() = headers;
    assert_absent("Request", format!("{request:?}").as_bytes());
    assert_absent("Inject", format!("{inject:?}").as_bytes());
    assert_absent("Removed", format!("{:?}", removed.told(&Fingerprints::new(&[1; 32]))).as_bytes());
    assert_absent("Store", format!("{store:?}").as_bytes());
    assert_absent("KeySource", format!("{key:?}").as_bytes());
    assert_absent("Listed", format!("{:?}", store.list().unwrap()).as_bytes());
    assert_absent("LiveCredential", format!("{credential:?}").as_bytes());
    let paths = StorePaths::in_directories(directory, directory);
    assert_absent("StorePaths", format!("{paths:?}").as_bytes());
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        assert_absent(&path.display().to_string(), &fs::read(&path).unwrap());
    }
}

#[test]
fn no_error_carries_the_secret() {
    let world = World::new();
    let (store, name) = (&world.store, "canary".parse().unwrap());
    world.set("canary", format!("{CANARY}\n{CANARY}").as_bytes());
    let credentials = world.credentials();
    let credential =
        credentials.adopt(&policy("kind = \"static\"\nsecret = \"vault:canary\"")).pop().unwrap();

    let refused = ready(&credential, bearer()).unwrap_err();
    assert_absent("CredentialError", format!("{refused} {refused:?} {}", refused.client_text()).as_bytes());

    let too_long = CANARY.repeat(8192);
    let refused = store.set(&name, Secret::new(too_long.into_bytes()), 1).unwrap_err();
    assert_absent("StoreError", format!("{refused} {refused:?}").as_bytes());

    let mut damaged = fs::read(store.path()).unwrap();
    if let Some(last) = damaged.last_mut() {
        *last ^= 1;
    }
    fs::write(store.path(), damaged).unwrap();
    let refused = credentials.reload().unwrap_err();
    assert_absent("StoreError", format!("{refused} {refused:?}").as_bytes());
    assert_absent("the problem", format!("{:?}", credentials.problem()).as_bytes());
}
