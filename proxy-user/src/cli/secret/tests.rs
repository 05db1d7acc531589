//! The command line of `vouchsafe secret`, and what it tells a daemon.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;

use clap::Parser;

use super::*;
use crate::credentials::{About, KeySource, Listed, Past, Store};

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    secret: SecretArgs,
}

fn parse(arguments: &[&str]) -> Result<Action, String> {
    let all = ["secret"].iter().chain(arguments);
    Program::try_parse_from(all).map(|program| program.secret.action).map_err(|error| error.to_string())
}

fn taken(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    value(read_bounded(&mut &*text)?).map(|secret| secret.expose().to_vec())
}

#[test]
fn a_value_on_the_command_line_is_refused_with_the_reason_and_not_repeated() {
    let refused: [&[&str]; 7] = [
        &["set", "stripe", "sk_CANARY"],
        &["set", "stripe", "sk_CANARY", "more"],
        &["set", "stripe", "--value=CANARY"],
        &["set", "stripe", "--value", "CANARY"],
        &["set", "stripe", "-CANARY"],
        &["set", "stripe", "--", "CANARY"],
        &["set", "stripe", "CANARY\u{e9}"],
    ];
    for arguments in refused {
        let error = parse(arguments).unwrap_err();
        assert!(!error.contains("CANARY"), "{arguments:?}: {error}");
        assert!(error.contains("never given as an argument"), "{arguments:?}: {error}");
    }
}

#[test]
fn a_value_in_place_of_the_name_is_refused_and_not_repeated() {
    for arguments in
        [&["set", "sk_live_CANARY"][..], &["rm", "sk_live_CANARY"], &["set", "--value=CANARY", "x"]]
    {
        let error = parse(arguments).unwrap_err();
        assert!(!error.contains("CANARY"), "{error}");
    }
}

#[test]
fn the_commands_are_understood() {
    assert!(matches!(parse(&["set", "a/b"]).unwrap(), Action::Set { name, .. } if name.as_str() == "a/b"));
    assert!(matches!(parse(&["rm", "a"]).unwrap(), Action::Rm { .. }));
    assert!(matches!(parse(&["list"]).unwrap(), Action::List { json: false, .. }));
    assert!(parse(&["set"]).is_err());
    assert!(parse(&["set", "--help"]).unwrap_err().contains("from a prompt"));
}

#[test]
fn one_line_end_is_taken_off_and_nothing_else() {
    assert_eq!(taken(b"key").unwrap(), b"key");
    assert_eq!(taken(b"key\n").unwrap(), b"key");
    assert_eq!(taken(b"key\r\n").unwrap(), b"key");
    assert_eq!(taken(b" key \n\n").unwrap(), b" key \n");
}

#[test]
fn an_empty_value_and_one_that_is_too_long_are_refused() {
    for empty in [&b""[..], b"\n", b"\r\n"] {
        assert!(taken(empty).unwrap_err().to_string().contains("empty"));
    }
    let longest = vec![b'x'; MAX_SECRET_BYTES];
    assert_eq!(taken(&longest).unwrap().len(), MAX_SECRET_BYTES);
    assert_eq!(taken(&[&longest[..], b"\r\n"].concat()).unwrap().len(), MAX_SECRET_BYTES);
    assert!(taken(&[&longest[..], b"x"].concat()).unwrap_err().to_string().contains("more than"));
    assert!(taken(&longest.repeat(3)).unwrap_err().to_string().contains("more than"));
}

fn listed(name: &str, version: u64, labels: &[&str], owner: &str) -> Listed {
    let mut about = About::default();
    let labels: Vec<Label> = labels.iter().map(|it| it.parse().unwrap()).collect();
    about.change(&labels, Some(&owner.parse().unwrap())).unwrap();
    let before = (version.saturating_sub(2).max(1)..version)
        .map(|version| Past { version, created_s: 1_600_000_000 + version });
    Listed { name: name.parse().unwrap(), version, created_s: 1_700_000_000, about, before: before.collect() }
}

#[test]
fn the_list_shows_names_versions_dates_owners_and_labels() {
    let one = listed("stripe/restricted", 12, &["team=billing", "stage=live"], "a@b.test");
    let table = listed::table(&[listed("a", 1, &[], ""), one.clone()]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines[0], "NAME               VERSION  SET                   OWNER     LABELS");
    assert_eq!(lines[1], "a                        1  2023-11-14T22:13:20Z  -         -");
    assert_eq!(
        lines[2],
        "stripe/restricted       12  2023-11-14T22:13:20Z  a@b.test  stage=live team=billing"
    );
    let page = listed::page(&one).unwrap();
    assert!(page.contains("label    team=billing\n"), "{page}");
    assert!(
        page.contains("before   11, since 2020-09-13T12:26:51Z; its value is gone\nbefore   10,"),
        "{page}"
    );
    assert!(page.contains("versions before 10:"), "{page}");
    let json = listed::to_json(&one);
    assert_eq!((&json["labels"]["team"], &json["owner"]), (&"billing".into(), &"a@b.test".into()));
    assert_eq!(json["before"][1]["version"], 11, "{json}");
}

#[test]
fn a_key_in_place_of_a_label_or_an_owner_is_refused_and_not_repeated() {
    let key = "sk_live_0123456789abcdefghijCANARY";
    for arguments in [
        &["set", "a", "--label", key][..],
        &["set", "a", &format!("--label=key={key}")],
        &["set", "a", "--owner", key],
        &["set", "a", "--label", "team=x", key],
        &["label", "a", &format!("key={key}")],
        &["label", "a", key],
        &["list", "--label", key],
    ] {
        let error = parse(arguments).unwrap_err();
        assert!(!error.contains("CANARY"), "{arguments:?}: {error}");
    }
    let Action::Set { labels, owner, .. } =
        parse(&["set", "a", "--label", "team=x", "--owner", "me", "--label", "b="]).unwrap()
    else {
        panic!()
    };
    assert_eq!(
        (labels, owner),
        (vec!["team=x".parse().unwrap(), "b=".parse().unwrap()], Some("me".parse().unwrap()))
    );
    assert!(matches!(parse(&["label", "a", "--owner", ""]).unwrap(), Action::Label { .. }));
    assert!(parse(&["label", "a"]).is_err());
}

fn told(reply: Option<&'static str>) -> (ExitCode, String) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let mut out = Vec::new();
    let code = std::thread::scope(|scope| {
        if let Some(reply) = reply {
            let listener = UnixListener::bind(&socket).unwrap();
            scope.spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                assert!(line.starts_with("{\"command\":\"reload-secrets\""), "{line}");
                writeln!(&stream, "{reply}").unwrap();
            });
        }
        tell_the_daemon(&socket, &mut out).unwrap()
    });
    (code, String::from_utf8(out).unwrap())
}

#[test]
fn a_running_daemon_is_told_and_the_person_hears_whether_it_did() {
    let (code, text) = told(Some(r#"{"ok":true,"result":{"count":2}}"#));
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(text.contains("2 secrets"), "{text}");
    let (code, text) = told(Some(r#"{"ok":false,"error":{"code":"secrets","message":"damaged"}}"#));
    assert_eq!(code, ExitCode::FAILURE);
    assert!(text.contains("still has the old secrets") && text.contains("damaged"), "{text}");
    let (code, text) = told(None);
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(text.contains("no daemon is running"), "{text}");
}

#[test]
fn removing_what_is_not_there_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let paths = StorePaths {
        store: Store::new(
            directory.path().join("secrets.store"),
            KeySource::file(directory.path().join("key")),
        ),
        control_socket: directory.path().join("control.sock"),
    };
    let args = SecretArgs { action: parse(&["rm", "gone"]).unwrap() };
    assert!(run(args, &paths).unwrap_err().to_string().contains("no secret gone"));
}
