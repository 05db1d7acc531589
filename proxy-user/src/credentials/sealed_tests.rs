//! The format of the store: it comes back as it was, and any damage is found.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::super::about::MAX_LABELS;
use super::*;

fn key() -> StoreKey {
    StoreKey::new([42; 32])
}

fn entry(value: &[u8]) -> Entry {
    Entry::new(Arc::new(Secret::new(value.to_vec())), 3, 1_700_000_000)
}

fn one() -> Secrets {
    Secrets::from([("stripe/restricted".parse().unwrap(), entry(b"rk_test_canary"))])
}

/// What can be compared and printed, unlike the secrets themselves.
type Plain = (String, Vec<u8>, u64, u64, About, Vec<Past>);

fn plain(secrets: &Secrets) -> Vec<Plain> {
    secrets
        .iter()
        .map(|(name, entry)| {
            let Entry { secret, version, created_s, about, before } = entry;
            (name.to_string(), secret.expose().to_vec(), *version, *created_s, about.clone(), before.clone())
        })
        .collect()
}

prop_compose! {
    fn any_about()(
        labels in btree_map("[a-z0-9][a-z0-9._/-]{0,62}", "[^\\p{Cc}]{1,30}", 0..=MAX_LABELS),
        owner in proptest::option::of("[^\\p{Cc}]{1,30}"),
    ) -> About {
        About::of(labels, owner).unwrap()
    }
}

/// Value, version, date, and versions and dates before: an [`Entry`] cannot be printed.
type Made = (Vec<u8>, u64, u64, About, Vec<(u64, u64)>);

fn any_entry() -> impl Strategy<Value = Made> {
    let before = vec((any::<u64>(), any::<u64>()), 0..=MAX_PAST);
    (vec(any::<u8>(), 1..300), any::<u64>(), any::<u64>(), any_about(), before)
}

fn made((value, version, created_s, about, before): Made) -> Entry {
    let before = before.into_iter().map(|(version, created_s)| Past { version, created_s }).collect();
    Entry { version, created_s, about, before, ..entry(&value) }
}

/// A store as it was written before there were labels, with the key of these tests: `a`, twice set, and `stripe/restricted`.
const VERSION_1: &str = "565353544f52450a0000000181f9dbffc83788183f3092e07be3fac600000000000000a5db76e9f3f4628cbe0cc73334f34ad1fd\
    b11887ee5adbeacaf1223f188fd90575c9b59e890282c6c6794cd580b253fa2e9a9b34593a11ff88aa71920d07cff4c55f1e0533b0684545ffa11eb1\
    0636ac45a146c74d4e26f266e0229db1d1ebe35934ba79b0560a2e9d9bf756742f840d179ea7580ee0c89ac32e8902107938a0c8a93b291b19d44dbd\
    b2d54ce7a1cae7ad59b142f31557e7010e2d9ed372dc9e984f1f843277221127afaa5a20fc6a1cf0a0";

#[test]
fn a_store_of_the_version_before_is_read_and_written_as_one_of_this() {
    let old = hex::decode(VERSION_1.as_bytes()).unwrap();
    let mut secrets = open(&old, &key()).ok().unwrap();
    let told: Vec<_> =
        plain(&secrets).into_iter().map(|(name, value, version, ..)| (name, value, version)).collect();
    let expected = [("a", &b"y"[..], 2), ("stripe/restricted", b"rk_test_canary", 1)];
    assert_eq!(told, expected.map(|(name, value, version)| (name.to_owned(), value.to_vec(), version)));
    secrets.get_mut("a").unwrap().succeed(Arc::new(Secret::new(b"z".to_vec())), 7);
    let new = seal(&secrets, &key()).unwrap();
    assert_eq!((old[11], new[11]), (1, 2));
    assert_eq!(plain(&open(&new, &key()).ok().unwrap()), plain(&secrets));
    // Its version is sealed with it: what is of one cannot be passed off as the other.
    let mut other = old;
    other[11] = 2;
    assert_eq!(open(&other, &key()).err(), Some(SealError::Damaged));
}

#[test]
fn the_version_before_has_no_labels_and_the_history_is_bounded() {
    let text = r#"{"a":{"secret":"6361","version":1,"created":1,"owner":"me"}}"#;
    assert!(contents(text.as_bytes(), 2).is_ok());
    assert!(matches!(contents(text.as_bytes(), 1).err(), Some(SealError::Content(_))));
    let past = |count: usize| {
        let all = vec!["[1,2]"; count].join(",");
        format!(r#"{{"a":{{"secret":"6361","version":1,"created":1,"before":[{all}]}}}}"#)
    };
    assert!(contents(past(MAX_PAST).as_bytes(), 2).is_ok());
    assert!(contents(past(MAX_PAST + 1).as_bytes(), 2).is_err());
    assert!(contents(br#"{"a":{"secret":"6361","version":1,"created":1,"labels":{"A B":"x"}}}"#, 2).is_err());
    assert!(contents(br#"{"a":{"secret":"6361","version":1,"created":1,"owner":"a\nb"}}"#, 2).is_err());
    let mut one = entry(b"one");
    for number in 0..30 {
        let was = one.succeed(Arc::new(Secret::new(vec![number])), u64::from(number));
        assert_eq!(was.expose().len(), if number == 0 { 3 } else { 1 });
    }
    assert_eq!((one.version, one.before.len()), (33, MAX_PAST));
    assert_eq!(one.before[9], Past { version: 32, created_s: 28 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_map_of_secrets_comes_back_as_it_was(
        secrets in btree_map("[a-z0-9][a-z0-9._/-]{0,127}", any_entry(), 0..12)
    ) {
        let secrets: Secrets = secrets.into_iter().map(|(name, entry)| (name.parse().unwrap(), made(entry))).collect();
        let buffer = plaintext(&secrets).unwrap();
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&buffer).is_ok());
        let file = seal(&secrets, &key()).unwrap();
        prop_assert_eq!(plain(&open(&file, &key()).ok().unwrap()), plain(&secrets));
    }

    #[test]
    fn no_content_makes_it_panic_and_what_is_read_can_be_written(
        text in r#"\{"a":\{"secret":"[0-9a-f]{0,8}","version":[0-9]{1,3},"created":1(,"(labels|owner|before)":[\[\]{}"a:1,]{0,12})?\}\}"#,
        version in 1_u32..3,
    ) {
        if let Ok(secrets) = contents(text.as_bytes(), version) {
            prop_assert!(seal(&secrets, &key()).is_ok());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(open(&bytes, &key()).is_err());
    }

    #[test]
    fn no_bytes_after_a_good_header_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        let mut file = seal(&one(), &key()).unwrap();
        file.truncate(28);
        file.extend(bytes);
        prop_assert!(open(&file, &key()).is_err());
    }
}

#[test]
fn any_flipped_bit_is_found() {
    let file = seal(&one(), &key()).unwrap();
    for bit in 0..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&damaged, &key()).is_err(), "bit {bit}");
    }
}

#[test]
fn every_truncation_is_found_and_called_one() {
    let file = seal(&one(), &key()).unwrap();
    for length in 0..file.len() {
        let error = open(&file[..length], &key()).err().unwrap();
        assert!(matches!(error, SealError::Length { .. }), "{length}: {error}");
    }
}

#[test]
fn an_appended_byte_is_found() {
    let mut file = seal(&one(), &key()).unwrap();
    file.push(0);
    assert!(matches!(open(&file, &key()).err().unwrap(), SealError::Length { .. }));
}

#[test]
fn another_key_another_version_and_another_file_are_told_apart() {
    let file = seal(&one(), &key()).unwrap();
    assert_eq!(open(&file, &StoreKey::new([43; 32])).err(), Some(SealError::OtherKey));
    let mut newer = file.clone();
    newer[11] = 3;
    assert_eq!(open(&newer, &key()).err(), Some(SealError::Version { found: 3 }));
    assert_eq!(open(b"-----BEGIN", &key()).err(), Some(SealError::NotAStore));
    let mut damaged = file;
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(open(&damaged, &key()).err(), Some(SealError::Damaged));
}

#[test]
fn the_same_secrets_are_never_written_with_the_same_nonce() {
    let (first, second) = (seal(&one(), &key()).unwrap(), seal(&one(), &key()).unwrap());
    assert_ne!(first[36..48], second[36..48]);
    assert_ne!(first[48..], second[48..]);
}

#[test]
fn the_plaintext_never_outgrows_its_buffer() {
    let many: Secrets = (0..50)
        .map(|number| {
            let name = format!("{number}{}", "x".repeat(100)).parse().unwrap();
            let labels =
                (0..MAX_LABELS).map(|label| (format!("{label}{}", "n".repeat(60)), "\"".repeat(128)));
            let about = About::of(labels.collect(), Some("\\".repeat(128))).unwrap();
            let before = vec![Past { version: u64::MAX, created_s: u64::MAX }; MAX_PAST];
            (name, Entry { version: u64::MAX, created_s: u64::MAX, about, before, ..entry(&[255; 100]) })
        })
        .collect();
    let buffer = plaintext(&many).unwrap();
    let before = buffer.capacity();
    assert!(buffer.len() + TAG_BYTES <= before);
}

#[test]
fn a_value_too_long_and_a_store_too_large_are_refused() {
    let secrets = |count: usize, bytes: usize| -> Secrets {
        (0..count).map(|number| (format!("n{number}").parse().unwrap(), entry(&vec![1; bytes]))).collect()
    };
    assert_eq!(seal(&secrets(1, 65_537), &key()).err(), Some(SealError::ValueLength { found: 65_537 }));
    assert_eq!(seal(&secrets(1, 0), &key()).err(), Some(SealError::ValueLength { found: 0 }));
    assert!(seal(&secrets(1, 65_536), &key()).is_ok());
    assert_eq!(seal(&secrets(130, 65_536), &key()).err(), Some(SealError::TooLarge));
}

#[test]
fn an_error_about_the_content_does_not_quote_it() {
    for plain in [
        r#"{"a":{"secret":"canary","version":1,"created":1}}"#,
        r#"{"a":{"secret":"6361","version":"canary","created":1}}"#,
        r#"{"a":"canary"}"#,
        r#"{"CANARY":{"secret":"6361","version":1,"created":1}}"#,
        r#"{"a":{"secret":"6361","version":1,"created":1,"owner":"canary\n"}}"#,
        r#"{"a":{"secret":"6361","version":1,"created":1,"labels":{"CANARY":"a"}}}"#,
    ] {
        let error = contents(plain.as_bytes(), FORMAT_VERSION).err().unwrap().to_string();
        assert!(!error.to_lowercase().contains("canary"), "{error}");
    }
}
