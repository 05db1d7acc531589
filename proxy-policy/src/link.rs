//! Puts the parts together: resolves names, and refuses what does not fit.

mod roles;

use std::collections::HashMap;
use std::sync::Arc;

use crate::credential::{Credential, CredentialKind, Probe};
use crate::diagnostic::{Findings, quote};
use crate::draft::{ApiDraft, CredentialDraft, Draft, GrantBody, GrantDraft, IdentityDraft};
use crate::hosts::HostIndex;
use crate::limit::Limits;
use crate::model::{
    Api, ApiId, CredentialId, Grant, Identity, IdentityId, Limited, NetworkGrant, Scheme, When, WholeGrant,
};
use crate::names::{Names, place_text};
use crate::operation::{Arguments, Operation, Template};
use crate::place::{Place, Spanned};
use crate::rehearsal::{self, Rehearsal};
use crate::when::Condition;
use roles::Roles;

/// The parts of a policy set. Only complete if there were no errors.
#[derive(Default)]
pub(crate) struct Linked {
    pub(crate) identities: Vec<Identity>,
    pub(crate) apis: Vec<Api>,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) hosts: HostIndex,
    pub(crate) roles: usize,
}

/// Links everything; `files` are the labels of the files.
pub(crate) fn link(draft: &Draft, calls: &[Rehearsal], files: &[String], findings: &mut Findings) -> Linked {
    let apis = draft.apis.iter().map(|api| &api.name);
    let roles = draft.roles.iter().map(|role| &role.name);
    let credentials = draft.credentials.iter().map(|credential| &credential.name);
    let mut linker = Linker {
        draft,
        files,
        apis: Names::collect("API", apis, &draft.broken_apis, files, findings),
        roles: Names::collect("role", roles, &draft.broken_roles, files, findings),
        credentials: Names::collect("credential", credentials, &draft.broken_credentials, files, findings),
        findings,
    };
    let hosts = linker.hosts();
    let bindings = linker.bindings();
    linker.check_plain(&bindings);
    let probes: Vec<_> = (0..draft.credentials.len()).map(|at| linker.probe(at, &hosts, &bindings)).collect();
    let mut roles = Roles::link(&mut linker, &bindings);
    let identities = draft.identities.iter().map(|identity| &identity.name);
    let identities = Names::collect("identity", identities, &[], files, linker.findings);
    rehearsal::check_identities(calls, &identities, linker.findings);
    Linked {
        identities: (0..)
            .zip(&draft.identities)
            .map(|(id, identity)| linker.identity(IdentityId(id), identity, &mut roles, &bindings))
            .collect(),
        apis: (0..).zip(&draft.apis).map(|(id, draft)| api(ApiId(id), draft)).collect(),
        credentials: (0..)
            .zip(draft.credentials.iter().zip(bindings).zip(probes))
            .filter_map(|(id, ((draft, apis), probe))| credential(CredentialId(id), draft, apis, probe))
            .collect(),
        hosts,
        roles: draft.roles.len(),
    }
}

struct Linker<'d, 'f> {
    draft: &'d Draft,
    files: &'d [String],
    apis: Names<'d>,
    roles: Names<'d>,
    credentials: Names<'d>,
    findings: &'f mut Findings,
}

/// What a grant or role itself says of one API.
#[derive(Clone)]
struct Piece {
    /// The role that says it.
    role: Option<String>,
    api: ApiId,
    credential: Option<CredentialId>,
    /// Whether a credential is named, even if it is not known.
    names_credential: bool,
    allows: bool,
    allow: Vec<Spanned<Arc<Operation>>>,
    deny: Vec<Spanned<Arc<Operation>>>,
    when: Vec<When>,
    body_limit: Option<usize>,
    capture: Option<Spanned<u64>>,
    limits: Limits,
}

/// Bytes of a body that conditions look at, unless the policy says otherwise.
const BODY_LIMIT: usize = 64 * 1024;

fn id(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn when(when: &Spanned<Arc<Condition>>, params: &Arguments) -> When {
    When { condition: Arc::clone(&when.value), place: when.place, params: Arc::new(params.clone()) }
}

fn api(id: ApiId, draft: &ApiDraft) -> Api {
    Api {
        id,
        name: draft.name.value.clone(),
        place: draft.name.place,
        scheme: draft.scheme,
        hosts: draft.hosts.clone(),
        addresses: Arc::new(draft.addresses.clone()),
        inject: draft.inject.clone(),
        strip: draft.strip.clone(),
        keep: draft.keep.clone(),
        mask: draft.mask,
        token_endpoint: draft.token_endpoint.clone(),
        limits: draft.limits.clone(),
        host_limits: draft.host_limits.clone(),
    }
}

fn credential(
    id: CredentialId,
    draft: &CredentialDraft,
    apis: Vec<ApiId>,
    probe: Option<Probe>,
) -> Option<Credential> {
    let kind = draft.kind.clone()?;
    let (name, place) = (draft.name.value.clone(), draft.name.place);
    Some(Credential { id, name, place, kind, apis, insecure: draft.insecure, probe })
}

impl Linker<'_, '_> {
    fn hosts(&mut self) -> HostIndex {
        let mut index = HostIndex::default();
        for (i, api) in self.draft.apis.iter().enumerate() {
            for host in &api.hosts {
                let Some(first) = index.insert(api.scheme, host, ApiId(id(i))) else { continue };
                let Some(other) = self.draft.apis.get(first.0 as usize) else { continue };
                let theirs = other.hosts.iter().find(|theirs| *theirs == host);
                let place = theirs.map_or(other.name.place, |theirs| theirs.place);
                self.findings.error(
                    host.place,
                    format!(
                        "the host {} already belongs to the API {} at {}",
                        host.value,
                        quote(&other.name),
                        place_text(place, self.files)
                    ),
                    "a host leads to one API: remove it from one of the two, or make one API of both",
                );
            }
        }
        index
    }

    /// The APIs that each credential is bound to.
    fn bindings(&mut self) -> Vec<Vec<ApiId>> {
        let mut bindings = Vec::new();
        for credential in &self.draft.credentials {
            let mut apis = Vec::new();
            for name in &credential.apis {
                apis.extend(self.apis.find_silently(name, self.findings).map(|api| ApiId(id(api))));
            }
            bindings.push(apis);
        }
        bindings
    }

    /// An API over http says how a credential is attached only where there is one that may go without TLS.
    fn check_plain(&mut self, bindings: &[Vec<ApiId>]) {
        let goes = |api: usize| {
            self.draft.credentials.iter().zip(bindings).any(|(credential, bound)| {
                credential.insecure.is_some() && (bound.is_empty() || bound.contains(&ApiId(id(api))))
            })
        };
        let plain = self.draft.apis.iter().enumerate().filter(|(_, api)| api.scheme == Scheme::Http);
        let idle: Vec<Place> = plain.filter_map(|(at, api)| api.injects.filter(|_| !goes(at))).collect();
        for place in idle {
            self.findings.error(
                place,
                "an API over http cannot have \"inject\"",
                "credentials only go over verified TLS: use scheme = \"https\", or remove \"inject\"; if the API is on \
                 this host itself, write insecure = \"loopback\" in its credential",
            );
        }
    }

    /// The call by which a credential is tried: to an API of its own that says how it wants it.
    fn probe(&mut self, at: usize, hosts: &HostIndex, bindings: &[Vec<ApiId>]) -> Option<Probe> {
        let draft = self.draft.credentials.get(at)?;
        let request = draft.probe.as_ref()?;
        let Some(api) = hosts.find(Scheme::Https, request.host.name(), request.port()) else {
            let message = format!("no API has the host {}", quote(request.host.name()));
            let help = "a credential only goes to hosts of APIs: name one of them, or add the host to one";
            self.findings.error(request.place, message, help);
            return None;
        };
        let draft_of_api = self.draft.apis.get(api.0 as usize)?;
        let bound = bindings.get(at).map(Vec::as_slice).unwrap_or_default();
        if !bound.is_empty() && !bound.contains(&api) {
            let message = format!("the credential may not go to the API {}", quote(&draft_of_api.name));
            self.findings.error(request.place, message, "name a host of an API that it is bound to");
        } else if draft_of_api.injects.is_none() && self.wants_inject(at) {
            let message =
                format!("the API {} does not say how a credential is attached", quote(&draft_of_api.name));
            let at = place_text(draft_of_api.name.place, self.files);
            let help = format!("add inject = {{ header = \"…\", value = \"…\" }} to the API at {at}");
            self.findings.error(request.place, message, help);
        }
        Some(Probe { request: request.value.clone(), api })
    }

    /// Resolves what roles and grants have in common; nothing if the API is not known. The operations are left out.
    fn body(&mut self, body: &GrantBody, bindings: &[Vec<ApiId>]) -> Option<Piece> {
        let api = body.api.as_ref().and_then(|name| self.apis.find(name, self.findings));
        let credential = self.credential(body.credential.as_ref(), api, bindings);
        Some(Piece {
            role: None,
            api: ApiId(id(api?)),
            credential,
            names_credential: body.credential.is_some(),
            allows: body.allows,
            allow: Vec::new(),
            deny: Vec::new(),
            when: Vec::new(),
            body_limit: body.body_limit,
            capture: body.capture.clone(),
            limits: body.limits.clone(),
        })
    }

    /// The operations of a list with these values; errors are told at `place`.
    fn operations(
        &mut self,
        templates: &[Spanned<Template>],
        arguments: &Arguments,
        place: Place,
    ) -> Vec<Spanned<Arc<Operation>>> {
        let mut operations = Vec::new();
        for template in templates {
            match template.with(arguments) {
                Ok(operation) => operations.push(Spanned::new(Arc::new(operation), template.place)),
                Err(problem) => {
                    let at = place_text(template.place, self.files);
                    let message = format!("{} (the operation at {at} with these values)", problem.message);
                    self.findings.error(place, message, problem.help);
                }
            }
        }
        operations
    }

    /// Whether a credential needs its API to say how it is attached.
    fn wants_inject(&self, credential: usize) -> bool {
        let kind = self.draft.credentials.get(credential).and_then(|draft| draft.kind.as_ref());
        kind.is_none_or(CredentialKind::wants_inject)
    }

    /// Resolves the credential that a role or grant names for an API.
    fn credential(
        &mut self,
        name: Option<&Spanned<String>>,
        api: Option<usize>,
        bindings: &[Vec<ApiId>],
    ) -> Option<CredentialId> {
        let name = name?;
        let found = self.credentials.find_silently(name, self.findings)?;
        let Some(api) = api else { return Some(CredentialId(id(found))) };
        let draft = self.draft.apis.get(api)?;
        let api_name = quote(&draft.name);
        let insecure = self.draft.credentials.get(found).and_then(|credential| credential.insecure);
        if draft.scheme == Scheme::Http && insecure.is_none() {
            self.findings.error(
                name.place,
                format!("the API {api_name} is http, and credentials only go over verified TLS"),
                "use scheme = \"https\" for the API, or remove the credential here; if the API is on this host \
                 itself, write insecure = \"loopback\" in the credential",
            );
        } else if draft.injects.is_none() && self.wants_inject(found) {
            self.findings.error(
                name.place,
                format!("the API {api_name} does not say how a credential is attached"),
                format!(
                    "add inject = {{ header = \"…\", value = \"…\" }} to the API at {}, or remove the credential",
                    place_text(draft.name.place, self.files)
                ),
            );
        }
        let bound = bindings.get(found).map(Vec::as_slice).unwrap_or_default();
        if let (Some(credential), false) = (self.draft.credentials.get(found), bound.is_empty())
            && !bound.contains(&ApiId(id(api)))
        {
            let only: Vec<&str> = credential.apis.iter().map(|api| api.value.as_str()).collect();
            self.findings.error(
                name.place,
                format!("the credential {} may not be used for the API {api_name}", quote(name)),
                format!(
                    "it is bound to {} at {}: name another credential",
                    only.join(", "),
                    place_text(credential.name.place, self.files)
                ),
            );
        }
        Some(CredentialId(id(found)))
    }

    fn identity(
        &mut self,
        id: IdentityId,
        draft: &IdentityDraft,
        roles: &mut Roles,
        bindings: &[Vec<ApiId>],
    ) -> Identity {
        let calls = draft.grants.iter().filter(|grant| grant.network.is_empty() && !grant.is_whole);
        let mut counted: HashMap<String, u32> = HashMap::new();
        let grants: Vec<Grant> = calls
            .flat_map(|grant| {
                let of = grant.role.as_ref().map(|used| &used.role).or(grant.body.api.as_ref());
                let of = of.map_or_else(String::new, |name| name.value.clone());
                let number = counted.entry(of.clone()).or_default();
                let key = format!("grant/{}/{of}/{number}", draft.name.value);
                *number += 1;
                let whose = format!("the grant of {} for {of}", draft.name.value);
                let own = Limited { key, whose, limits: grant.body.limits.clone() };
                self.grant(&draft.name, grant, own, roles, bindings)
            })
            .collect();
        let opened = |grant: &GrantDraft| -> Vec<NetworkGrant> {
            let rules = grant.network.iter().cloned();
            rules.map(|rule| NetworkGrant { rule, until: grant.until.clone() }).collect()
        };
        let network = draft.grants.iter().flat_map(opened).collect();
        let whole = self.whole(draft, &grants);
        let file = self.files.get(draft.name.place.file.0 as usize).cloned().unwrap_or_default();
        let identity = Identity {
            id,
            name: draft.name.value.clone(),
            description: draft.description.clone(),
            file,
            conditions: draft.conditions.clone(),
            unmatched: draft.unmatched,
            mode: draft.mode,
            limits: draft.limits.clone(),
            grants,
            network,
            whole,
        };
        self.warn_of_two_credentials(&identity);
        identity
    }

    /// The grants of connections that are not looked into. Nothing else that the policy says of such an API could hold, so
    /// there may be nothing else.
    fn whole(&mut self, identity: &IdentityDraft, grants: &[Grant]) -> Vec<WholeGrant> {
        let mut whole: Vec<WholeGrant> = Vec::new();
        for draft in identity.grants.iter().filter(|grant| grant.is_whole) {
            let Some(name) = &draft.body.api else { continue };
            let Some(at) = self.apis.find(name, self.findings) else { continue };
            let (api, place) = (ApiId(id(at)), draft.body.place);
            let Some(known) = self.draft.apis.get(at) else { continue };
            let other = grants.iter().find(|grant| grant.api == api).map(|grant| grant.place);
            if let Some(other) = other.or(whole.iter().find(|it| it.api == api).map(|it| it.place)) {
                self.findings.error(
                    place,
                    format!(
                        "another grant is for the API {}, too, at {}",
                        quote(name),
                        place_text(other, self.files)
                    ),
                    "of connections that are not looked into no call is decided: keep one of the two",
                );
            }
            if known.scheme == Scheme::Http {
                self.findings.error(
                    name.place,
                    format!("the API {} is http, which nobody is kept from looking into", quote(name)),
                    "intercept = false is for clients that pin the API's certificate: remove the line",
                );
            }
            let limits = [&known.limits, &known.host_limits, &identity.limits];
            if limits.iter().any(|limits| !limits.is_empty()) {
                self.findings.error(
                    place,
                    format!("calls to the API {} are limited, and here none could be counted", quote(name)),
                    "remove the limits of the API and of the identity, or intercept = false",
                );
            }
            whole.push(WholeGrant { place, api, until: draft.until.clone() });
        }
        whole
    }

    /// One grant for each API part of its role, or the one that is spelled out.
    fn grant(
        &mut self,
        identity: &str,
        draft: &GrantDraft,
        limited: Limited,
        roles: &mut Roles,
        bindings: &[Vec<ApiId>],
    ) -> Vec<Grant> {
        let of_role = |piece: &Piece| {
            let role = piece.role.as_deref()?;
            let key = format!("role/{identity}/{role}");
            let whose = format!("the role {role} for {identity}");
            Some(Limited { key, whose, limits: piece.limits.clone() })
        };
        let (place, named) = (draft.body.place, draft.body.credential.is_some());
        // What a grant by role says itself is for all parts of the role.
        let own: Vec<When> = draft.body.when.iter().map(|when| self::when(when, &Arguments::new())).collect();
        let grant = |piece: &Piece, credential| Grant {
            place,
            api: piece.api,
            role: piece.role.clone(),
            until: draft.until.clone(),
            when: own.iter().chain(&piece.when).cloned().collect(),
            body_limit: draft.body.body_limit.or(piece.body_limit).unwrap_or(BODY_LIMIT),
            capture: draft.body.capture.clone().or_else(|| piece.capture.clone()),
            mode: draft.mode,
            limits: std::iter::once(limited.clone())
                .chain(of_role(piece))
                .filter(|limited| !limited.limits.is_empty())
                .collect(),
            credential,
            allow: piece.allow.clone(),
            deny: piece.deny.clone(),
        };
        let Some(role) = &draft.role else {
            let Some(mut piece) = self.body(&draft.body, bindings) else { return Vec::new() };
            self.need_credential(place, &piece, piece.names_credential);
            piece.allow = self.operations(&draft.body.allow, &Arguments::new(), place);
            piece.deny = self.operations(&draft.body.deny, &Arguments::new(), place);
            let grant = grant(&piece, piece.credential);
            self.check_conditions(&grant);
            return vec![grant];
        };
        let Some(pieces) = roles.of_grant(self, role) else { return Vec::new() };
        let first = pieces.first().map(|piece| piece.api);
        if let Some(credential) = &draft.body.credential
            && pieces.iter().any(|piece| Some(piece.api) != first)
        {
            self.findings.error(
                credential.place,
                format!("the role {} is for several APIs, and this is one credential", quote(&role.role)),
                "name the credentials in the roles, or grant the included roles one by one",
            );
            return Vec::new();
        }
        let api = first.map(|api| api.0 as usize);
        let credential = self.credential(draft.body.credential.as_ref(), api, bindings);
        let mut grants = Vec::new();
        for piece in pieces.iter() {
            self.need_credential(place, piece, piece.names_credential || named);
            let grant = grant(piece, credential.or(piece.credential));
            self.check_conditions(&grant);
            grants.push(grant);
        }
        grants
    }

    /// Every operation must have the segments that the conditions look at.
    fn check_conditions(&mut self, grant: &Grant) {
        for when in &grant.when {
            for name in when.condition.captures() {
                let operations = grant.allow.iter().chain(&grant.deny);
                let Some(without) =
                    operations.into_iter().find(|it| !it.capture_names().any(|it| it == name))
                else {
                    continue;
                };
                self.findings.error(
                    when.place,
                    format!("the condition looks at captures.{name}, which {} does not have", quote(without.as_str())),
                    format!("write {{{name}}} for a segment of each operation, or put that one in a grant of its own"),
                );
            }
        }
    }

    fn need_credential(&mut self, place: Place, role: &Piece, named: bool) {
        let Some(api) = self.draft.apis.get(role.api.0 as usize) else { return };
        if api.injects.is_some() && role.allows && !named {
            self.findings.error(
                place,
                format!("this grant for the API {} names no credential", quote(&api.name)),
                "add credential = \"…\" to the grant or to its role",
            );
        }
    }

    /// Two grants that allow the same with different credentials: only the first one's is used.
    fn warn_of_two_credentials(&mut self, identity: &Identity) {
        type Allowed<'g> = (&'g Grant, &'g Operation);
        let mut seen: HashMap<(ApiId, &str), Vec<Allowed<'_>>> = HashMap::new();
        for grant in &identity.grants {
            for operation in &grant.allow {
                let same_path = seen.entry((grant.api, operation.path_text())).or_default();
                let clash = same_path.iter().find(|(first, other)| {
                    first.credential != grant.credential && other.shares_a_method(operation)
                });
                if let Some((first, _)) = clash {
                    self.findings.warning(
                        grant.place,
                        format!(
                            "{} is already allowed with another credential at {}",
                            quote(operation.as_str()),
                            place_text(first.place, self.files)
                        ),
                        "the first grant gives the credential: remove the operation from one of the two",
                    );
                }
                same_path.push((grant, operation));
            }
        }
    }
}
