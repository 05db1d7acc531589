//! The JSON Schema (draft 2020-12) of policy files, by which editors complete and check them.
//!
//! It describes the shape of one file: its keys, their types, and the spelling of values. What files say of each other
//! (names, roles, hosts) only [`crate::compile`] knows.

/// The schema, as JSON.
pub const SCHEMA: &str = include_str!("../schema/policy.json");

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

    use serde_json::Value;

    use super::*;
    use crate::read::known_keys;
    use crate::source::SourceFile;

    /// A file with every table and every key that a person may write.
    const WHOLE: &str = r#"
        [identity]
        exe = "/opt/bot"
        [[grant]]
        role = "r"
        with = { a = "b" }
        [[grant]]
        network = ["any"]
        [[grant]]
        api = "a"
        intercept = false
        [role.r]
        params = ["a"]
        include = [{ role = "q" }, "s"]
        [api.a]
        hosts = ["a.test"]
        inject = { header = "x", value = "{secret}" }
        addresses = ["public", "private", "loopback", "link-local", "cgnat", "10.0.0.0/8", "fd00::/8", "192.0.2.1"]
        keep = ["x-auth-token", "?api_key"]
        mask = "all"
        token_endpoint = { paths = ["/oauth2/token", "/*/oauth2/v2.0/token"], expires_in = "30m" }
        [api.basic]
        hosts = ["b.test"]
        inject = { basic = "me:{secret}" }
        [api.query]
        hosts = ["c.test"]
        inject = { query = "key", value = "v1.{secret}" }
        [api.cookie]
        hosts = ["d.test"]
        inject = { cookie = "sid" }
        [api.placeholder]
        hosts = ["e.test"]
        inject = { placeholder = "vouchsafe-e", in = ["path", "body"] }
        [credential.static]
        kind = "static"
        secret = "vault:c"
        [credential.jwt]
        kind = "jwt"
        key = "vault:k"
        algorithm = "EdDSA"
        issuer = "https://{host}/"
        audience = ["https://a.test", "{api}"]
        claims = { scope = ["a", "{workload.unit}"], level = 1, human = false, uid = "{workload.uid}" }
        ttl = "60s"
        per = "call"
        [credential.mtls]
        kind = "mtls"
        certificate = "hashicorp:secret/partner/bundle#certificate"
        key = "exec:partner-key"
        [credential.github-app]
        kind = "github-app"
        app_id = 1
        private_key = "vault:app"
        installation_id = 2
        repositories = ["site"]
        permissions = { contents = "read" }
        [credential.oauth2]
        kind = "oauth2"
        token_url = "https://login.test/token"
        grant = "jwt_bearer"
        client_id = "bot"
        client_key = "vault:k"
        client_algorithm = "RS256"
        client_audience = "https://login.test"
        scopes = ["read"]
        resource = "https://a.test/"
        assertion = { key = "vault:k", algorithm = "ES256", subject = "{identity}", audience = "a", ttl = "60s" }
        [credential.exec]
        kind = "exec"
        command = ["/usr/local/bin/tool", "--for={identity}"]
        env = ["HOME"]
        timeout = "5s"
        user = "tokens"
        [credential.aws]
        kind = "aws"
        access_key_id = "AKIDEXAMPLE"
        secret_access_key = "vault:aws/secret"
        session_token = "vault:aws/session"
        region = "eu-central-1"
        service = "s3"
        role_arn = "arn:aws:iam::123456789012:role/reports"
        session_name = "bot-{identity}"
        external_id = "acme"
        duration = "1h"
        sts_url = "https://sts.test/"
        [credential.hmac]
        kind = "hmac"
        secret = "vault:hmac"
        key_encoding = "base64"
        hash = "sha512"
        sign = "{timestamp}{method}{target}{body}"
        encoding = "base64"
        headers = { x-time = "{timestamp}", x-sign = "v1={signature}" }
        query = { nonce = "{nonce}" }
        insecure = "loopback"
        probe = "GET https://api.example.com/v1/me"
    "#;

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    /// The part of the schema that describes what messages call so.
    fn part<'s>(schema: &'s Value, section: &str) -> Option<&'s Value> {
        let definition = |name: &str| schema.pointer(&format!("/$defs/{name}"));
        match section {
            "the top of the file" => Some(schema),
            "[identity]" => definition("identity"),
            "[[grant]]" => definition("grant"),
            "\"include\"" => schema.pointer("/$defs/role/properties/include/items/anyOf/1"),
            "\"assertion\"" => schema.pointer("/$defs/credential-oauth2/properties/assertion"),
            "inject" => schema.pointer("/$defs/api/properties/inject"),
            "token_endpoint" => schema.pointer("/$defs/api/properties/token_endpoint"),
            // Here, a credential that is called as a kind is of that kind.
            section => match section.strip_prefix('[')?.split_once('.')? {
                ("credential", name) => definition(&format!("credential-{}", name.trim_end_matches(']')))
                    .or_else(|| definition("credential-static")),
                (kind, _) => definition(kind),
            },
        }
    }

    fn policies() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
    }

    fn toml_files(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                toml_files(&entry, files);
            } else if entry.extension().is_some_and(|it| it == "toml")
                && !entry.to_string_lossy().ends_with(".test.toml")
            {
                files.push(entry);
            }
        }
    }

    fn shipped() -> Vec<PathBuf> {
        let mut files = Vec::new();
        for folder in fs::read_dir(policies()).unwrap().map(|entry| entry.unwrap().path()) {
            if folder.is_dir() && !folder.ends_with("bad") {
                toml_files(&folder, &mut files);
            }
        }
        files
    }

    fn json(value: toml::Value) -> Value {
        match value {
            toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, json(value))).collect(),
            toml::Value::Array(items) => items.into_iter().map(json).collect(),
            toml::Value::Datetime(at) => at.to_string().into(),
            toml::Value::String(text) => text.into(),
            toml::Value::Integer(number) => number.into(),
            toml::Value::Boolean(value) => value.into(),
            toml::Value::Float(number) => number.into(),
        }
    }

    fn faults(validator: &jsonschema::Validator, text: &str) -> Vec<String> {
        let value = json(text.parse::<toml::Table>().unwrap().into());
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    #[test]
    fn every_key_that_the_decoder_knows_is_described_and_no_other() {
        let mut files: Vec<String> = vec![WHOLE.to_owned()];
        files.extend(shipped().iter().map(|path| fs::read_to_string(path).unwrap()));
        let known: BTreeMap<String, BTreeSet<String>> = known_keys(|| {
            for text in &files {
                let _ = crate::compile(&[SourceFile { path: "policies/x.toml".into(), text: text.clone() }]);
            }
        });
        let schema = schema();
        let mut described = BTreeSet::new();
        for (section, known) in &known {
            let part = part(&schema, section).unwrap_or_else(|| panic!("{section} is not in the schema"));
            let properties = part["properties"].as_object().unwrap();
            let keys: BTreeSet<String> = properties.keys().cloned().collect();
            assert_eq!(&keys, known, "{section}");
            for (key, property) in properties {
                let reference =
                    property["$ref"].as_str().and_then(|it| schema.pointer(it.trim_start_matches('#')));
                let text = property.get("description").or_else(|| reference?.get("description"));
                assert!(text.and_then(Value::as_str).is_some_and(|text| text.len() > 10), "{section} {key}");
            }
            assert_eq!(part["additionalProperties"], false, "{section}");
            described.insert(std::ptr::from_ref(part));
        }
        assert_eq!(described.len(), 17, "a table was not looked at: {:?}", known.keys());
    }

    #[test]
    fn every_policy_that_is_shipped_fits_the_schema() {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        let files = shipped();
        assert!(files.len() > 10, "{files:?}");
        for path in &files {
            let faults = faults(&validator, &fs::read_to_string(path).unwrap());
            assert!(faults.is_empty(), "{}: {faults:#?}", path.display());
        }
        assert_eq!(faults(&validator, WHOLE), Vec::<String>::new());
    }

    #[test]
    fn the_schema_is_one_of_its_draft_and_refuses_what_the_decoder_refuses() {
        assert!(jsonschema::draft202012::meta::is_valid(&schema()));
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        let identity = "[identity]\nexe = \"/x\"\n";
        let jwt = |more: &str| {
            let least = "kind = \"jwt\"\nkey = \"vault:k\"\nalgorithm = \"ES256\"\naudience = \"a\"";
            format!("[credential.c]\n{least}\n{more}\n")
        };
        let oauth = |more: &str| {
            let url = if more.contains("token_url") { "" } else { "token_url = \"https://a.test\"\n" };
            let least = "kind = \"oauth2\"\ngrant = \"refresh_token\"\nclient_id = \"c\"";
            format!("[credential.c]\n{least}\n{url}{more}\n")
        };
        for (text, place) in [
            ("nonsense = 1\n[identity]\nexe = \"/x\"\n", ""),
            ("[identity]\nexe = \"/x\"\nparent = \"y\"\n", "/identity"),
            ("[identity]\nexe = \"x\"\n", "/identity/exe"),
            ("[identity]\nsha256 = \"abc\"\n", "/identity/sha256"),
            ("[identity]\n", "/identity"),
            ("mode = \"off\"\n[identity]\nexe = \"/x\"\n", "/mode"),
            ("[[grant]]\nrole = \"r\"\n", ""),
            (&format!("{identity}[[grant]]\nrole = \"r\"\napi = \"a\"\n"), "/grant/0"),
            (&format!("{identity}[[grant]]\napi = \"a\"\n"), "/grant/0"),
            (&format!("{identity}[[grant]]\napi = \"a\"\nallow = [\"/x\"]\n"), "/grant/0/allow/0"),
            (&format!("{identity}[[grant]]\nnetwork = [\"icmp 1.2.3.4:1\"]\n"), "/grant/0/network/0"),
            (
                &format!("{identity}[[grant]]\napi = \"a\"\nallow = [\"GET /\"]\nintercept = false\n"),
                "/grant/0",
            ),
            (&format!("{identity}[[grant]]\nrole = \"r\"\nbody_limit = 0\n"), "/grant/0/body_limit"),
            (&format!("{identity}[[grant]]\nrole = \"r\"\ncapture = \"1 MB\"\n"), "/grant/0/capture"),
            ("[role.r]\napi = \"a\"\nallow = [\"GET /\"]\nuntil = 2027-01-31\n", "/role/r"),
            ("[api.a]\nscheme = \"ftp\"\nhosts = [\"a\"]\n", "/api/a/scheme"),
            ("[api.a]\nhosts = []\n", "/api/a/hosts"),
            ("[api.a]\nhosts = [\"a\"]\naddresses = []\n", "/api/a/addresses"),
            ("[api.a]\nhosts = [\"a\"]\naddresses = [\"intranet\"]\n", "/api/a/addresses/0"),
            ("[api.a]\nhosts = [\"a\"]\ninject = { header = \"x\", value = \"y\" }\n", "/api/a/inject/value"),
            ("[api.a]\nhosts = [\"a\"]\ninject = { header = \"x\" }\n", "/api/a/inject"),
            ("[api.a]\nhosts = [\"a\"]\ninject = { query = \"k\", cookie = \"c\" }\n", "/api/a/inject"),
            ("[api.a]\nhosts = [\"a\"]\ntoken_endpoint = { paths = [] }\n", "/api/a/token_endpoint/paths"),
            (
                "[api.a]\nhosts = [\"a\"]\ntoken_endpoint = { paths = [\"x\"] }\n",
                "/api/a/token_endpoint/paths/0",
            ),
            (
                "[credential.c]\nkind = \"static\"\nsecret = \"vault:a\"\ninsecure = \"lan\"\n",
                "/credential/c/insecure",
            ),
            ("[credential.c]\nkind = \"static\"\nsecret = \"sk_live_1\"\n", "/credential/c/secret"),
            ("[credential.c]\nkind = \"static\"\nsecret = \"hashicorp:a#b\"\n", "/credential/c/secret"),
            ("[credential.c]\nkind = \"static\"\nsecret = \"exec:/x\"\n", "/credential/c/secret"),
            ("[credential.c]\nkind = \"stattic\"\nsecret = \"vault:a\"\n", "/credential/c/kind"),
            (&jwt("ttl = \"5\""), "/credential/c/ttl"),
            (&jwt("subject = \"{workload.exe}\""), "/credential/c/subject"),
            (&jwt("claims = { sub = \"x\" }"), "/credential/c/claims"),
            (&jwt("secret = \"vault:a\""), "/credential/c"),
            ("[credential.c]\nkind = \"exec\"\ncommand = []\n", "/credential/c/command"),
            ("[credential.c]\nkind = \"exec\"\ncommand = [\"/x\"]\nenv = [\"A=b\"]\n", "/credential/c/env/0"),
            (&oauth("refresh_token = \"file:/x\""), "/credential/c/refresh_token"),
            (&oauth("token_url = \"ftp://x\""), "/credential/c/token_url"),
            (&oauth("auth = \"digest\""), "/credential/c/auth"),
            ("[credential.c]\nkind = \"jwt\"\naudience = \"a\"\nsubject = \"b\"\n", "/credential/c"),
        ] {
            assert!(
                crate::compile(&[SourceFile { path: "policies/x.toml".into(), text: text.into() }])
                    .set
                    .is_none(),
                "{text}"
            );
            let value = json(text.parse::<toml::Table>().unwrap().into());
            let places: Vec<String> =
                validator.iter_errors(&value).map(|error| error.instance_path().to_string()).collect();
            assert!(places.iter().any(|it| it == place), "{text}: {places:?}");
        }
    }
}
