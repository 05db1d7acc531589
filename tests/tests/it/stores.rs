//! Trust stores through the real command, the distribution's own tools and unmodified clients.

mod kinds;
mod layouts;
mod machine;
mod trouble;

use machine::{Authority, Machine, same};

const FOLDERS: &str = "/etc /usr/local/share";

/// Each client, and what it prints when it trusts the server.
const CLIENTS: [(&str, &str); 6] = [
    ("curl", "curl -sS -o /dev/null -w '%{http_code}' https://api.demo.test/"),
    ("wget", "wget -q -O /dev/null https://api.demo.test/ && echo 200"),
    (
        "openssl",
        "openssl s_client -verify_return_error -connect api.demo.test:443 </dev/null >/dev/null && echo 200",
    ),
    (
        "the system's Python",
        "/usr/bin/python3 -c 'import urllib.request; print(urllib.request.urlopen(\"https://api.demo.test/\").status)'",
    ),
    (
        "Perl",
        "perl -MIO::Socket::SSL -e 'IO::Socket::SSL->new(\"api.demo.test:443\") or die $IO::Socket::SSL::SSL_ERROR; print 200'",
    ),
    ("Java", "java /run/Call.java"),
];

const JAVA: &str = "public class Call { public static void main(String[] a) throws Exception {
    var url = new java.net.URL(\"https://api.demo.test/\");
    System.out.println(((java.net.HttpURLConnection) url.openConnection()).getResponseCode()); } }";

const NODE: &str = "node -e 'require(\"https\").get(\"https://api.demo.test/\", answer => { console.log(answer.statusCode); \
                    process.exit() }).on(\"error\", error => { console.log(error.code); process.exit() })'";

#[test]
fn real_clients_trust_what_was_installed_and_nothing_is_left_of_it_when_it_is_removed() {
    let machine = Machine::new();
    let (old, new) = (Authority::new("Vouchsafe CA test"), Authority::new("Vouchsafe CA test"));
    machine.roots(&[&old]);
    machine.shell(&format!("cat >/run/Call.java <<'END'\n{JAVA}\nEND")).well();
    let machine_tree = machine.tree(FOLDERS);
    let java = machine.aliases("/etc/ssl/certs/java/cacerts");

    let said = machine.run("install --dry-run").well();
    assert!(said.contains("write   /usr/local/share/ca-certificates/vouchsafe-"), "{said}");
    assert!(said.contains("run     /usr/sbin/update-ca-certificates\n"), "{said}");
    same(&machine.tree(FOLDERS), &machine_tree, "a dry run changes nothing");
    assert!(!machine.at("state/trust").exists());

    let done = machine.run("install").well();
    let steps = |text: &str| {
        text.lines().filter(|line| line.starts_with("  ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(steps(&done), steps(&said), "what is done is what was said");
    let again = machine.run("install").well();
    assert!(again.ends_with("\nnothing to change\n"), "{again}");
    machine.run("status").well();

    let server = machine.serve(&old);
    for (client, script) in CLIENTS {
        let ended = machine.shell(script);
        assert_eq!(ended.out.trim(), "200", "{client}: {}", ended.err);
    }
    let ended = machine.shell(NODE);
    assert_ne!(ended.out.trim(), "200", "Node asks neither the system nor us");
    let ended = machine.shell(&format!("eval \"$({} trust env)\"; {NODE}", tests::daemon_binary().display()));
    assert_eq!(ended.out.trim(), "200", "{}", ended.err);
    drop(server);

    // A new generation, and then the old one ends.
    machine.roots(&[&new, &old]);
    let status = machine.run("status");
    assert_eq!(status.code, Some(1), "{}", status.out);
    assert!(
        status.out.contains("outdated") && status.out.contains("vouchsafe trust refresh"),
        "{}",
        status.out
    );
    machine.run("refresh").well();
    assert_eq!(machine::certificates(&machine.at("up/etc/vouchsafe/trust/roots.pem")), 2);
    machine.roots(&[&new]);
    machine.run("refresh").well();
    machine.run("status").well();
    assert_eq!(
        machine.run("refresh --quiet").well(),
        "",
        "a second refresh changes nothing and says nothing"
    );
    let curl = CLIENTS[0].1;
    {
        let _server = machine.serve(&new);
        assert_eq!(machine.shell(curl).out.trim(), "200");
    }
    {
        let _server = machine.serve(&old);
        assert_eq!(machine.shell(curl).out.trim(), "000", "a root that has ended is trusted no more");
    }
    let java_now = machine.aliases("/etc/ssl/certs/java/cacerts");
    assert_eq!(java_now.matches("vouchsafe-").count(), 1, "{java_now}");

    machine.run("remove").well();
    same(&machine.tree(FOLDERS), &machine_tree, "removed without a trace");
    assert_eq!(machine.aliases("/etc/ssl/certs/java/cacerts"), java);
    let status = machine.run("status");
    assert_eq!(status.code, Some(1));
    assert!(status.out.contains("not installed"), "{}", status.out);
    assert!(machine.run("remove").well().ends_with("nothing to change\n"));
}

#[test]
fn a_root_that_has_ended_is_put_nowhere_and_a_package_that_made_the_store_anew_is_answered() {
    let machine = Machine::new();
    let yesterday = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    let (living, ended) =
        (Authority::new("Vouchsafe CA test"), Authority::until("Vouchsafe CA test", yesterday));
    machine.roots(&[&living, &ended]);
    machine.run("install").well();
    assert_eq!(machine::certificates(&machine.at("up/etc/vouchsafe/trust/roots.pem")), 1);

    // A package puts its own bundle there, with a root more.
    let other = Authority::new("Another CA");
    std::fs::write(machine.at("other.pem"), &other.pem).unwrap();
    machine
        .shell(&format!(
            "cat /usr/share/ca-certificates/mozilla/*.crt {} >/etc/ssl/certs/ca-certificates.crt",
            machine.at("other.pem").display()
        ))
        .well();
    let status = machine.run("status");
    assert!(
        status.code == Some(1) && status.out.contains("run /usr/sbin/update-ca-certificates"),
        "{}",
        status.out
    );
    // The copies follow the system's roots: with the root while it is there, and without it when the tool drops it.
    machine.run("refresh").well();
    machine.run("status").well();
    let bundle = std::fs::read_to_string(machine.at("up/etc/vouchsafe/trust/bundle.pem")).unwrap();
    assert!(bundle.contains(&living.pem) && !bundle.contains(&other.pem) && !bundle.contains(&ended.pem));
    std::fs::copy(machine.at("other.pem"), machine.at("other.crt")).unwrap();
    machine
        .shell(&format!(
            "cp {} /usr/local/share/ca-certificates/ && update-ca-certificates",
            machine.at("other.crt").display()
        ))
        .well();
    machine.run("refresh").well();
    let bundle = std::fs::read_to_string(machine.at("up/etc/vouchsafe/trust/bundle.pem")).unwrap();
    assert!(bundle.contains(&living.pem) && bundle.contains(&other.pem));
    // The manifest is lost: what is ours is found by its name, and theirs stays.
    std::fs::remove_dir_all(machine.at("state/trust")).unwrap();
    machine.run("remove").well();
    let left = machine
        .shell("ls /usr/local/share/ca-certificates; ls /etc/vouchsafe/trust; ls /etc/ssl/certs | grep vouch")
        .out;
    assert!(left.contains("other.crt") && !left.contains("vouchsafe") && !left.contains("pem"), "{left}");
}
