//! Syslog, with a real rsyslog that is not there, killed, slow, and somebody else.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::*;

/// A port that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An rsyslog of its own, which writes each message as JSON.
struct Rsyslog {
    child: Option<Child>,
    dir: PathBuf,
}

impl Rsyslog {
    /// With these parameters of its module and of its input.
    fn new(host: &Host, module: &str, input: &str) -> Rsyslog {
        let dir = host.path("rsyslog");
        std::fs::create_dir(&dir).unwrap();
        let at = dir.display();
        let fields = ["msg", "pri", "msgid", "app-name", "hostname", "structured-data", "protocol-version"];
        let fields: String = fields
            .iter()
            .map(|name| format!("  property(outname=\"{name}\" name=\"{name}\" format=\"jsonf\")\n"))
            .collect();
        let text = format!(
            "global(workDirectory=\"{at}\" maxMessageSize=\"64k\" {module})\n\
             module(load=\"imtcp\")\ninput(type=\"imtcp\" {input})\n\
             template(name=\"all\" type=\"list\" option.jsonf=\"on\") {{\n{fields}}}\n\
             action(type=\"omfile\" file=\"{at}/out\" template=\"all\")\n"
        );
        std::fs::write(dir.join("conf"), text).unwrap();
        Rsyslog { child: None, dir }
    }

    fn start(&mut self) {
        let log = std::fs::File::options().append(true).create(true).open(self.dir.join("log")).unwrap();
        let child = Command::new("/usr/sbin/rsyslogd")
            .args(["-n", "-f"])
            .arg(self.dir.join("conf"))
            .arg("-i")
            .arg(self.dir.join("pid"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("this test needs rsyslog"));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The messages that it wrote, as far as they are whole.
    fn messages(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.join("out")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn seqs(&self) -> Vec<u64> {
        let all = self.messages();
        // rsyslog keeps the blank before the message.
        seqs(all.iter().map(|message| message["msg"].as_str().unwrap().trim_start()))
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tcp(port: u16) -> Host {
    Host::new(&format!("[journal.sinks.siem]\nkind = \"syslog\"\naddress = \"tcp://127.0.0.1:{port}\"\n"))
}

#[test]
fn rsyslog_gets_each_record_as_one_message_that_its_own_text_cannot_forge() {
    let port = free_port();
    let host = tcp(port);
    let mut rsyslog = Rsyslog::new(&host, "", &format!("port=\"{port}\" address=\"127.0.0.1\""));
    rsyslog.start();
    let running = host.start();
    let mut hostile = deny("/a\"] [evil@1 verdict=\"allow\"]\n<34>1 - - - - - - forged\n12 <34>1 x\u{0}");
    hostile.reason = "]\"\\ \u{2028}".into();
    let id = running.recorder.refused(hostile).unwrap();
    running.recorder.begin(allow("/v1/invoices")).unwrap().complete(ok());
    running.recorder.note(refusals_without_record(Some("other-bot"))).unwrap();
    eventually("all is there", || rsyslog.messages().len() == 6);
    running.stop();
    eventually("the end is there", || rsyslog.messages().len() == 8);
    let all = rsyslog.messages();
    let lines: Vec<&str> = all.iter().map(|message| message["msg"].as_str().unwrap().trim_start()).collect();
    assert_eq!(lines, host.journal());
    let denied = &all[2];
    assert_eq!(
        (&denied["pri"], &denied["msgid"], &denied["app-name"]),
        (&"84".into(), &"decision".into(), &"vouchsafe".into())
    );
    let data = denied["structured-data"].as_str().unwrap();
    assert!(
        data.starts_with("[vouchsafe@32473 seq=\"3\" hash=\"") && data.contains(&format!("call=\"{id}\"")),
        "{data}"
    );
    assert!(data.contains(" verdict=\"deny\" ") && !data.contains(['\n', '\0']), "{data}");
    let ended = all[4]["structured-data"].as_str().unwrap();
    assert!(ended.contains("identity=\"invoice-bot\"") && ended.contains("status=\"200\""), "{ended}");
    let bound = |it: &&serde_json::Value| it["msgid"] == "bound";
    let bound = all.iter().find(bound).unwrap()["structured-data"].as_str().unwrap();
    assert!(bound.contains("identity=\"other-bot\""), "{bound}");
    assert!(all.iter().all(|message| message["protocol-version"] == "1"));
}

#[test]
fn no_record_is_missing_from_an_rsyslog_that_was_not_there_and_was_killed_again_and_again() {
    let port = free_port();
    let host = tcp(port);
    let mut rsyslog = Rsyslog::new(&host, "", &format!("port=\"{port}\" address=\"127.0.0.1\""));
    let mut running = host.start();
    running.deny(100);
    eventually("it is not there", || matches!(running.health().state, SinkState::Failing(_)));
    for round in 0..4 {
        rsyslog.start();
        let before = rsyslog.messages().len();
        eventually("some came", || {
            running.deny(200);
            rsyslog.messages().len() > before + 300
        });
        // In the middle of it.
        running.deny(500);
        rsyslog.kill();
        running.deny(50);
        if round == 2 {
            // And the daemon is started anew meanwhile.
            running.stop();
            running = host.start();
        }
    }
    rsyslog.start();
    running.deny(1);
    let last = running.recorder.health().head.seq;
    eventually("all is there", || rsyslog.seqs().contains(&last));
    assert!(has_all(rsyslog.seqs(), last));
}

#[test]
fn after_a_stop_that_the_server_answered_nothing_comes_twice() {
    let port = free_port();
    let host = tcp(port);
    let mut rsyslog = Rsyslog::new(&host, "", &format!("port=\"{port}\" address=\"127.0.0.1\""));
    rsyslog.start();
    for round in 1..=3 {
        let running = host.start();
        running.deny(3);
        // Connected, and not held back for long enough to be sure without an answer.
        let sent = u64::try_from(host.journal().len()).unwrap();
        eventually("they came", || rsyslog.seqs().contains(&sent));
        running.stop();
        let last = u64::try_from(host.journal().len()).unwrap();
        eventually("all is there", || rsyslog.seqs().contains(&last));
        assert_eq!(rsyslog.seqs(), (1..=last).collect::<Vec<_>>(), "after run {round}");
    }
}

#[test]
fn a_receiver_that_does_not_read_holds_up_no_call_and_nothing_counts_as_sent_that_it_did_not_get() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = tcp(listener.local_addr().unwrap().port());
    let running = host.start();
    let (mut silent, _) = listener.accept().unwrap();
    running.deny(1);
    let begun = Instant::now();
    running.deny(20_000);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    std::thread::sleep(Duration::from_secs(6));
    let health = running.health();
    // At the most what came before its room was half full.
    assert!(health.behind > 19_900, "{health:?}");
    // It goes away without having read: everything comes again.
    let mut some = vec![0; 4096];
    silent.read_exact(&mut some).unwrap();
    drop(silent);
    let (mut reads, _) = listener.accept().unwrap();
    reads.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut text, mut chunk) = (Vec::new(), vec![0; 1 << 20]);
    let last = b"\"seq\":20003,";
    while !text.windows(last.len()).rev().take(4096).any(|at| at == last) {
        let count = reads.read(&mut chunk).unwrap();
        text.extend_from_slice(&chunk[..count]);
    }
    assert!(has_all(
        seqs(frames(&text).iter().map(|frame| &frame[frame.find("] {").unwrap() + 2..])),
        20_003
    ));
}

/// Takes a stream apart as RFC 6587 says.
fn frames(mut text: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while !text.is_empty() {
        let blank = text.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&text[..blank]).unwrap().parse().unwrap();
        let Some(frame) = text.get(blank + 1..blank + 1 + length) else { break };
        frames.push(String::from_utf8(frame.to_vec()).unwrap());
        text = &text[blank + 1 + length..];
    }
    frames
}

/// A CA, and what it signed for a name.
struct Pki {
    ca: String,
    certificate: String,
    key: String,
}

fn pki(name: &str) -> Pki {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.distinguished_name.push(rcgen::DnType::CommonName, "syslog test CA");
    let ca = root.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(root, key);
    let own = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = leaf.signed_by(&own, &issuer).unwrap().pem();
    Pki { ca, certificate, key: own.serialize_pem() }
}

#[test]
fn rsyslog_over_tls_is_sent_to_when_it_proves_its_name_and_nobody_else_is() {
    let port = free_port();
    let name = "siem.corp.example";
    let sink = format!(
        "[journal.sinks.siem]\nkind = \"syslog\"\naddress = \"tls://127.0.0.1:{port}\"\nname = \"{name}\"\nroots = [\"STATE/ca.pem\"]\n"
    );
    let host = Host::new(&sink);
    let (known, other_name, other_ca) = (pki(name), pki("other.corp.example"), pki(name));
    std::fs::write(host.path("ca.pem"), format!("{}{}", known.ca, other_name.ca)).unwrap();
    let at = host.path("").display().to_string();
    let files = format!(
        "defaultNetstreamDriverCAFile=\"{at}/own.pem\" defaultNetstreamDriverCertFile=\"{at}/cert.pem\" defaultNetstreamDriverKeyFile=\"{at}/key.pem\""
    );
    let input = format!(
        "port=\"{port}\" address=\"127.0.0.1\" StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\""
    );
    let mut rsyslog = Rsyslog::new(&host, &files, &input);
    let show = |pki: &Pki| {
        for (name, text) in [("own.pem", &pki.ca), ("cert.pem", &pki.certificate), ("key.pem", &pki.key)] {
            std::fs::write(host.path(name), text).unwrap();
        }
    };
    let running = host.start();
    running.deny(3);
    for (impostor, why) in
        [(&other_name, "certificate for another name"), (&other_ca, "an unknown authority")]
    {
        show(impostor);
        rsyslog.start();
        let last = || running.health().last_error.unwrap_or_default();
        eventually(why, || {
            let text = last();
            text.contains("TLS")
                && (text.contains("NotValidForName") || text.contains("not valid for name"))
                    == why.contains("name")
                && text.contains("certificate")
        });
        std::thread::sleep(Duration::from_millis(300));
        assert!(rsyslog.messages().is_empty() && running.health().sent == 0, "{}", last());
        rsyslog.kill();
    }
    show(&known);
    rsyslog.start();
    eventually("all is there", || has_all(rsyslog.seqs(), 5));
    running.stop();
    eventually("the end is there", || has_all(rsyslog.seqs(), 7));
}
