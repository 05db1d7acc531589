//! What conditions say of calls, what is refused at the load, and that an evaluation has a bound.

use std::time::Instant;

use super::*;
use crate::decide::CallKind;
use crate::model::ApiId;
use crate::path::CallPath;
use crate::until::Moment;

fn parse(text: &str) -> Result<Condition, (usize, Problem)> {
    Condition::parse(text, &["owner".to_owned()])
}

/// What a condition says of a POST to `/v1/a b` of `api.example` by `bot`.
fn ask_with(text: &str, query: Option<&str>, body: BodyState<'_>) -> Result<bool, Unknown> {
    let condition = parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let headers = [("x-env".to_owned(), "prod".to_owned()), ("x-n".to_owned(), "a, b".to_owned())];
    let workload = Source { pid: 7, uid: 1000, gid: 100, unit: Some("bot.service"), ..Source::default() };
    let facts = Facts { host: "api.example", query, headers: &headers, workload, body };
    let path = CallPath::normalize("/v1/a%20b").unwrap();
    // 2027-01-01T10:30:00Z, a Friday.
    let now = Moment(1_798_799_400);
    let call = Call {
        api: ApiId(0),
        method: "POST",
        path: &path,
        kind: CallKind::Plain,
        now,
        facts: Some(&facts),
        memory: crate::Memory::None,
        observing: false,
    };
    let params = Arguments::from([("owner".to_owned(), "acme".to_owned())]);
    let captures = vec![("name", "a b".to_owned())];
    condition.holds(&Case { call: &call, identity: "bot", captures, params: &params, body_limit: 1000 })
}

fn ask(text: &str) -> Result<bool, Unknown> {
    ask_with(text, Some("state=open&tag=a&tag=b"), BodyState::NotRead)
}

#[test]
fn a_condition_looks_at_the_request_the_workload_the_role_and_the_time() {
    for text in [
        r#"request.method == "POST" && request.host == "api.example" && request.path == "/v1/a%20b""#,
        r#"request.headers["x-env"] == "prod" && request.headers["x-n"] == "a, b""#,
        r#"request.headers["x-env"] in ["prod", "stage"]"#,
        r#""x-env" in request.headers && !("x-other" in request.headers)"#,
        r#"has(request.headers.host) == false && request.headers.exists(name, name == "x-n")"#,
        r#"request.query.state == ["open"] && request.query["tag"] == ["a", "b"]"#,
        r#"request.query.tag.all(it, it in ["a", "b"]) && request.query.tag.exists(it, it == "b")"#,
        r#"request.query.tag.filter(it, it == "b").size() == 1"#,
        r#"request.query.tag.exists_one(it, it == "b")"#,
        r#"captures.name == "a b" && captures["name"].startsWith("a")"#,
        r#"params.owner == "acme""#,
        r#"workload.uid == 1000 && workload.gid == 100 && workload.pid > 1 && workload.unit == "bot.service""#,
        r#"!has(workload.cgroup)"#,
        r#"identity == "bot""#,
        r#"now < timestamp("2027-01-02T00:00:00Z") && now.getHours() >= 9 && now.getHours() < 18"#,
        r#"now.getDayOfWeek() == 5 && now - duration("1h") < now"#,
        r#"request.path.matches("^/v1/[a-z]") && !request.path.matches("^/v2")"#,
        r#"size(request.host) == 11 && request.host.endsWith(".example")"#,
        r#"(1 + 2) * 3 == 9"#,
    ] {
        assert_eq!(ask(text), Ok(true), "{text}");
    }
    assert_eq!(ask(r#"request.headers["x-env"] == "stage""#), Ok(false));
}

#[test]
fn what_cannot_be_decided_is_a_fault_and_not_an_answer() {
    for (text, fault) in [
        (r#"request.headers["x-other"] == "a""#, Fault::Missing),
        (r#"request.headers["x-other"] != "a""#, Fault::Missing),
        (r#"workload.cgroup == "/""#, Fault::Missing),
        (r#"request.query.tag[5] == "a""#, Fault::Missing),
        ("1 / 0 == 1", Fault::Failed),
        ("9223372036854775807 + 1 > 0", Fault::Failed),
    ] {
        assert_eq!(ask(text), Err(Unknown::Fault(fault)), "{text}");
    }
    let query = ask_with(r#"request.query.a == ["1"]"#, Some("a=1;b=2"), BodyState::NotRead);
    assert_eq!(query, Err(Unknown::Fault(Fault::Query)));
}

#[test]
fn a_body_is_looked_at_when_it_is_json_within_the_limit() {
    let json = |text: &str| Body::parse(text.as_bytes()).unwrap();
    let small = json(
        r#"{"amount": 99, "currency": "eur", "lines": [{"price": 1.5}, {"price": 2}], "big": 18446744073709551615}"#,
    );
    for text in [
        "body.amount < 100",
        r#"body.currency == "eur" && has(body.amount) && !has(body.other)"#,
        "body.lines.all(line, line.price <= 2)",
        "body.lines.size() == 2 && body.lines[0].price == 1.5",
        "int(body.amount) + 1 == 100",
        "body.big > 5",
    ] {
        assert_eq!(ask_with(text, None, BodyState::Json(&small)), Ok(true), "{text}");
    }
    let ask = |text, body| ask_with(text, None, body);
    assert_eq!(ask("body.amount < 100", BodyState::NotRead), Err(Unknown::Body));
    assert_eq!(ask("body.other == 1", BodyState::Json(&small)), Err(Unknown::Fault(Fault::Missing)));
    assert_eq!(ask("body.currency < 100", BodyState::Json(&small)), Err(Unknown::Fault(Fault::Type)));
    assert_eq!(ask("body.amount", BodyState::Json(&small)), Err(Unknown::Fault(Fault::Type)));
    let large = json(&format!("{{\"amount\": 1, \"x\": \"{}\"}}", "x".repeat(1000)));
    let fault = Fault::Body(BodyFault::TooLarge { limit: 1000 });
    assert_eq!(ask("body.amount < 100", BodyState::Json(&large)), Err(Unknown::Fault(fault)));
    let fault = BodyFault::NotJson;
    assert_eq!(ask("body.amount < 100", BodyState::Fault(fault)), Err(Unknown::Fault(Fault::Body(fault))));
}

#[test]
fn what_is_wrong_with_a_condition_is_found_at_the_load_and_has_its_place() {
    for (text, at, says) in [
        ("", 0, "not CEL"),
        ("1 ==", 4, "not CEL"),
        ("request.method = \"GET\"", 15, "not CEL"),
        ("\"prod\"", 0, "is a string"),
        ("request.headers", 7, "is a map"),
        ("has(request.method)", 3, "always there"),
        ("request == body", 0, "as a whole"),
        ("request[\"method\"] == \"GET\"", 0, "as a whole"),
        ("reqest.method == \"GET\"", 0, "did you mean \"request\""),
        ("true && request.metod == \"GET\"", 15, "did you mean \"method\""),
        ("request.host == \"éé\" && reqest.host == \"\"", 26, "did you mean \"request\""),
        ("workload.user == \"x\"", 8, "no field \"user\""),
        ("params.ownr == \"x\"", 6, "did you mean \"owner\""),
        ("request.method == 1", 15, "never equal"),
        ("workload.uid == \"1000\"", 13, "never equal"),
        ("request.method < 1", 15, "cannot be compared"),
        ("request.query.state == \"open\"", 20, "never equal"),
        ("request.method && true", 15, "where true or false is needed"),
        ("!request.method", 0, "where true or false is needed"),
        ("request.method in [1, 2]", 15, "never in this list"),
        ("request.host.startWith(\"a\")", 22, "did you mean \"startsWith\""),
        ("request.host.startsWith(1)", 23, "is not for a string"),
        ("request.host.matches(request.path)", 20, "needs a constant"),
        ("request.host.matches(\"(\")", 20, "no regular expression"),
        ("request.host.matches(\"a{1000}{1000}\")", 20, "no regular expression"),
        ("request.host + \"x\" == \"y\"", 13, "cannot be calculated"),
        ("body.a + body.b == \"y\"", 7, "must be a number"),
        ("body.a.all(x, body.b.all(y, x == y))", 24, "a loop stands in another"),
        ("{\"a\": 1} == body", 0, "does not make maps"),
        ("request.host.foo == \"x\"", 12, "has no field"),
    ] {
        let (place, problem) = parse(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
        assert!(problem.message.contains(says) || problem.help.contains(says), "{text}: {problem:?}");
        assert_eq!(place, at, "{text}: {problem:?}");
    }
    assert!(parse(&format!("identity == \"{}\"", "x".repeat(MAX_TEXT))).is_err());
    assert!(parse(&format!("{}true{}", "(".repeat(200), ")".repeat(200))).is_err());
    let loops = ["body.a.all(x, x == 1)"; 5].join(" && ");
    assert!(parse(&loops).unwrap_err().1.message.contains("loops"));
    for deep in ["!".repeat(200), "-".repeat(200), "[".repeat(200), "body.a".to_owned() + &".a".repeat(200)] {
        assert!(parse(&deep).unwrap_err().1.message.contains("nested more than"), "{deep}");
    }
    // The largest that are read: neither the parser nor the evaluation goes too deep for the stack of a thread.
    for large in [
        format!("{}true", "!".repeat(30)),
        format!("{}true{}", "(".repeat(12), ")".repeat(12)),
        format!("1{} == 29", " + 1".repeat(28)),
        format!("{}true", "true ? true : ".repeat(30)),
        format!("true{}", " && true".repeat(70)),
        format!("[{}1].size() == 1", "[1].size(),".repeat(40)),
    ] {
        let condition = parse(&large);
        assert!(condition.is_ok(), "{large}: {condition:?}");
        let _ = ask(&large);
    }
    for deep in [
        format!("1{} == 141", " + 1".repeat(140)),
        format!("{}true", "true ? true : ".repeat(60)),
        format!("body{} == 1", ".a".repeat(140)),
    ] {
        assert!(parse(&deep).unwrap_err().1.message.contains("deep"), "{deep}");
    }
    for slow in [
        "body.list.all(x, body.s.contains(\"a\"))",
        "body.list.all(x, x.contains(body.s))",
        "body.list.all(x, x in body.list)",
        "body.list.all(x, body.list == body.other)",
        "body.list.all(x, size(body.s) == 1)",
        "body.list.all(x, body.s.size() == 1)",
    ] {
        assert!(parse(slow).unwrap_err().1.message.contains("outside of it in every round"), "{slow}");
    }
    for quick in [
        "body.list.all(x, x.y.contains(\"a\") && x.z[0].matches(\"b\"))",
        "body.list.all(x, x in [\"a\", \"b\"] && x.y == body.y && 5 in x.numbers)",
        "body.list.all(x, x.price * 2 < int(body.price) && x.name.size() < 5)",
    ] {
        assert!(parse(quick).is_ok(), "{quick}: {:?}", parse(quick));
    }
}

#[test]
fn the_worst_body_for_the_worst_condition_is_decided_in_bounded_time() {
    // As many values as may be, as long as may be.
    let numbers = vec!["\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""; 4000].join(",");
    let body = Body::parse(format!("{{\"list\": [{numbers}]}}").as_bytes()).unwrap();
    let one =
        r#"body.list.all(x, !x.contains("aab") && !x.contains("ab") && !x.matches("(a|b)+c") && x != "y")"#;
    let text = [one; 4].join(" && ");
    let condition = parse(&text).unwrap_or_else(|error| panic!("{error:?}"));
    let facts = Facts {
        host: "h",
        query: None,
        headers: &[],
        workload: Source::default(),
        body: BodyState::Json(&body),
    };
    let path = CallPath::normalize("/").unwrap();
    let call = Call { facts: Some(&facts), ..Call::plain(ApiId(0), "GET", &path, Moment(0)) };
    let started = Instant::now();
    let params = Arguments::new();
    let case =
        Case { call: &call, identity: "bot", captures: Vec::new(), params: &params, body_limit: 1 << 20 };
    assert_eq!(condition.holds(&case), Ok(true));
    // Not optimized, on a busy machine: the bound is that it ends at all, in a moment.
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    eprintln!("worst condition: {:?}", started.elapsed());
}
