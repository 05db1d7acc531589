//! Files that are rotated and cut off, and pipes whose readers come and go.

use std::io::{BufRead as _, BufReader, Read as _};

use super::*;

const FILE: &str = "[journal.sinks.calls]\nkind = \"file\"\npath = \"STATE/calls\"\n";

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_file_has_every_record_as_it_stands_in_the_journal_over_restarts_each_once() {
    let host = Host::new(FILE);
    for round in 1..=3 {
        let running = host.start();
        running.deny(700);
        running.recorder.begin(allow("/ok")).unwrap().complete(ok());
        running.stop();
        assert!(host.journal().len() > round * 704);
        assert!(lines(&host.path("calls")) == host.journal(), "after run {round}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(host.path("calls")).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "others do not read it: {mode:o}");
}

#[test]
fn a_sink_that_is_new_begins_with_this_run_and_with_from_start_at_the_first_record() {
    for (from, first) in [("", 8), ("from = \"start\"\n", 1)] {
        let host = Host::new("");
        let running = host.start();
        running.deny(3);
        running.stop();
        let host = host.with(&format!("{FILE}{from}"));
        let running = host.start();
        running.deny(1);
        running.stop();
        let all = lines(&host.path("calls"));
        assert_eq!(seqs(all.iter().map(String::as_str)), (first..=11).collect::<Vec<_>>());
    }
}

#[test]
fn a_file_that_logrotate_moved_is_opened_anew_and_no_record_falls_between() {
    let host = Host::new(FILE);
    let running = host.start();
    for round in 0..5 {
        running.deny(50);
        std::thread::sleep(Duration::from_millis(60));
        let _ = std::fs::rename(host.path("calls"), host.path(&format!("calls.{round}")));
    }
    running.deny(1);
    running.stop();
    let names = ["calls.0", "calls.1", "calls.2", "calls.3", "calls.4", "calls"];
    let all: Vec<String> = names.iter().flat_map(|name| lines(&host.path(name))).collect();
    assert_eq!(all, host.journal());
    assert!(names.iter().filter(|name| host.path(name).exists()).count() >= 4);
}

#[test]
fn a_half_line_of_a_kill_gets_its_end_and_its_record_comes_again() {
    let host = Host::new(FILE);
    let running = host.start();
    running.deny(3);
    running.stop();
    // The cursor and the file, as a kill may leave them: the file further, and in the middle of a line.
    let cursor = std::fs::read(host.path("sinks/calls.cursor")).unwrap();
    let running = host.start();
    running.deny(2);
    running.stop();
    std::fs::write(host.path("sinks/calls.cursor"), cursor).unwrap();
    let text = std::fs::read(host.path("calls")).unwrap();
    std::fs::write(host.path("calls"), &text[..text.len() - 30]).unwrap();
    host.start().stop();
    let all = lines(&host.path("calls"));
    let whole: Vec<&str> = all.iter().map(String::as_str).filter(|line| line.ends_with('}')).collect();
    assert_eq!(all.len(), whole.len() + 1, "one is half");
    assert!(has_all(seqs(whole), u64::try_from(host.journal().len()).unwrap()));
}

#[test]
fn a_cursor_that_is_damaged_sends_everything_again() {
    let host = Host::new(FILE);
    host.start().stop();
    std::fs::write(host.path("sinks/calls.cursor"), "{").unwrap();
    host.start().stop();
    assert_eq!(
        seqs(lines(&host.path("calls")).iter().map(String::as_str)),
        [1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7]
    );
}

#[test]
fn a_link_in_the_place_of_the_file_is_not_followed() {
    let host = Host::new(FILE);
    std::os::unix::fs::symlink(host.path("elsewhere"), host.path("calls")).unwrap();
    let running = host.start();
    eventually("it is refused", || matches!(running.health().state, SinkState::Failing(_)));
    assert!(!host.path("elsewhere").exists());
}

#[test]
fn what_retention_took_before_it_was_sent_is_counted_as_lost() {
    let host = Host::new(&FILE.replace("STATE/calls", "STATE/folder/calls"));
    std::fs::create_dir(host.path("folder")).unwrap();
    let running = host.start();
    running.deny(2);
    running.stop();
    std::fs::rename(host.path("folder"), host.path("away")).unwrap();
    let running = host.start();
    running.deny(6);
    eventually("it is behind", || running.health().behind >= 7);
    running.stop();
    // Of its 15 records, 6 are sent; the segment with the first 9 is removed.
    let (journal, text) = (host.config.journal_dir(), host.journal());
    assert_eq!(text.len(), 15);
    std::fs::write(journal.join("journal-00000002.jsonl"), text[9..].join("\n") + "\n").unwrap();
    std::fs::remove_file(journal.join("journal-00000001.jsonl")).unwrap();
    let signal = std::sync::Arc::new(crate::record::Signal::default());
    signal.reached(15);
    let around = Around { config: &host.config, own_roots: Vec::new(), uplink: None, credentials: None };
    let sinks = Plan::new(&host.config).unwrap().start(&around, &signal).unwrap();
    eventually("it is told", || sinks.health()[0].lost == 3);
    // It tries again and again, and reads it again and again.
    std::thread::sleep(Duration::from_millis(700));
    std::fs::rename(host.path("away"), host.path("folder")).unwrap();
    eventually("the rest is sent", || sinks.health()[0].sent == 6);
    assert_eq!(sinks.health()[0].lost, 3);
    let all = lines(&host.path("folder/calls"));
    assert_eq!(seqs(all.iter().map(String::as_str)), [1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15]);
}

#[test]
fn a_line_that_is_no_record_is_counted_once_and_the_rest_is_sent() {
    let host = Host::new(
        &FILE.replace("STATE/calls", "STATE/folder/calls").replace("kind", "from = \"start\"\nkind"),
    );
    let running = host.start();
    running.deny(6);
    running.stop();
    let (journal, mut text) = (host.config.journal_dir(), host.journal());
    let last = u64::try_from(text.len()).unwrap();
    text[4].replace_range(..1, "x");
    std::fs::write(journal.join("journal-00000001.jsonl"), text.join("\n") + "\n").unwrap();
    let signal = std::sync::Arc::new(crate::record::Signal::default());
    signal.reached(last);
    let around = Around { config: &host.config, own_roots: Vec::new(), uplink: None, credentials: None };
    let sinks = Plan::new(&host.config).unwrap().start(&around, &signal).unwrap();
    eventually("it is told", || sinks.health()[0].rejected == 1);
    // Its folder is not there: it tries again and again, and reads it again and again.
    std::thread::sleep(Duration::from_millis(700));
    std::fs::create_dir(host.path("folder")).unwrap();
    eventually("the rest is sent", || sinks.health()[0].sent == last - 1);
    assert_eq!(sinks.health()[0].rejected, 1);
    let all = lines(&host.path("folder/calls"));
    assert!(seqs(all.iter().map(String::as_str)).into_iter().eq((1..=last).filter(|seq| *seq != 5)));
}

fn mkfifo(host: &Host) {
    nix::unistd::mkfifo(&host.path("calls"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
}

#[test]
fn a_pipe_without_a_reader_holds_up_nothing_and_the_reader_that_comes_gets_everything() {
    let host = Host::new(FILE);
    mkfifo(&host);
    let running = host.start();
    eventually("nobody is there", || running.health().state == SinkState::Absent);
    running.deny(2000);
    assert!(running.health().behind >= 2000);
    let reader = BufReader::new(std::fs::File::open(host.path("calls")).unwrap());
    let all: Vec<String> = reader.lines().take(2002).map(Result::unwrap).collect();
    assert!(all == host.journal());
}

#[test]
fn what_a_reader_that_died_has_left_in_the_pipe_comes_to_the_next_one() {
    let host = Host::new(FILE);
    mkfifo(&host);
    let running = host.start();
    let mut first = std::fs::File::open(host.path("calls")).unwrap();
    running.deny(60);
    eventually("it is in the pipe", || running.health().sent >= 62);
    let mut some = vec![0; 10_000];
    first.read_exact(&mut some).unwrap();
    let some = String::from_utf8(some).unwrap();
    let got = seqs(some.lines().filter(|line| line.ends_with("\"}")));
    assert!(got.len() > 5 && got.len() < 50, "{got:?}");
    drop(first);
    running.deny(1);
    eventually("the reader has gone", || running.health().state == SinkState::Absent);
    let reader = BufReader::new(std::fs::File::open(host.path("calls")).unwrap());
    let rest = reader.lines().map(Result::unwrap).take_while(|line| !line.contains("\"seq\":63,"));
    let rest: Vec<String> = rest.collect();
    assert!(has_all([got, seqs(rest.iter().map(String::as_str))].concat(), 62));
}

#[test]
fn a_full_disk_stops_the_file_alone_and_nothing_is_missing_when_there_is_room() {
    let host = Host::new(FILE);
    // As much room as some lines need, and a half one.
    let disk = host.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = |options: &str| {
        let flags = nix::mount::MsFlags::empty();
        let flags = if options.contains("remount") { nix::mount::MsFlags::MS_REMOUNT } else { flags };
        let options = Some(options.trim_start_matches("remount,"));
        nix::mount::mount(Some("disk"), &disk, Some("tmpfs"), flags, options).unwrap();
    };
    mount("size=64k");
    let host = Host { config: host.config, keep: host.keep };
    let mut config = host;
    let sink = config.config.journal.sinks.get_mut("calls").unwrap();
    sink.to = crate::config::Receiver::File(disk.join("calls"));
    let running = config.start();
    running.deny(300);
    eventually("it fails", || matches!(running.health().state, SinkState::Failing(_)));
    let health = running.health();
    assert!(health.behind > 0 && health.last_error.unwrap().contains("No space left"));
    mount("remount,size=8m");
    eventually("all is sent", || running.health().behind == 0 && running.health().state == SinkState::Ok);
    running.stop();
    let all = lines(&disk.join("calls"));
    nix::mount::umount(&disk).unwrap();
    let whole = all.iter().map(String::as_str).filter(|line| line.starts_with('{') && line.ends_with("\"}"));
    assert!(has_all(seqs(whole), u64::try_from(config.journal().len()).unwrap()));
}
