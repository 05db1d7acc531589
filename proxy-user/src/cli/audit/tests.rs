//! What a person sees of a journal that grows, is repaired, replaced and changed.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proxy_journal::check::{Witness, check};
use proxy_journal::follow::Follower;
use proxy_journal::{
    Decision, Head, Indexes, Outcome, PolicyLoad, PolicyResult, Record, Recovery, Start, Stop, Timestamp,
    Verdict, Workload, Writer, recover, segment,
};
use uuid::Uuid;

use super::super::evidence::{VerifyArgs, verify};
use super::filter::FilterArgs;
use super::follow::{self, Shower};
use super::open as open_journal;
use super::show::{ShowArgs, show};
use super::stats::{StatsArgs, stats};
use super::tail::{TailArgs, tail};

fn open(path: &Path) -> File {
    File::options().read(true).append(true).create(true).open(path).unwrap()
}

/// Appends as a daemon does after its start: in the first segment it is repaired, in another the chain goes on.
fn append(path: &Path, records: &[Record]) {
    let last = Follower::from_end(path.parent().unwrap()).unwrap().cursor().place.clone();
    let mut file = open(path);
    let found = if path.file_name().unwrap() == segment::file_name(1).as_str() {
        recover(&mut file, 1, None).unwrap()
    } else {
        let head = last.hash.map_or(Head::GENESIS, |hash| Head { seq: last.seq, hash });
        let len = file.metadata().unwrap().len();
        Recovery { head, len, ..recover(&mut std::io::Cursor::new(Vec::new()), 1, None).unwrap() }
    };
    let mut writer = Writer::resume(file, &found);
    for record in records {
        writer.append(record, Timestamp::from_micros(1_795_550_400_000_000)).unwrap();
    }
}

fn stop(reason: &str) -> Record {
    Record::Stop(Stop { reason: reason.to_owned() })
}

fn call(number: u128) -> [Record; 2] {
    let decision = Decision {
        id: Uuid::from_u128(number),
        workload: Workload { pid: 7, exe: "/opt/bot".into(), ..Workload::default() }.into(),
        identity: Some("bot".into()),
        dst: ([198, 51, 100, 7], 443).into(),
        proxy: None,
        scheme: None,
        api: None,
        host: Some("api.test".into()),
        port: Some(443),
        method: Some("GET".into()),
        path: Some(format!("/{number}")),
        has_query: false,
        verdict: Verdict::Allow,
        observed: false,
        rule: None,
        reason: "allowed".into(),
        credential: None,
        mistrust: None,
        capture: None,
        ech: false,
        basis: None,
        fingerprints: Vec::new(),
        refusal: None,
        generation: 1,
    };
    let outcome = Outcome { id: decision.id, status: Some(200), duration_us: 5_000, ..Outcome::default() };
    [Record::Decision(Arc::new(decision)), Record::Outcome(outcome)]
}

fn denial(number: u128) -> Record {
    match call(number) {
        [Record::Decision(decision), _] => {
            let evil = Some("evil\u{1b}[2J".to_owned());
            Record::Decision(Arc::new(Decision {
                verdict: Verdict::Deny,
                identity: evil,
                ..(*decision).clone()
            }))
        }
        [other, _] => other,
    }
}

fn start() -> Record {
    Record::Start(Start { version: "0.1".into(), boot_id: "boot".into(), pid: 42, ..Start::default() })
}

fn loaded() -> Record {
    Record::Policy(PolicyLoad {
        generation: 1,
        digest: "ab".into(),
        identities: 1,
        result: PolicyResult::Loaded,
        errors: Vec::new(),
        identity_keys: Default::default(),
    })
}

fn journal() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(segment::file_name(1));
    (dir, path)
}

/// One blank where columns are padded, and no time.
fn squeezed(line: &str) -> String {
    let words: Vec<_> = line.split(' ').filter(|word| !word.is_empty()).collect();
    words.join(" ").replace("2026-11-24T20:00:00.000Z ", "")
}

/// What `audit tail` with these options shows.
fn shown(dir: &Path, options: &[&str]) -> Vec<String> {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: TailArgs,
    }
    let args = <Cli as clap::Parser>::try_parse_from(["tail"].iter().chain(options)).unwrap().args;
    let mut out = Vec::new();
    tail(&args, dir, &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

/// A follower from the end of the journal as it is, and what shows what it sees.
fn follow(dir: &Path, options: FilterArgs, json: bool) -> (Follower, Shower) {
    let mut archive = open_journal(dir, Indexes::Keep).unwrap();
    let end = archive.end().unwrap().unwrap();
    let follower = Follower::from_place(dir, end.segment, end.offset).unwrap();
    (follower, Shower::new(archive, options.wanted().unwrap(), json, false))
}

/// What the follower shows now.
fn look(follower: &mut Follower, shower: &mut Shower) -> Vec<String> {
    let mut out = Vec::new();
    follow::look(follower, shower, &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(squeezed).collect()
}

fn verified(args: &VerifyArgs) -> (u8, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = verify(args, &args.paths, &mut out, &mut err).unwrap();
    out.extend(err);
    (status, String::from_utf8(out).unwrap())
}

fn of(path: &Path) -> VerifyArgs {
    VerifyArgs {
        paths: vec![path.to_owned()],
        key: None,
        checkpoint: Vec::new(),
        expect_head: None,
        expect_seq: None,
        proof: None,
    }
}

#[test]
fn the_last_lines_are_calls_and_not_records() {
    let (dir, path) = journal();
    let records: Vec<_> = (0..2_000).flat_map(call).collect();
    append(&path, &records);
    let lines = shown(dir.path(), &["-n", "3"]);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(squeezed(&lines[0]), "bot allow GET api.test/1997 200 5.0ms /opt/bot[7]");
    assert_eq!(shown(dir.path(), &[]).len(), 10);
    assert_eq!(shown(dir.path(), &["-n", "0"]).len(), 0);
    let lines = shown(dir.path(), &["-n", "1999"]);
    assert!(lines.len() == 1_999 && lines.iter().all(|line| squeezed(line).contains("bot allow GET")));
    assert_eq!(shown(dir.path(), &["--since", "2026-11-01"]).len(), 2_000, "all since then");
    assert!(shown(dir.path(), &["--until", "2026-11-01"]).is_empty());

    let last = std::fs::read_to_string(&path).unwrap();
    let last = last.lines().next_back().unwrap();
    assert_eq!(shown(dir.path(), &["--json", "-n", "1"]), [last]);
    let records = shown(dir.path(), &["--json", "-n", "3"]);
    assert!(records.len() == 3 && records[2] == last && records[0].contains("outcome"), "{records:?}");
}

#[test]
fn options_say_which_calls_are_shown_and_a_call_is_one_thing() {
    let (dir, path) = journal();
    let mut records: Vec<_> = (1..=4).flat_map(call).collect();
    records.push(stop("over"));
    append(&path, &records);
    let count = |options: &[&str]| shown(dir.path(), options).len();
    assert_eq!(
        (count(&["--identity", "bot"]), count(&["--identity", "b*"]), count(&["--identity", "x"])),
        (4, 4, 0)
    );
    assert_eq!((count(&["--verdict", "deny"]), count(&["--verdict", "deny", "--verdict", "allow"])), (0, 4));
    assert_eq!((count(&["--status", "2xx"]), count(&["--status", "404"])), (4, 0));
    assert_eq!((count(&["--kind", "stop"]), count(&["--kind", "call"]), count(&[])), (1, 4, 5));
    assert_eq!(count(&["--unit", "bot"]), 0, "it has none");
    let where_ = ["--where", "path == '/3' && duration_ms > 4.9 && identity == 'bot'"];
    assert_eq!(count(&where_), 1);
    // Decision and outcome.
    let json = shown(dir.path(), &[&["--json"][..], &where_].concat());
    assert!(
        json.len() == 2 && json[0].contains("\"decision\"") && json[1].contains("\"outcome\""),
        "{json:?}"
    );
}

#[test]
fn columns_stand_below_each_other_and_colour_is_only_where_it_is_wanted() {
    let (dir, path) = journal();
    append(&path, &(1..=2).chain(1000..=1001).flat_map(call).collect::<Vec<_>>());
    let lines = shown(dir.path(), &[]);
    for word in ["allow", "GET", "200", "5.0ms", "/opt/bot"] {
        let places: Vec<_> = lines.iter().map(|line| line.find(word)).collect();
        assert!(places[0].is_some() && places.iter().all(|place| *place == places[0]), "{word}: {lines:?}");
    }
    assert!(!lines.concat().contains('\u{1b}'));
    let coloured = shown(dir.path(), &["--color", "always"]);
    assert!(coloured[0].contains("\u{1b}[32mallow   \u{1b}[0m GET"), "{coloured:?}");
}

#[test]
fn what_the_journal_says_cannot_move_the_terminal() {
    let (dir, path) = journal();
    append(&path, &[stop("\u{1b}[2Jevil\nline\u{9b}2J")]);
    for options in [&[][..], &["--json"], &["--json", "--kind", "stop"]] {
        let lines = shown(dir.path(), options);
        assert_eq!((lines.len(), lines[0].contains(['\u{1b}', '\u{9b}'])), (1, false), "{lines:?}");
    }
}

#[test]
fn what_a_bot_chooses_pushes_nothing_out_of_sight_and_looks_like_no_other_line() {
    let (dir, path) = journal();
    let fake =
        "2026-11-24T20:00:00.000Z root-bot       allow    GET    api.test/                 200   5.0ms";
    let evil = format!("x{}{fake}\u{2800}\u{3164}\u{a0}{}", " ".repeat(500), "y".repeat(100_000));
    let [Record::Decision(decision), outcome] = call(1) else { panic!("a call") };
    let whole = Decision {
        path: Some(format!("/{evil}")),
        reason: evil.clone(),
        workload: Workload { exe: evil.clone(), ..(*decision.workload).clone() }.into(),
        ..(*decision).clone()
    };
    let refused = Decision { verdict: Verdict::Deny, id: Uuid::from_u128(2), ..whole.clone() };
    append(&path, &[Record::Decision(Arc::new(whole)), outcome, Record::Decision(Arc::new(refused))]);
    let lines = shown(dir.path(), &[]);
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert!(line.chars().count() < 1000 && line.ends_with("y[7]"), "{line}");
        assert!(!line.contains("root-bot  "), "{line}");
        assert!(!line.contains(['\u{2800}', '\u{3164}', '\u{a0}']), "{line}");
    }
    assert!(lines[0].contains("… 200   5.0ms") || lines[0].contains("y 200   5.0ms"), "{lines:?}");
    let table = table(dir.path(), &["--by", "path"]);
    assert!(table.lines().all(|line| line.chars().count() < 180), "{table}");
    assert!(!table.lines().any(|line| line.starts_with("root-bot")), "{table}");
}

#[test]
fn following_goes_on_over_a_kill_a_repair_and_a_restart() {
    let (dir, path) = journal();
    append(&path, &[stop("one")]);
    let (mut follower, mut shower) = follow(dir.path(), FilterArgs::default(), false);
    let [decision, outcome] = call(1);
    append(&path, &[decision]);
    assert!(look(&mut follower, &mut shower).is_empty(), "an allowed call is shown when it ends");
    // A half line, as a kill leaves it, which the next daemon cuts off and writes over.
    open(&path).write_all(b"{\"v\":1,\"seq\":3,\"time\":\"2026").unwrap();
    assert!(look(&mut follower, &mut shower).is_empty());
    append(&path, &[outcome, stop("two")]);
    assert_eq!(
        look(&mut follower, &mut shower),
        ["bot allow GET api.test/1 200 5.0ms /opt/bot[7]", "stop two"]
    );
    assert!(look(&mut follower, &mut shower).is_empty());
}

#[test]
fn following_begins_with_calls_that_are_open_and_with_half_lines() {
    let (dir, path) = journal();
    let [decision, outcome] = call(1);
    append(&path, &[decision]);
    open(&path).write_all(b"{\"v\":1,\"seq\":3,\"time\":\"2026").unwrap();
    let (mut follower, mut shower) = follow(dir.path(), FilterArgs::default(), false);
    append(&path, &[outcome]);
    assert_eq!(look(&mut follower, &mut shower), ["bot allow GET api.test/1 200 5.0ms /opt/bot[7]"]);
}

#[test]
fn following_shows_only_what_is_asked_for() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: FilterArgs,
    }
    let (dir, path) = journal();
    append(&path, &[stop("one")]);
    let of =
        |options: &[&str]| <Cli as clap::Parser>::try_parse_from(["x"].iter().chain(options)).unwrap().args;
    let (mut human, mut human_shower) = follow(dir.path(), of(&["--where", "path == '/2'"]), false);
    let (mut json, mut json_shower) = follow(dir.path(), of(&["--status", "200", "--identity", "bot"]), true);
    append(&path, &(1..=3).flat_map(call).chain([stop("two")]).collect::<Vec<_>>());
    let shown = look(&mut human, &mut human_shower);
    assert!(shown.len() == 1 && shown[0].contains("api.test/2 "), "{shown:?}");
    let shown = look(&mut json, &mut json_shower);
    assert!(
        shown.len() == 6 && shown[0].contains("\"decision\"") && shown[1].contains("\"outcome\""),
        "{shown:?}"
    );
}

#[test]
fn following_goes_on_in_the_next_segment_and_in_a_new_journal() {
    let (dir, path) = journal();
    append(&path, &[stop("one")]);
    let (mut follower, mut shower) = follow(dir.path(), FilterArgs::default(), false);

    std::fs::rename(&path, dir.path().join("evidence")).unwrap();
    assert!(look(&mut follower, &mut shower).is_empty());
    append(&path, &[stop("anew")]);
    let shown = look(&mut follower, &mut shower);
    assert!(shown[0].contains("was replaced") && shown[1] == "stop anew", "{shown:?}");

    append(&path, &[stop("last of the first")]);
    append(&dir.path().join(segment::file_name(2)), &[stop("first of the second")]);
    assert_eq!(look(&mut follower, &mut shower), ["stop last of the first", "stop first of the second"]);
}

#[test]
fn following_goes_on_whatever_becomes_of_segments_that_were_read() {
    let (dir, path) = journal();
    let name = |number| dir.path().join(segment::file_name(number));
    let pack = |number| {
        let packed = std::fs::File::create(dir.path().join(segment::packed_name(number))).unwrap();
        proxy_journal::packed::pack(
            std::io::BufReader::new(std::fs::File::open(name(number)).unwrap()),
            packed,
        )
        .unwrap();
        std::fs::remove_file(name(number)).unwrap();
    };
    let [decision, outcome] = call(1);
    append(&path, &[decision]);
    let (mut follower, mut shower) = follow(dir.path(), FilterArgs::default(), false);
    // It grew, was closed and compressed since the last look.
    append(&path, &[stop("end of the first")]);
    pack(1);
    append(&name(2), &[stop("second")]);
    pack(2);
    append(&name(3), &[outcome]);
    assert_eq!(
        look(&mut follower, &mut shower),
        ["stop end of the first", "stop second", "bot allow GET api.test/1 200 5.0ms /opt/bot[7]"]
    );
    // The daemon is down, and all is compressed.
    pack(3);
    assert!(look(&mut follower, &mut shower).is_empty());
    append(&name(4), &[stop("fourth"), stop("fourth")]);
    append(&name(5), &[stop("fifth")]);
    std::fs::remove_file(name(4)).unwrap();
    let shown = look(&mut follower, &mut shower);
    let lost = "records 5 to 6 have gone before they were shown";
    assert!(shown.len() == 2 && shown[0].contains(lost) && shown[1] == "stop fifth", "{shown:?}");
}

#[test]
fn a_call_is_found_over_two_segments_by_the_beginning_of_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let name = |number| dir.path().join(segment::file_name(number));
    let id = 0x01a2_10ed_2479_71f9_8e05_0f31_b1b0_c8cf;
    let [decision, outcome] = call(id);
    append(&name(1), &[start(), loaded(), decision]);
    append(&name(2), &[outcome, stop("SIGTERM")]);
    let story = |options: &[&str]| {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: ShowArgs,
        }
        let args = <Cli as clap::Parser>::try_parse_from(["show"].iter().chain(options)).unwrap().args;
        let mut out = Vec::new();
        show(&args, dir.path(), &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    let page = story(&["01a210ed"]).unwrap();
    for part in [
        "01a210ed-2479-71f9-8e05-0f31b1b0c8cf",
        "identity    bot",
        "decided     allow: allowed",
        "outcome     status 200 after 5.0ms",
        "policy      generation 1, loaded 2026-11-24",
        "daemon      0.1 (pid 42), started 2026-11-24",
        "stopped (SIGTERM)",
        "decision    stands in segment 1, byte ",
        "outcome     stands in segment 2, byte 0, record 4, ",
    ] {
        assert!(page.contains(part), "{part}:\n{page}");
    }
    assert_eq!(story(&["urn:uuid:01a210ed-2479-71f9-8e05-0f31b1b0c8cf"]).unwrap(), page);
    let json: serde_json::Value = serde_json::from_str(&story(&["--json", "01A210ED2479"]).unwrap()).unwrap();
    assert_eq!((&json["outcome"]["segment"], &json["decision"]["seq"]), (&2.into(), &3.into()), "{json}");
    assert_eq!(json["decision"]["hash"], json["decision"]["record"]["hash"]);
    for (wrong, told) in [("02", "has no decision 02"), ("xyz", "is no id"), ("", "is no id")] {
        let error = story(&[wrong]).unwrap_err().to_string();
        assert!(error.contains(told), "{wrong}: {error}");
    }
    append(&name(2), &call(id + 1));
    let error = story(&["01a210"]).unwrap_err().to_string();
    assert!(
        error.contains("more than one id") && error.contains("c8cf") && error.contains("c8d0"),
        "{error}"
    );
}

/// What `audit stats` with these options shows.
fn table(dir: &Path, options: &[&str]) -> String {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: StatsArgs,
    }
    let args = <Cli as clap::Parser>::try_parse_from(["stats"].iter().chain(options)).unwrap().args;
    let mut out = Vec::new();
    stats(&args, dir, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Makes everything of a segment unreadable but its last line, by which an index is known to be of it, and these lines.
fn blank(path: &Path, kept: &[&str]) {
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (last, others) = lines.split_last().unwrap();
    let blanked = |line: &&str| match kept.iter().any(|kept| line.contains(kept)) {
        true => (*line).to_owned(),
        false => format!("{}\n", "#".repeat(line.len() - 1)),
    };
    let blanked: String = others.iter().map(blanked).collect();
    std::fs::write(path, blanked + last).unwrap();
}

#[test]
fn what_stands_in_an_index_is_answered_without_its_segment_and_no_other_line_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let name = |number| dir.path().join(segment::file_name(number));
    for number in 1..=5 {
        let mut records: Vec<_> = (0..200).flat_map(|at| call(u128::from(number * 1000 + at))).collect();
        records.push(denial(u128::from(number)));
        records.push(stop("end"));
        append(&name(number), &records);
    }
    let asked = || {
        let rare = shown(dir.path(), &["--verdict", "deny", "--since", "2026-11-01"]);
        let last = shown(dir.path(), &["--verdict", "deny", "-n", "2"]);
        let paths = table(dir.path(), &["--by", "path,identity", "-n", "0"]);
        let some =
            table(dir.path(), &["--where", "path.startsWith('/3') && duration_ms > 1", "--by", "path"]);
        let counted = table(dir.path(), &["--by", "host,rule", "--verdict", "allow"]);
        (table(dir.path(), &[]), counted, rare, last, paths, some)
    };
    let before = asked();
    assert_eq!((before.2.len(), before.3.len()), (5, 2));
    assert!(before.0.contains("all") && before.0.contains("1005"), "{}", before.0);
    assert!(
        before.4.contains("/4199") && before.5.contains("/3000") && before.5.contains(" 200 "),
        "{}",
        before.5
    );
    for number in 1..=4 {
        blank(&name(number), &["\"verdict\":\"deny\""]);
    }
    assert_eq!(asked(), before);
    let indexed = shown(dir.path(), &["--verdict", "deny", "--no-index", "--since", "2026-11-01"]);
    assert_eq!(indexed.len(), 5, "the others are no records any more");
    // What no index answers reads them, and says so.
    let read = table(dir.path(), &["--by", "identity", "--no-index"]);
    assert!(!read.contains("1005"), "{read}");
}

#[test]
fn what_is_shown_of_many_segments_comes_in_order_and_is_no_more_than_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    // Every third segment has many calls, so that one is looked through long after the next.
    let sizes: Vec<u128> = (1..=20).map(|number| if number % 3 == 0 { 700 } else { number % 3 }).collect();
    let mut number = 0;
    for (segment, size) in (1..).zip(&sizes) {
        let records: Vec<Record> = (0..*size).flat_map(|it| call(number + it)).chain([stop("so")]).collect();
        number += size;
        append(&dir.path().join(segment::file_name(segment)), &records);
    }
    let calls = |options: &[&str]| -> Vec<u128> {
        let shown = shown(dir.path(), &[&["--kind", "call"], options].concat());
        shown
            .iter()
            .map(|line| line.split("api.test/").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap())
            .collect()
    };
    let all: Vec<u128> = (0..number).collect();
    assert_eq!(calls(&["--since", "2026-01-01"]), all);
    assert_eq!(calls(&["--since", "2026-01-01", "--where", "size(path) < 4"]), all[..100]);
    for lines in [0, 1, 2, 10, 257, 701, 1_500, all.len(), all.len() + 5] {
        let last = &all[all.len().saturating_sub(lines)..];
        assert_eq!(calls(&["-n", &lines.to_string()]), last, "{lines}");
        let even: Vec<u128> = all.iter().copied().filter(|number| number % 2 == 0).collect();
        let wanted = ["-n", &lines.to_string(), "--where", "path.matches('[02468]$') && status == 200"];
        assert_eq!(calls(&wanted), even[even.len().saturating_sub(lines)..], "{lines}");
    }
    // Of which the index has only the beginning: the lines are read, and decide.
    let sixteenth: Vec<u128> = all.iter().copied().filter(|number| number % 16 == 0).collect();
    assert_eq!(calls(&["-n", "99", "--where", "id.endsWith('0')"]), sixteenth[sixteenth.len() - 99..]);
    // A segment that cannot be read is said to be so, and not left out.
    let unreadable = dir.path().join(segment::file_name(6));
    std::fs::remove_file(&unreadable).unwrap();
    std::fs::create_dir(&unreadable).unwrap();
    let args = TailArgs { lines: Some(usize::MAX), ..TailArgs::default() };
    let error = tail(&args, dir.path(), &mut Vec::new()).unwrap_err();
    assert!(format!("{error:#}").contains("directory"), "{error:#}");
}

#[test]
fn calls_are_counted_by_who_called_what() {
    let dir = tempfile::tempdir().unwrap();
    let name = |number| dir.path().join(segment::file_name(number));
    let [open, ended] = call(7);
    append(&name(1), &(0..3).flat_map(call).chain([denial(100), open]).collect::<Vec<_>>());
    let mut failed = call(8);
    if let Record::Outcome(outcome) = &mut failed[1] {
        (outcome.status, outcome.duration_us) = (Some(502), 900_000);
    }
    append(&name(2), &[&failed[..], &[ended, stop("over")]].concat());
    let counted = |options: &[&str]| table(dir.path(), options);
    let json = |options: &[&str]| -> serde_json::Value {
        serde_json::from_str(&counted(&[&["--json"][..], options].concat())).unwrap()
    };
    for options in [
        &["--by", "identity"][..],
        &["--by", "identity", "--no-index"],
        &["--by", "identity", "--where", "true"],
    ] {
        let json = json(options);
        let total = &json["total"];
        assert_eq!(
            (&total["calls"], &total["denied"], &total["errors"]),
            (&6.into(), &1.into(), &1.into()),
            "{json}"
        );
        assert_eq!(json["groups"].as_array().unwrap().len(), 2);
        assert_eq!((&json["groups"][0]["identity"], &json["groups"][0]["calls"]), (&"bot".into(), &5.into()));
        let (p50, p99) = (total["p50_us"].as_u64().unwrap(), total["p99_us"].as_u64().unwrap());
        assert!((4950..=5000).contains(&p50) && (891_000..=900_000).contains(&p99), "{json}");
    }
    assert_eq!(json(&["--by", "path"])["groups"].as_array().unwrap().len(), 6);
    assert_eq!(json(&["--verdict", "deny"])["total"]["calls"], 1);
    let table = counted(&["--color", "always"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("IDENTITY") && lines[0].contains("P99"), "{table}");
    assert!(lines[1].contains("83.3% ████████████████") && lines[3].starts_with("all"), "{table}");
    assert!(counted(&["-n", "1"]).contains("1 more rows: -n 0 shows all"));
    assert!(!counted(&[]).contains(['█', '\u{1b}']));
}

#[test]
fn verify_tells_whole_broken_and_unreadable_apart_by_its_status() {
    let (dir, path) = journal();
    append(&path, &[stop("one"), stop("two"), stop("three")]);
    let (status, said) = verified(&of(dir.path()));
    assert!(status == 0 && said.contains("whole, 3 records"), "{said}");
    let head = check(&path, &Witness::default()).unwrap().head;
    assert_eq!(verified(&VerifyArgs { expect_head: Some(head.hash), expect_seq: Some(3), ..of(&path) }).0, 0);

    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"two\"", "\"TWO\"")).unwrap();
    let (status, said) = verified(&of(&path));
    assert!(status == 1 && said.contains("line 2 (byte ") && said.contains("was changed"), "{said}");

    let shorter: String = text.split_inclusive('\n').take(2).collect();
    std::fs::write(&path, shorter).unwrap();
    assert_eq!(verified(&of(&path)).0, 0, "a chain alone does not show that its end is gone");
    let (status, said) = verified(&VerifyArgs { expect_head: Some(head.hash), ..of(&path) });
    assert!(status == 1 && said.contains("the end was cut off"), "{said}");

    open(&path).write_all(b"{\"v\"").unwrap();
    let (status, said) = verified(&of(&path));
    assert!(status == 1 && said.contains("4 bytes after record 2"), "{said}");

    let (status, said) = verified(&of(&dir.path().join("nothing")));
    assert!(status == 2 && said.contains("cannot be read: No such file"), "{said}");
    let both = [path.clone(), path.clone()];
    let expecting = VerifyArgs { expect_head: Some(head.hash), ..of(&path) };
    assert!(verify(&expecting, &both, &mut Vec::new(), &mut Vec::new()).is_err());
}
