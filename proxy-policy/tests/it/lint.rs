//! What `check` warns of besides errors: told where it is meant to be, and not where it is not.

use proxy_policy::{SourceFile, check, compile};

use crate::folders::{policies, read};

const PARTS: &str = "[api.git]\nhosts = [\"git.example\"]\n\
                     inject = { header = \"authorization\", value = \"Bearer {secret}\" }\n";
const CREDENTIAL: &str = "[credential.a]\nkind = \"static\"\nsecret = \"vault:a\"\n";

/// The warnings that only `check` has, without their help.
fn warnings(roles: &str, grants: &str) -> Vec<String> {
    warnings_of(&[
        SourceFile::new("apis/git.toml", PARTS),
        SourceFile::new("credentials/a.toml", CREDENTIAL),
        SourceFile::new("roles/r.toml", roles),
        SourceFile::new("policies/bot.toml", format!("[identity]\nuser = \"bot\"\n{grants}")),
    ])
}

fn warnings_of(files: &[SourceFile]) -> Vec<String> {
    let load = compile(files);
    assert!(load.set.is_some(), "{:#?}", load.diagnostics);
    let checked = check(files);
    let new = checked.diagnostics.into_iter().filter(|it| !load.diagnostics.contains(it));
    new.map(|it| format!("{}:{}:{}: {}", it.file, it.line, it.column, it.message)).collect()
}

fn grant(lines: &str) -> String {
    format!("[[grant]]\napi = \"git\"\ncredential = \"a\"\n{lines}\n")
}

#[test]
fn an_allow_that_another_one_makes_pointless_is_told_at_its_place() {
    for (grants, expected) in [
        (
            grant("allow = [\"GET /a/**\", \"GET /a/b\"]"),
            Some(
                "policies/bot.toml:6:23: \"GET /a/b\" is already allowed by \"GET /a/**\" at policies/bot.toml:6:10",
            ),
        ),
        (
            grant("allow = [\"GET /a/b\", \"GET|HEAD /a/**\"]"),
            Some(
                "policies/bot.toml:6:10: \"GET /a/b\" is already allowed by \"GET|HEAD /a/**\" at policies/bot.toml:6:22",
            ),
        ),
        (
            grant("allow = [\"* /a/**\"]") + &grant("allow = [\"GET /a/b\"]"),
            Some(
                "policies/bot.toml:10:10: \"GET /a/b\" is already allowed by \"* /a/**\" at policies/bot.toml:6:10",
            ),
        ),
        (
            grant("allow = [\"POST /**\"]") + &grant("allow = [\"grpc a.B/C\"]"),
            Some(
                "policies/bot.toml:10:10: \"grpc a.B/C\" is already allowed by \"POST /**\" at policies/bot.toml:6:10",
            ),
        ),
        // Not pointless: others, later ones, conditions, ends, upgrades.
        (grant("allow = [\"GET /a/*\", \"POST /a/b\"]"), None),
        (grant("allow = [\"GET /a/*\", \"GET /a/b/c\"]"), None),
        (grant("allow = [\"GET /a/b\"]") + &grant("allow = [\"* /a/**\"]"), None),
        (
            grant("allow = [\"* /a/**\"]\nwhen = 'request.host == \"x\"'") + &grant("allow = [\"GET /a/b\"]"),
            None,
        ),
        (grant("allow = [\"* /a/**\"]\nuntil = 2027-01-01") + &grant("allow = [\"GET /a/b\"]"), None),
        (grant("allow = [\"GET /a/**\", \"websocket /a/b\"]"), None),
    ] {
        let found = warnings("", &grants);
        assert_eq!(
            found.iter().map(String::as_str).collect::<Vec<_>>(),
            Vec::from_iter(expected),
            "{grants}"
        );
    }
}

#[test]
fn an_allow_that_a_deny_of_another_grant_leaves_nothing_of_is_told() {
    let denied = grant("allow = [\"GET /a/b\", \"GET /c\"]") + &grant("deny = [\"* /a/**\"]");
    assert_eq!(
        warnings("", &denied),
        [
            "policies/bot.toml:6:10: \"GET /a/b\" is never allowed: \"* /a/**\" at policies/bot.toml:10:9 denies all of it"
        ]
    );
    for harmless in [
        grant("allow = [\"GET /a/**\"]") + &grant("deny = [\"* /a/b\"]"),
        grant("allow = [\"GET /a/b\"]") + &grant("deny = [\"* /a/**\"]\nwhen = 'request.host == \"x\"'"),
        grant("allow = [\"GET /a/b\"]") + &grant("deny = [\"* /a/**\"]\nmode = \"observe\""),
    ] {
        assert_eq!(warnings("", &harmless), Vec::<String>::new(), "{harmless}");
    }
}

#[test]
fn a_role_is_only_told_when_all_of_it_is_pointless() {
    let roles = "[role.reader]\napi = \"git\"\ncredential = \"a\"\nallow = [\"GET /a\", \"GET /b\"]\n";
    let by_role = "[[grant]]\nrole = \"reader\"\n";
    let partly = grant("allow = [\"GET /a\"]") + by_role;
    assert_eq!(warnings(roles, &partly), Vec::<String>::new());
    let wholly = grant("allow = [\"GET /*\"]") + by_role;
    let found = warnings(roles, &wholly);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("policies/bot.toml:7:1: the role \"reader\" adds nothing here"),
        "{found:?}"
    );
    // To take something away from a role is what denies are for.
    let narrowed = by_role.to_owned() + &grant("deny = [\"* /a\"]");
    assert_eq!(warnings(roles, &narrowed), Vec::<String>::new());
    let nothing = by_role.to_owned() + &grant("deny = [\"* /**\"]");
    let found = warnings(roles, &nothing);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("policies/bot.toml:3:1: the role \"reader\" allows nothing here"),
        "{found:?}"
    );
}

#[test]
fn what_opens_everything_is_told() {
    assert_eq!(
        warnings("", &grant("allow = [\"* /**\"]")),
        ["policies/bot.toml:6:10: \"* /**\" allows everything that the credential may do"]
    );
    let conditional = grant("allow = [\"* /**\"]\nwhen = 'request.host == \"x\"'");
    assert_eq!(warnings("", &conditional), Vec::<String>::new());
    assert_eq!(warnings("", &grant("allow = [\"GET /**\"]")), Vec::<String>::new());
    let wide =
        SourceFile::new("policies/all.toml", "[identity]\nuser = \"u\"\nexe = \"/**\"\nunit = \"*\"\n");
    let found = warnings_of(&[wide]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("policies/all.toml:3:7: this \"exe\" matches everything"), "{found:?}");
}

#[test]
fn what_nothing_uses_is_told_and_what_a_library_offers_is_not() {
    let bot = SourceFile::new(
        "policies/bot.toml",
        "[identity]\nuser = \"bot\"\n[[grant]]\nrole = \"outer\"\ncredential = \"a\"\n",
    );
    let roles = SourceFile::new(
        "roles/r.toml",
        "[role.outer]\ninclude = [\"git-reader\"]\n[role.lonely]\ninclude = [\"git-writer\"]\n",
    );
    let library = SourceFile::new(
        "apis/git.toml",
        format!(
            "{PARTS}[role.git-reader]\napi = \"git\"\nallow = [\"GET /a\"]\n\
             [role.git-writer]\napi = \"git\"\nallow = [\"PUT /a\"]\n"
        ),
    );
    let other = SourceFile::new(
        "apis/other.toml",
        "[api.other]\nhosts = [\"other.example\"]\n[role.other-reader]\napi = \"other\"\nallow = [\"GET /\"]\n",
    );
    let bare = SourceFile::new("apis/bare.toml", "[api.bare]\nhosts = [\"bare.example\"]\n");
    let credentials =
        SourceFile::new("credentials/a.toml", format!("{CREDENTIAL}{}", CREDENTIAL.replace(".a]", ".b]")));
    let found = warnings_of(&[bot, roles, library.clone(), other, bare, credentials]);
    assert_eq!(
        found,
        [
            "apis/bare.toml:1:6: nothing uses the API \"bare\"",
            "apis/other.toml:3:7: nothing uses the roles of this file",
            "credentials/a.toml:4:13: nothing uses the credential \"b\"",
            "roles/r.toml:3:7: nothing uses the role \"lonely\"",
        ]
    );
    assert_eq!(warnings_of(&[library]), Vec::<String>::new(), "there is nobody who could");
}

#[test]
fn a_secret_in_a_comment_is_told_and_never_repeated() {
    let secret = format!("sk_{}_51HxyzTypedByMistake", "live");
    let text = format!("# {secret}\n[identity]\nuser = \"bot\"\ndescription = \"x\"\n")
        .replace("description", "# d");
    let files = [SourceFile::new("policies/bot.toml", text)];
    let found = warnings_of(&files);
    assert_eq!(found, ["policies/bot.toml:1:3: this looks like a Stripe key"]);
    assert!(check(&files).diagnostics.iter().all(|it| !it.to_string().contains("51Hxyz")));
}

#[test]
fn the_shipped_policies_have_nothing_to_warn_of() {
    for name in ["demo", "example", "host", "library"] {
        let checked = check(&read(&policies().join(name)));
        assert!(
            checked.set.is_some() && checked.diagnostics.is_empty(),
            "{name}: {:#?}",
            checked.diagnostics
        );
    }
}
