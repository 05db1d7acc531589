//! What is known of secrets besides their values: owner, labels, and the versions that there were.

use serde_json::{Value, json};
use tests::World;

use super::rotation::{MAKE, with_programs};

/// What a command prints as JSON.
#[track_caller]
fn told(world: &World, arguments: &[&str]) -> Value {
    let finished = world.vouchsafe(arguments);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

#[test]
fn owner_and_labels_of_a_secret_are_set_found_shown_and_kept_when_it_changes() {
    let world = with_programs(MAKE, "");
    let set = |arguments: &[&str]| {
        let finished = world.vouchsafe(&[&["secret", "label", "key"], arguments].concat());
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stdout
    };
    let said = set(&["team=billing", "stage=live", "--owner", "a@example.com"]);
    assert!(said.starts_with("key: owner a@example.com, labels stage=live team=billing\n"), "{said}");
    let shown = told(&world, &["secret", "show", "key", "--json"]);
    assert_eq!((&shown["version"], &shown["before"]), (&json!(1), &json!([])), "the value stays as it was");

    // The daemon has been told, and its calls go on with the same secret.
    let credential = told(&world, &["credential", "show", "token", "--json"]);
    let secret = json!({
        "source": "vault:key", "owner": "a@example.com", "labels": { "team": "billing", "stage": "live" }
    });
    assert_eq!(
        (&credential["secrets"], &credential["version"]),
        (&json!([secret]), &json!(1)),
        "{credential}"
    );
    let page = world.vouchsafe(&["credential", "show", "token"]).stdout;
    let line = "secret     vault:key: owner a@example.com, stage=live, team=billing\n";
    assert!(page.contains(line), "{page}");

    // Made anew by the daemon, and set by hand without a word on labels: kept.
    assert_eq!(world.vouchsafe(&["secret", "rotate", "key"]).code, Some(0));
    let rotated = told(&world, &["secret", "show", "key", "--json"]);
    assert_eq!((&rotated["owner"], &rotated["version"]), (&json!("a@example.com"), &json!(2)), "{rotated}");
    assert_eq!(rotated["labels"], json!({ "team": "billing", "stage": "live" }));
    world.secret("key", "key-by-hand-0123456789");
    let by_hand = told(&world, &["secret", "show", "key", "--json"]);
    assert_eq!((&by_hand["labels"], &by_hand["version"]), (&rotated["labels"], &json!(3)));
    let before: Vec<_> = by_hand["before"].as_array().unwrap().iter().map(|it| &it["version"]).collect();
    assert_eq!(before, [&json!(1), &json!(2)]);
    assert_eq!(by_hand["before"][0]["set"], shown["set"], "when it was set then");
    assert!(!by_hand.to_string().contains("key-one"), "of the versions before, only this is left");

    // Found by label, changed with the value, taken away.
    let value = std::fs::File::open(world.write("value", "other-0123456789")).unwrap();
    let mut command =
        world.vouchsafe_command(&["secret", "set", "other", "--label", "team=ops", "--owner", "ops"]);
    assert!(command.stdin(value).output().unwrap().status.success());
    let names = |labels: &[&str]| -> Vec<String> {
        let options = labels.iter().flat_map(|label| ["--label", *label]);
        let all = told(&world, &[&["secret", "list", "--json"][..], &options.collect::<Vec<_>>()].concat());
        all.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["team=ops"]), ["other"]);
    assert_eq!(names(&["team=billing", "stage=live"]), ["key"]);
    assert!(names(&["team=billing", "stage=test"]).is_empty());
    let without = names(&["team="]);
    assert!(without.contains(&"demo-key".to_owned()) && !without.contains(&"key".to_owned()), "{without:?}");
    set(&["stage=", "--owner", ""]);
    let shown = told(&world, &["secret", "show", "key", "--json"]);
    assert_eq!((&shown["labels"], &shown["owner"]), (&json!({ "team": "billing" }), &Value::Null));
    let list = world.vouchsafe(&["secret", "list"]).stdout;
    assert!(
        list.lines().any(|line| line.starts_with("key ") && line.ends_with("-      team=billing")),
        "{list}"
    );

    // What is refused leaves it as it was.
    for arguments in [&["secret", "label", "nothing", "a=b"][..], &["secret", "label", "key", "A=b"]] {
        let refused = world.vouchsafe(arguments);
        assert!(refused.code != Some(0), "{refused:?}");
    }
    let many: Vec<String> = (0..17).map(|number| format!("n{number}=x")).collect();
    let many: Vec<&str> =
        ["secret", "label", "key"].into_iter().chain(many.iter().map(String::as_str)).collect();
    let refused = world.vouchsafe(&many);
    assert!(refused.code == Some(1) && refused.stderr.contains("at most 16 labels"), "{refused:?}");
    assert_eq!(told(&world, &["secret", "show", "key", "--json"]), shown);
}
