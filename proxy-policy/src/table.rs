//! What a set means, as a table: identities, APIs, roles, with everything resolved and in one order.
//!
//! Places, comments and descriptions are not in it: two sets with the same table decide the same. Grants stand in the order
//! of their file, because the first that allows a call gives the credential.

use serde::{Deserialize, Serialize};

use crate::conditions::Conditions;
use crate::credential::Credential;
use crate::model::{Api, Grant, Identity, Mode, Unmatched, When, WholeGrant};
use crate::set::PolicySet;
use crate::token_endpoint::TokenEndpoint;

/// Everything that a set means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// By name.
    pub identities: Vec<IdentityRows>,
    /// By name.
    pub apis: Vec<ApiRow>,
    /// By name.
    pub credentials: Vec<CredentialRow>,
}

/// An identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRows {
    /// Its name.
    pub identity: String,
    /// What a workload must be: `exe = /opt/bot`.
    pub conditions: Vec<String>,
    /// What happens to hosts that no API names.
    pub unmatched: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// How much it may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// What it may call, in the order of its file.
    pub grants: Vec<GrantRow>,
    /// What it may reach past the proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<String>,
    /// The APIs to which its connections go through as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whole: Vec<String>,
}

/// What an identity may call of one API, by one role or by a grant that is spelled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRow {
    /// The API.
    pub api: String,
    /// Where it is.
    pub hosts: Vec<String>,
    /// The role that it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Operations that it allows.
    pub allow: Vec<String>,
    /// Operations that it denies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// What must hold, all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<String>,
    /// The most bytes of a body that the conditions look at, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_limit: Option<usize>,
    /// The most bytes of each body that are kept for auditors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<u64>,
    /// What is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// `enforce` or `observe`; an identity that observes does so in all of its grants.
    pub mode: String,
    /// How much of it may be called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
}

/// An API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiRow {
    /// Its name.
    pub api: String,
    /// How it is spoken to.
    pub scheme: String,
    /// Where it is.
    pub hosts: Vec<String>,
    /// At which addresses it may be, where the policy says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// How a credential is attached: `authorization: Bearer {secret}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inject: Option<String>,
    /// Further headers that are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strip: Vec<String>,
    /// The paths at which the proxy answers what asks for a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_endpoint: Vec<String>,
    /// How much may be called of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
}

/// A credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialRow {
    /// Its name.
    pub credential: String,
    /// How the secret is used.
    pub kind: String,
    /// The reference into a store; never the secret.
    pub secret: String,
    /// The only APIs that it goes to; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apis: Vec<String>,
    /// Where it may go without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure: Option<String>,
}

impl PolicySet {
    /// The set as a table. The same files give the same table, in whatever order they were read.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table {
            identities: self.identities().map(|identity| self.identity_rows(identity)).collect(),
            apis: self.apis().map(api_row).collect(),
            credentials: self.credentials().map(|credential| self.credential_row(credential)).collect(),
        };
        table.identities.sort_by(|a, b| a.identity.cmp(&b.identity));
        table.apis.sort_by(|a, b| a.api.cmp(&b.api));
        table.credentials.sort_by(|a, b| a.credential.cmp(&b.credential));
        table
    }

    fn identity_rows(&self, identity: &Identity) -> IdentityRows {
        IdentityRows {
            identity: identity.name.clone(),
            conditions: conditions(&identity.conditions),
            unmatched: identity.unmatched.as_str().to_owned(),
            mode: identity.mode.as_str().to_owned(),
            limits: limits::of_identity(identity),
            grants: identity.grants.iter().map(|grant| self.grant_row(grant)).collect(),
            network: identity
                .network
                .iter()
                .map(|rule| match &rule.until {
                    Some(until) => format!("{} until {until}", rule.as_str()),
                    None => rule.as_str().to_owned(),
                })
                .collect(),
            whole: identity.whole.iter().map(|grant| self.whole_row(grant)).collect(),
        }
    }

    fn whole_row(&self, grant: &WholeGrant) -> String {
        let name = self.api(grant.api).map(|api| api.name.as_str()).unwrap_or_default();
        match &grant.until {
            Some(until) => format!("{name} until {until}"),
            None => name.to_owned(),
        }
    }

    fn grant_row(&self, grant: &Grant) -> GrantRow {
        let api = self.api(grant.api);
        let looks_at_body = grant.when.iter().any(|when| when.condition.uses_body());
        GrantRow {
            api: api.map(|api| api.name.clone()).unwrap_or_default(),
            hosts: api.map(hosts).unwrap_or_default(),
            role: grant.role.clone(),
            allow: grant.allow.iter().map(|operation| operation.as_str().to_owned()).collect(),
            deny: grant.deny.iter().map(|operation| operation.as_str().to_owned()).collect(),
            when: grant.when.iter().map(condition).collect(),
            body_limit: looks_at_body.then_some(grant.body_limit),
            capture: grant.capture.as_ref().map(|capture| capture.value),
            credential: grant
                .credential
                .and_then(|id| self.credential(id))
                .map(|credential| credential.name.clone()),
            until: grant.until.as_ref().map(ToString::to_string),
            mode: grant.mode.as_str().to_owned(),
            limits: limits::of_grant(grant),
        }
    }

    fn credential_row(&self, credential: &Credential) -> CredentialRow {
        let apis = credential.apis.iter().filter_map(|id| self.api(*id));
        CredentialRow {
            credential: credential.name.clone(),
            kind: credential.kind.as_str().to_owned(),
            secret: credential.kind.source(),
            apis: apis.map(|api| api.name.clone()).collect(),
            insecure: credential.insecure.map(|place| place.as_str().to_owned()),
        }
    }
}

impl PolicySet {
    /// The limits that hold for a call of an identity that the grant at this line allows (of this role, when it is from
    /// one), each with whose it is.
    #[must_use]
    pub fn limits_of(
        &self,
        identity: &Identity,
        api: Option<&str>,
        grant: Option<(u32, Option<&str>)>,
    ) -> Vec<String> {
        let told =
            |whose: String, limits: Vec<String>| limits.into_iter().map(move |it| format!("{it} ({whose})"));
        let mut all: Vec<String> =
            told(format!("identity {}", identity.name), limits::of_identity(identity)).collect();
        let of_grant = |it: &&Grant| grant == Some((it.place.line, it.role.as_deref()));
        if let Some(grant) = identity.grants.iter().find(of_grant) {
            all.extend(told("the grant".to_owned(), limits::of_grant(grant)));
        }
        if let Some(api) = self.apis().find(|it| Some(it.name.as_str()) == api) {
            all.extend(told(format!("API {}", api.name), limits::of_api(api)));
        }
        all
    }
}

/// The limits that hold for what a table names, each as it was written.
pub(crate) mod limits {
    use crate::limit::Limits;
    use crate::model::{Api, Grant, Identity};

    pub(crate) fn of_identity(identity: &Identity) -> Vec<String> {
        told("", &identity.limits)
    }

    /// Those of a role are shared by all grants of the identity that have it.
    pub(crate) fn of_grant(grant: &Grant) -> Vec<String> {
        let each = grant.limits.iter();
        each.flat_map(|it| told(if it.key.starts_with("role/") { "role: " } else { "" }, &it.limits))
            .collect()
    }

    pub(crate) fn of_api(api: &Api) -> Vec<String> {
        [told("", &api.limits), told("each host: ", &api.host_limits)].concat()
    }

    fn told(whose: &str, limits: &Limits) -> Vec<String> {
        let wait = match limits.wait.as_millis() {
            0 => String::new(),
            wait => format!(", wait {wait} ms"),
        };
        limits.each.iter().map(|limit| format!("{whose}{}{wait}", limit.as_str())).collect()
    }
}

fn api_row(api: &Api) -> ApiRow {
    let inject = api.inject.as_ref();
    ApiRow {
        api: api.name.clone(),
        scheme: api.scheme.as_str().to_owned(),
        hosts: hosts(api),
        addresses: api.addresses.written().collect(),
        inject: inject.map(ToString::to_string),
        strip: api.strip.clone(),
        token_endpoint: token_endpoint(api),
        limits: limits::of_api(api),
    }
}

fn token_endpoint(api: &Api) -> Vec<String> {
    let told = |endpoint: &TokenEndpoint| -> Vec<String> {
        let lasts = endpoint.expires_in.as_secs();
        endpoint.paths().map(|path| format!("{path}, for {lasts} s")).collect()
    };
    api.token_endpoint.as_ref().map(told).unwrap_or_default()
}

fn hosts(api: &Api) -> Vec<String> {
    api.hosts.iter().map(|host| host.value.to_string()).collect()
}

/// A condition with the values of the parameters that it looks at.
fn condition(when: &When) -> String {
    let text = when.condition.as_str();
    let used = when.params.iter().filter(|(name, _)| text.contains(&format!("params.{name}")));
    let values: Vec<String> = used.map(|(name, value)| format!("{name} = \"{value}\"")).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match values.is_empty() {
        true => text,
        false => format!("{text} with {}", values.join(", ")),
    }
}

fn conditions(conditions: &Conditions) -> Vec<String> {
    let hex = |digest: &[u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let c = conditions;
    let all = [
        ("exe", c.exe.as_ref().map(|it| it.as_str().to_owned())),
        ("sha256", c.sha256.as_ref().map(|it| hex(&it.value))),
        ("user", c.user.as_ref().map(|it| it.value.clone())),
        ("group", c.group.as_ref().map(|it| it.value.clone())),
        ("cgroup", c.cgroup.as_ref().map(|it| it.as_str().to_owned())),
        ("unit", c.unit.as_ref().map(|it| it.as_str().to_owned())),
        ("script", c.script.as_ref().map(|it| it.as_str().to_owned())),
        ("script_sha256", c.script_sha256.as_ref().map(|it| hex(&it.value))),
        ("container", c.container.as_ref().map(|it| it.value.as_str().to_owned())),
        ("kubernetes", c.kubernetes.as_ref().map(|it| it.value.as_str().to_owned())),
        ("clean_environment", c.want_clean_environment().then(|| "true".to_owned())),
    ];
    all.into_iter().filter_map(|(key, value)| Some(format!("{key} = {}", value?))).collect()
}

impl Table {
    /// For people, and for a repository: one fact per line, so that a change is a change of lines.
    #[must_use]
    pub fn text(&self) -> String {
        let identities = self.identities.iter().map(IdentityRows::lines);
        let apis = self.apis.iter().map(ApiRow::lines);
        let credentials = self.credentials.iter().map(CredentialRow::lines);
        let blocks: Vec<String> =
            identities.chain(apis).chain(credentials).map(|lines| lines.join("\n") + "\n").collect();
        blocks.join("\n")
    }

    /// A table of Markdown: one row for each identity, API and role.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        heading(
            &mut out,
            &[
                "Identity",
                "Is",
                "API",
                "Hosts",
                "Role",
                "Allow",
                "Deny",
                "When",
                "Credential",
                "Until",
                "Mode",
                "Limits",
            ],
        );
        for identity in &self.identities {
            let is = code(&identity.conditions);
            let mode = |mode: &str| if identity.mode == "observe" { "observe" } else { mode }.to_owned();
            let name = identity.identity.clone();
            for grant in &identity.grants {
                let limits = [identity.limits.as_slice(), &grant.limits].concat();
                row(
                    &mut out,
                    &[
                        name.clone(),
                        is.clone(),
                        grant.api.clone(),
                        code(&grant.hosts),
                        grant.role.clone().unwrap_or_default(),
                        code(&grant.allow),
                        code(&grant.deny),
                        code(&grant.when),
                        grant.credential.clone().unwrap_or_default(),
                        grant.until.clone().unwrap_or_default(),
                        mode(&grant.mode),
                        code(&limits),
                    ],
                );
            }
            let empty = String::new;
            let mut past = |what: &str, allow: String| {
                let limits = code(&identity.limits);
                let (name, is, what) = (name.clone(), is.clone(), what.to_owned());
                let none = [empty(), empty(), empty(), empty()];
                let [role, deny, when, credential] = none;
                let cells = [
                    name,
                    is,
                    what,
                    empty(),
                    role,
                    allow,
                    deny,
                    when,
                    credential,
                    empty(),
                    mode("enforce"),
                    limits,
                ];
                row(&mut out, &cells);
            };
            if !identity.network.is_empty() {
                past("*network*", code(&identity.network));
            }
            if !identity.whole.is_empty() {
                past("*connections, not looked into*", code(&identity.whole));
            }
            if identity.unmatched != Unmatched::Deny.as_str() {
                past("*hosts that no API names*", "*pass*".to_owned());
            }
            if identity.grants.is_empty()
                && identity.network.is_empty()
                && identity.whole.is_empty()
                && identity.unmatched == Unmatched::Deny.as_str()
            {
                past("*nothing*", String::new());
            }
        }
        out.push('\n');
        heading(&mut out, &["API", "Scheme", "Hosts", "Addresses", "Inject", "Strip", "Tokens at", "Limits"]);
        for api in &self.apis {
            let inject = api.inject.iter().cloned().collect::<Vec<_>>();
            let (name, scheme) = (api.api.clone(), api.scheme.clone());
            let (strip, tokens) = (code(&api.strip), code(&api.token_endpoint));
            let (hosts, addresses) = (code(&api.hosts), code(&api.addresses));
            let cells = [name, scheme, hosts, addresses, code(&inject), strip, tokens, code(&api.limits)];
            row(&mut out, &cells);
        }
        out.push('\n');
        heading(&mut out, &["Credential", "Kind", "Secret", "Only for", "Without TLS"]);
        for credential in &self.credentials {
            let CredentialRow { credential, kind, secret, apis, insecure } = credential;
            let (secret, insecure) = (format!("`{secret}`"), insecure.clone().unwrap_or_default());
            row(&mut out, &[credential.clone(), kind.clone(), secret, apis.join(", "), insecure]);
        }
        out
    }
}

fn heading(out: &mut String, names: &[&str]) {
    row(out, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    row(out, &names.iter().map(|_| "---".to_owned()).collect::<Vec<_>>());
}

fn row(out: &mut String, cells: &[String]) {
    let line: Vec<&str> = cells.iter().map(|cell| cell.trim()).collect();
    out.push_str(&format!("| {} |\n", line.join(" | ")));
}

fn code(items: &[String]) -> String {
    // A bar ends the cell, also in code.
    let items = items.iter().map(|item| format!("`{}`", item.replace('|', "\\|").replace('`', "'")));
    items.collect::<Vec<_>>().join("<br>")
}

impl IdentityRows {
    /// One fact per line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("identity {}", self.identity)];
        lines.extend(self.conditions.iter().map(|condition| format!("  is          {condition}")));
        if self.mode != Mode::Enforce.as_str() {
            lines.push(format!("  mode        {}", self.mode));
        }
        if self.unmatched != Unmatched::Deny.as_str() {
            lines.push(format!("  unmatched   {}", self.unmatched));
        }
        lines.extend(self.limits.iter().map(|limit| format!("  limit       {limit}")));
        for grant in &self.grants {
            lines.extend(grant.lines().into_iter().map(|line| format!("  {line}")));
        }
        lines.extend(self.network.iter().map(|rule| format!("  network     {rule}")));
        lines.extend(self.whole.iter().map(|api| format!("  whole       {api} (intercept = false)")));
        lines
    }
}

impl GrantRow {
    /// One fact per line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let role = self.role.as_ref().map(|role| format!(" by role {role}")).unwrap_or_default();
        let mut lines = vec![format!("{} at {}{role}", self.api, self.hosts.join(" "))];
        let mut more = |key: &str, values: &mut dyn Iterator<Item = &String>| {
            lines.extend(values.map(|value| format!("  {key:<10}{value}")));
        };
        more("allow", &mut self.allow.iter());
        more("deny", &mut self.deny.iter());
        more("when", &mut self.when.iter());
        let body = self.body_limit.map(|limit| format!("at most {limit} bytes"));
        more("body", &mut body.iter());
        let capture = self.capture.map(|most| format!("at most {most} bytes of each body, for auditors"));
        more("capture", &mut capture.iter());
        more("with", &mut self.credential.iter());
        more("until", &mut self.until.iter());
        more("mode", &mut Some(&self.mode).into_iter().filter(|mode| *mode != Mode::Enforce.as_str()));
        more("limit", &mut self.limits.iter());
        lines
    }
}

impl ApiRow {
    /// One fact per line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("api {}", self.api)];
        if self.scheme != "https" {
            lines.push(format!("  scheme      {}", self.scheme));
        }
        lines.extend(self.hosts.iter().map(|host| format!("  host        {host}")));
        lines.extend(self.addresses.iter().map(|address| format!("  address     {address}")));
        lines.extend(self.inject.iter().map(|inject| format!("  inject      {inject}")));
        lines.extend(self.strip.iter().map(|header| format!("  strip       {header}")));
        lines.extend(self.token_endpoint.iter().map(|path| format!("  tokens at   {path}")));
        lines.extend(self.limits.iter().map(|limit| format!("  limit       {limit}")));
        lines
    }
}

impl CredentialRow {
    /// One fact per line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("credential {}", self.credential)];
        lines.push(format!("  kind        {}", self.kind));
        lines.push(format!("  secret      {}", self.secret));
        lines.extend(self.apis.iter().map(|api| format!("  only for    {api}")));
        lines.extend(self.insecure.iter().map(|place| format!("  insecure    {place}")));
        lines
    }
}
