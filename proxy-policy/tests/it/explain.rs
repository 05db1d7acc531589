//! Why a rule does not match, what a policy means as a table, and what changes between two.

use proxy_policy::{
    Call, CallPath, ChangeKind, Effect, Moment, Plan, PolicySet, Scheme, SourceFile, Verdict, compile,
};

const FILES: [(&str, &str); 3] = [
    (
        "policies/bot.toml",
        "description = \"x\"\n[identity]\nexe = \"/opt/bot\"\nuser = \"billing\"\n\n\
         [[grant]]\nrole = \"reader\"\nwith = { owner = \"acme\" }\ncredential = \"key\"\nuntil = 2027-01-31\n\
         [[grant]]\napi = \"shop\"\nmode = \"observe\"\nallow = [\"POST /v1/orders/{id}\"]\n\
         when = '''\n  captures.id == \"7\"\n    && now < timestamp(\"2030-01-01T00:00:00Z\")'''\ncredential = \"key\"\n\
         [[grant]]\nnetwork = [\"udp resolver:53\"]\n",
    ),
    (
        "roles/reader.toml",
        "[role.reader]\nparams = [\"owner\"]\napi = \"shop\"\n\
         allow = [\"GET|HEAD /v1/${owner}/**\", \"GET /v1/${owner}/*/items\", \"GET /a/**/z\", \"websocket /v1/ws\"]\n\
         deny = [\"* /v1/*/secret/**\"]\nwhen = 'params.owner != \"evil\"'\n",
    ),
    (
        "apis/shop.toml",
        "[api.shop]\nhosts = [\"shop.test\", \"*.shop.test:8443\"]\n\
         inject = { header = \"Authorization\", value = \"Bearer {secret}\" }\nstrip = [\"x-old\"]\n\
         [api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\n\
         [credential.key]\nkind = \"static\"\nsecret = \"vault:shop/key\"\napis = [\"shop\"]\n",
    ),
];

fn set_of(files: &[(&str, String)]) -> PolicySet {
    let files: Vec<SourceFile> =
        files.iter().map(|(path, text)| SourceFile { path: (*path).into(), text: text.clone() }).collect();
    let compiled = compile(&files);
    compiled.set.unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics))
}

fn files() -> Vec<(&'static str, String)> {
    FILES.iter().map(|(path, text)| (*path, (*text).to_owned())).collect()
}

/// The set with one text of a file replaced.
fn changed(file: &str, from: &str, to: &str) -> PolicySet {
    let mut files = files();
    let text = &mut files.iter_mut().find(|(path, _)| *path == file).unwrap().1;
    assert!(text.contains(from), "{from}");
    *text = text.replace(from, to);
    set_of(&files)
}

fn before() -> Moment {
    Moment(1_800_000_000)
}

/// What came of each rule: `effect text: words`.
fn considered(set: &PolicySet, method: &str, path: &str, now: Moment) -> Vec<String> {
    let bot = set.identity_named("bot").unwrap().id;
    let api = set.api_for(Scheme::Https, "shop.test", 443).unwrap().id;
    let path = CallPath::normalize(path).unwrap();
    let call = Call::plain(api, method, &path, now);
    let considered = set.consider(bot, &call);
    considered
        .iter()
        .map(|it| {
            let effect = if it.effect == Effect::Deny { "deny" } else { "allow" };
            format!("{effect} {}: {}", it.rule.text, it.outcome)
        })
        .collect()
}

#[test]
fn of_every_rule_it_is_said_why_it_does_not_match() {
    let set = set_of(&files());
    let told = considered(&set, "GET", "/v1/other/x", before());
    assert_eq!(
        told,
        [
            "deny * /v1/*/secret/**: segment 3 of the path is \"x\", not \"secret\"",
            "allow GET|HEAD /v1/acme/**: segment 2 of the path is \"other\", not \"acme\"",
            "allow GET /v1/acme/*/items: segment 2 of the path is \"other\", not \"acme\"",
            "allow GET /a/**/z: segment 1 of the path is \"v1\", not \"a\"",
            "allow websocket /v1/ws: it is not the upgrade to a WebSocket",
            "allow POST /v1/orders/{id}: the method is \"GET\", not POST",
        ]
    );
    let at = |told: Vec<String>, n: usize| told[n].split_once(": ").unwrap().1.to_owned();
    let ask = |method, path, n| at(considered(&set, method, path, before()), n);
    assert_eq!(ask("GET", "/v1/acme/1", 2), "the path ends before segment 4 of /v1/acme/*/items");
    assert_eq!(ask("GET", "/v1/acme/1/items/2", 2), "the path goes on with segment 5, \"2\"");
    assert_eq!(ask("GET", "/a/b/c", 3), "the end of /a/b/c is not what follows ** in /a/**/z");
    assert_eq!(ask("DELETE", "/v1/acme/1", 1), "the method is \"DELETE\", not GET|HEAD");
    assert_eq!(ask("DELETE", "/v1/x/SECRET;a/1", 0), "matches, but what its condition looks at is not known");
}

#[test]
fn a_grant_that_is_over_says_so_and_its_denies_do_not_end() {
    let set = changed("roles/reader.toml", "when = 'params.owner != \"evil\"'\n", "");
    let after = Moment(1_900_000_000);
    let told = considered(&set, "GET", "/v1/acme/secret/1", after);
    assert_eq!(told[0], "deny * /v1/*/secret/**: matches");
    assert_eq!(told[1], "allow GET|HEAD /v1/acme/**: matches, but was granted until 2027-01-31");
    assert_eq!(
        considered(&set, "GET", "/v1/acme/secret/1", before())[1],
        "allow GET|HEAD /v1/acme/**: matches"
    );
}

#[test]
fn what_is_considered_agrees_with_what_is_decided() {
    // No conditions: what counts is the decision.
    let mut files = files();
    files[0].1 = files[0].1.split("[[grant]]\napi").next().unwrap().to_owned();
    files[1].1 = files[1].1.replace("when = 'params.owner != \"evil\"'\n", "");
    let set = set_of(&files);
    let bot = set.identity_named("bot").unwrap().id;
    let api = set.api_for(Scheme::Https, "shop.test", 443).unwrap().id;
    let (mut allowed, mut denied) = (0, 0);
    for method in ["GET", "HEAD", "POST", "get", "DELETE"] {
        for path in [
            "/",
            "/v1/acme",
            "/v1/ACME/x",
            "/v1/acme/secret",
            "/v1/acme/Secret/",
            "/v1/acme/x/items",
            "/a/z",
            "/a/b/z",
        ] {
            for now in [before(), Moment(1_900_000_000)] {
                let path = CallPath::normalize(path).unwrap();
                let call = Call::plain(api, method, &path, now);
                let considered = set.consider(bot, &call);
                let counts =
                    |effect| considered.iter().any(|it| it.effect == effect && it.outcome.counts(effect));
                let expected = counts(Effect::Allow) && !counts(Effect::Deny);
                let verdict = set.decide(bot, &call).verdict;
                assert_eq!(verdict == Verdict::Allow, expected, "{method} {path}");
                if expected { allowed += 1 } else { denied += 1 }
            }
        }
    }
    assert!(allowed > 5 && denied > 5);
}

const TEXT: &str = "\
identity bot
  is          exe = /opt/bot
  is          user = billing
  shop at shop.test:443 *.shop.test:8443 by role reader
    allow     GET|HEAD /v1/acme/**
    allow     GET /v1/acme/*/items
    allow     GET /a/**/z
    allow     websocket /v1/ws
    deny      * /v1/*/secret/**
    when      params.owner != \"evil\" with owner = \"acme\"
    with      key
    until     2027-01-31
  shop at shop.test:443 *.shop.test:8443
    allow     POST /v1/orders/{id}
    when      captures.id == \"7\" && now < timestamp(\"2030-01-01T00:00:00Z\")
    with      key
    mode      observe
  network     udp resolver:53

api plain
  scheme      http
  host        plain.test:80

api shop
  host        shop.test:443
  host        *.shop.test:8443
  inject      authorization: Bearer {secret}
  strip       x-old

credential key
  kind        static
  secret      vault:shop/key
  only for    shop
";

#[test]
fn a_table_says_all_that_a_policy_means_and_nothing_of_where_it_stands() {
    let table = set_of(&files()).table();
    assert_eq!(table.text(), TEXT);
    let mut reordered = files();
    reordered.reverse();
    reordered[2].1 = format!("# moved\n\n{}", reordered[2].1.replace("\"x\"", "\"another description\""));
    assert_eq!(
        set_of(&reordered).table(),
        table,
        "places, order of files, and words for people mean nothing"
    );
    let json = serde_json::to_string(&table).unwrap();
    assert_eq!(serde_json::from_str::<proxy_policy::Table>(&json).unwrap(), table);
    let markdown = table.markdown();
    assert!(markdown.contains("`GET\\|HEAD /v1/acme/**`<br>`GET /v1/acme/*/items`"), "{markdown}");
    assert!(markdown.lines().all(|line| line.is_empty() || line.starts_with("| ")), "{markdown}");
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let widths: Vec<usize> =
        markdown.split("\n\n").map(|table| columns(table.lines().next().unwrap())).collect();
    for (table, width) in markdown.split("\n\n").zip(widths) {
        assert!(table.lines().all(|line| columns(line) == width), "{table}");
    }
}

#[test]
fn every_change_of_meaning_changes_the_table() {
    let table = set_of(&files()).table();
    for (file, from, to) in [
        ("policies/bot.toml", "user = \"billing\"", "user = \"billing\"\nunit = \"a.service\""),
        ("policies/bot.toml", "description", "unmatched = \"pass\"\ndescription"),
        ("policies/bot.toml", "description", "mode = \"observe\"\ndescription"),
        ("policies/bot.toml", "2027-01-31", "2027-02-01"),
        ("policies/bot.toml", "owner = \"acme\"", "owner = \"other\""),
        ("policies/bot.toml", "mode = \"observe\"\n", ""),
        ("policies/bot.toml", "== \"7\"", "== \"8\""),
        ("policies/bot.toml", "resolver:53", "resolver:54"),
        ("roles/reader.toml", "GET|HEAD", "GET"),
        ("roles/reader.toml", "deny = [\"* ", "deny = [\"GET "),
        ("apis/shop.toml", "\"shop.test\", ", ""),
        ("apis/shop.toml", "Bearer ", "Basic "),
        ("apis/shop.toml", "x-old", "x-older"),
        ("apis/shop.toml", "vault:shop/key", "vault:other"),
        ("apis/shop.toml", "apis = [\"shop\"]", ""),
        ("policies/bot.toml", "description", "limit = \"5/min\"\ndescription"),
        ("policies/bot.toml", "until = ", "limit = [\"5/min\", \"9/day\"]\nwait = \"2s\"\nuntil = "),
        ("roles/reader.toml", "api = ", "limit = \"5 at once\"\napi = "),
        ("apis/shop.toml", "strip = ", "limit = \"5/h\"\nstrip = "),
        ("apis/shop.toml", "strip = ", "host_limit = \"5/h\"\nstrip = "),
    ] {
        let other = changed(file, from, to).table();
        assert_ne!(other, table, "{from} → {to}");
        assert_ne!(other.text(), table.text(), "{from} → {to}");
        let plan = Plan::between(&table, &other);
        assert!(!plan.is_empty(), "{from} → {to}");
    }
    assert!(Plan::between(&table, &table).is_empty());
    assert_eq!(Plan::between(&table, &table).text(), "nothing changes\n");
}

#[test]
fn limits_are_told_where_they_hold_and_with_their_wait() {
    let set = changed(
        "policies/bot.toml",
        "until = ",
        "limit = [\"5/min burst 2\", \"9/day\"]\nwait = \"2s\"\nuntil = ",
    );
    let text = set.table().text();
    assert!(
        text.contains("    limit     5/min burst 2, wait 2000 ms\n    limit     9/day, wait 2000 ms\n"),
        "{text}"
    );
    let set = changed("apis/shop.toml", "strip = ", "limit = \"5/h\"\nhost_limit = \"1/s\"\nstrip = ");
    assert!(set.table().text().contains("  limit       5/h\n  limit       each host: 1/s\n"));
    let set = changed("roles/reader.toml", "api = ", "limit = \"5 at once\"\napi = ");
    let bot = set.identity_named("bot").unwrap();
    let grant = &bot.grants[0];
    let told = set.limits_of(bot, Some("shop"), Some((grant.place.line, grant.role.as_deref())));
    assert_eq!(told, ["role: 5 at once (the grant)"]);
}

#[test]
fn a_plan_names_what_comes_and_what_goes_with_the_lines_before_and_after() {
    let before = set_of(&files()).table();
    let mut files = files();
    files[0].1 = files[0].1.replace("[[grant]]\nnetwork = [\"udp resolver:53\"]\n", "");
    files[1].1 = files[1].1.replace("\"GET /a/**/z\", ", "").replace("websocket /v1/ws", "websocket /v2/ws");
    files.push(("policies/new.toml", "[identity]\nuser = \"new\"\n".into()));
    files[2].1 = files[2].1.replace("[api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\n", "");
    let after = set_of(&files).table();
    let plan = Plan::between(&before, &after);
    let kinds: Vec<_> = plan.identities.iter().map(|it| (it.name.as_str(), it.kind)).collect();
    assert_eq!(kinds, [("bot", ChangeKind::Changed), ("new", ChangeKind::Added)]);
    assert_eq!((plan.apis[0].name.as_str(), plan.apis[0].kind), ("plain", ChangeKind::Removed));
    let bot = &plan.identities[0].more;
    assert_eq!(bot.grants_changed, ["shop by role reader"]);
    assert_eq!(bot.rules_added, ["allow shop websocket /v2/ws"]);
    assert_eq!(
        bot.rules_removed,
        ["allow network udp resolver:53", "allow shop GET /a/**/z", "allow shop websocket /v1/ws"]
    );
    let text = plan.text();
    for part in [
        "identity bot is changed\n    identity bot\n",
        "  -     allow     GET /a/**/z\n  -     allow     websocket /v1/ws\n  +     allow     websocket /v2/ws\n",
        "  -   network     udp resolver:53\n",
        "identity new is added\n  + identity new\n  +   is          user = new\n",
        "API plain is removed\n  - api plain\n",
        "changes: 2 identities, 1 API, 0 credentials; 1 rule more, 3 rules less\n",
    ] {
        assert!(text.contains(part), "{part}\nin\n{text}");
    }
    let back = Plan::between(&after, &before);
    assert_eq!(back.identities[0].more.rules_added, bot.rules_removed);
}

#[test]
fn time_can_change_an_answer_when_a_grant_ends_or_a_condition_looks_at_the_clock() {
    let set = set_of(&files());
    let bot = set.identity_named("bot").unwrap().id;
    let api = |name: &str| set.apis().find(|api| api.name == name).unwrap().id;
    assert_eq!(
        set.next_change(bot, api("shop"), before()),
        Some(Moment(before().0 + 1)),
        "a condition has now"
    );
    assert_eq!(set.next_change(bot, api("plain"), before()), None);
    let set = changed("policies/bot.toml", "\n    && now < timestamp(\"2030-01-01T00:00:00Z\")", "");
    assert_eq!(set.next_change(bot, api("shop"), before()), Some(Moment(1_801_440_000)));
    assert_eq!(set.next_change(bot, api("shop"), Moment(1_801_440_000)), None, "it is over");
}
