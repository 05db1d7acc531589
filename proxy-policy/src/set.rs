//! The compiled policy set: immutable, shared between threads, swapped as a whole.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::credential::Credential;
use crate::decide::{Call, RuleRef};
use crate::hosts::HostIndex;
use crate::index::Index;
use crate::link::Linked;
use crate::model::{
    Api, ApiHost, ApiId, CredentialId, Grant, Identity, IdentityId, RuleId, Scheme, Summary, WholeGrant,
};
use crate::network::Transport;
use crate::operation::Operation;
use crate::place::{FileId, Place, Spanned};
use crate::until::{Moment, Until};

/// Everything that the policy files say, ready to decide.
#[derive(Clone, Debug)]
pub struct PolicySet {
    files: Vec<String>,
    identities: Vec<Identity>,
    apis: Vec<Api>,
    credentials: Vec<Credential>,
    hosts: HostIndex,
    roles: usize,
    /// The rules of each identity for each API stand together: denies first, then allows, in the order of its grants.
    rules: Vec<Rule>,
    /// By identity; each list is sorted by API.
    blocks: Vec<Vec<Block>>,
    /// Some identity has connections that are not looked into.
    has_whole: bool,
    /// By API: what conditions do not see of headers, as a number.
    views: Vec<u64>,
}

/// An operation in the list of an identity and API.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) id: RuleId,
    pub(crate) operation: Arc<Operation>,
    pub(crate) place: Place,
    /// Position among the identity's grants.
    pub(crate) grant: u32,
}

/// Where the rules of one identity for one API are.
#[derive(Clone, Debug)]
struct Block {
    api: ApiId,
    denies: Range<usize>,
    allows: Range<usize>,
    deny_index: Index,
    allow_index: Index,
    /// Whether a grant ends, or has a condition that looks at the time.
    timed: bool,
}

/// The denies, or the allows, of an identity for an API.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'p> {
    list: &'p [Rule],
    index: &'p Index,
}

impl<'p> Rules<'p> {
    /// All of them, in the order of the grants.
    pub(crate) fn all(self) -> &'p [Rule] {
        self.list
    }

    /// Those that match a call, in the order of the grants.
    pub(crate) fn matching<'c>(self, call: &'c Call<'c>) -> impl Iterator<Item = &'p Rule> + 'c
    where
        'p: 'c,
    {
        let mut from = 0;
        std::iter::from_fn(move || {
            let at = self.index.find(from, call, |at| self.list.get(at).map(|rule| &*rule.operation))?;
            from = at + 1;
            self.list.get(at)
        })
    }
}

impl PolicySet {
    pub(crate) fn new(linked: Linked, files: Vec<String>) -> Self {
        let Linked { identities, apis, credentials, hosts, roles } = linked;
        let mut rules = Vec::new();
        let blocks = identities.iter().map(|identity| blocks(identity, &mut rules)).collect();
        let views = apis.iter().map(crate::memory::view).collect();
        let has_whole = identities.iter().any(|identity| !identity.whole.is_empty());
        Self { files, identities, apis, credentials, hosts, roles, rules, blocks, has_whole, views }
    }

    /// What conditions do not see of the headers of an API's requests.
    pub(crate) fn view(&self, api: ApiId) -> u64 {
        self.views.get(api.0 as usize).copied().unwrap_or_default()
    }

    /// Every identity, by name of its file.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.identities.iter()
    }

    /// An identity of this set.
    #[must_use]
    pub fn identity(&self, id: IdentityId) -> Option<&Identity> {
        self.identities.get(id.0 as usize)
    }

    /// An identity by name; walks through all of them.
    #[must_use]
    pub fn identity_named(&self, name: &str) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.name == name)
    }

    /// Every API.
    pub fn apis(&self) -> impl Iterator<Item = &Api> {
        self.apis.iter()
    }

    /// An API of this set.
    #[must_use]
    pub fn api(&self, id: ApiId) -> Option<&Api> {
        self.apis.get(id.0 as usize)
    }

    /// Every host that an API names for `scheme`.
    pub fn hosts(&self, scheme: Scheme) -> impl Iterator<Item = &ApiHost> {
        self.apis
            .iter()
            .filter(move |api| api.scheme == scheme)
            .flat_map(|api| &api.hosts)
            .map(|host| &host.value)
    }

    /// The API that a host and port belong to. An exact name wins over `*.example.com`, which stands for exactly one
    /// label before `example.com`. Give the host as [`crate::Host::name`] has it; then nothing is allocated.
    #[must_use]
    pub fn api_for(&self, scheme: Scheme, host: &str, port: u16) -> Option<&Api> {
        self.api(self.hosts.find(scheme, host, port)?)
    }

    /// Every credential.
    pub fn credentials(&self) -> impl Iterator<Item = &Credential> {
        self.credentials.iter()
    }

    /// A credential of this set.
    #[must_use]
    pub fn credential(&self, id: CredentialId) -> Option<&Credential> {
        self.credentials.get(id.0 as usize)
    }

    /// The label of a file.
    #[must_use]
    pub fn file_name(&self, file: FileId) -> Option<&str> {
        self.files.get(file.0 as usize).map(String::as_str)
    }

    /// Whether a rule of an identity opens everything that is not mediated, at that moment.
    #[must_use]
    pub fn network_is_open(&self, identity: IdentityId, now: Moment) -> bool {
        let rules = self.identity(identity).map(|identity| identity.network.as_slice()).unwrap_or_default();
        rules.iter().any(|rule| rule.transport().is_none() && rule.holds(now))
    }

    /// The first network rule of an identity that covers a destination at that moment; if there is none, one that did and is
    /// over, with its end.
    ///
    /// # Errors
    /// No rule covers it now.
    pub fn network_rule(
        &self,
        identity: IdentityId,
        transport: Option<Transport>,
        address: IpAddr,
        port: u16,
        resolvers: &[IpAddr],
        now: Moment,
    ) -> Result<RuleRef<'_>, Option<(RuleRef<'_>, &Until)>> {
        let rules = self.identity(identity).map(|identity| identity.network.as_slice()).unwrap_or_default();
        let mut over = None;
        for rule in rules.iter().filter(|rule| rule.covers(transport, address, port, resolvers)) {
            let Place { file, line, column } = rule.place;
            let file = self.file_name(file).unwrap_or_default();
            let place = RuleRef { file, line, column, text: rule.rule.as_str(), id: None };
            match &rule.until {
                Some(until) if until.is_over(now) => over = over.or(Some((place, until))),
                _ => return Ok(place),
            }
        }
        Err(over)
    }

    /// Whether [`whole`](Self::whole) has an answer for anybody.
    #[must_use]
    pub fn has_whole(&self) -> bool {
        self.has_whole
    }

    /// The grant by which connections of an identity to an API go through as they are at that moment.
    #[must_use]
    pub fn whole(
        &self,
        identity: IdentityId,
        api: ApiId,
        now: Moment,
    ) -> Option<(RuleRef<'_>, Option<Moment>)> {
        let grant = self.identity(identity)?.whole.iter().find(|grant| grant.api == api)?;
        let until = grant.until.as_ref();
        if until.is_some_and(|until| until.is_over(now)) {
            return None;
        }
        let Place { file, line, column } = grant.place;
        let file = self.file_name(file).unwrap_or_default();
        Some((RuleRef { file, line, column, text: WholeGrant::TEXT, id: None }, until.map(Until::end)))
    }

    /// Where it says that bodies are kept for auditors, from the first file to the last.
    pub fn captures(&self) -> impl Iterator<Item = RuleRef<'_>> {
        let grants = self.identities.iter().flat_map(|identity| &identity.grants);
        grants.filter_map(|grant| {
            let Place { file, line, column } = grant.capture.as_ref()?.place;
            Some(RuleRef {
                file: self.file_name(file).unwrap_or_default(),
                line,
                column,
                text: "capture",
                id: None,
            })
        })
    }

    /// The next moment at which a network rule ends, of any identity.
    #[must_use]
    pub fn next_network_end(&self, now: Moment) -> Option<Moment> {
        let rules = self.identities.iter().flat_map(|identity| &identity.network);
        rules.filter_map(|rule| Some(rule.until.as_ref()?.end())).filter(|end| *end > now).min()
    }

    /// The next moment at which time alone can change what is decided for an identity and an API; none: it cannot.
    #[must_use]
    pub fn next_change(&self, identity: IdentityId, api: ApiId, now: Moment) -> Option<Moment> {
        if !self.block(identity, api)?.timed {
            return None;
        }
        let grants = self.identity(identity)?.grants.iter().filter(|grant| grant.api == api);
        let changes = grants.flat_map(|grant| {
            let end = grant.until.as_ref().map(|until| until.end()).filter(|end| *end > now);
            let clock = grant.when.iter().any(|when| when.condition.looks_at_the_clock());
            end.into_iter().chain(clock.then(|| Moment(now.0.saturating_add(1))))
        });
        changes.min()
    }

    /// How much there is in the set.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            identities: self.identities.len(),
            apis: self.apis.len(),
            roles: self.roles,
            credentials: self.credentials.len(),
            rules: self.rules.len()
                + self.identities.iter().map(|identity| identity.network.len()).sum::<usize>(),
        }
    }

    /// The denies and the allows of an identity for an API, if it has a grant for it.
    pub(crate) fn rules(&self, identity: IdentityId, api: ApiId) -> Option<(Rules<'_>, Rules<'_>)> {
        let block = self.block(identity, api)?;
        let list = |range: &Range<usize>, index| Some(Rules { list: self.rules.get(range.clone())?, index });
        Some((list(&block.denies, &block.deny_index)?, list(&block.allows, &block.allow_index)?))
    }

    fn block(&self, identity: IdentityId, api: ApiId) -> Option<&Block> {
        let blocks = self.blocks.get(identity.0 as usize)?;
        blocks.get(blocks.binary_search_by_key(&api, |block| block.api).ok()?)
    }
}

/// Appends the rules of one identity to the list.
fn blocks(identity: &Identity, rules: &mut Vec<Rule>) -> Vec<Block> {
    let mut apis: Vec<ApiId> = identity.grants.iter().map(|grant| grant.api).collect();
    apis.sort_unstable();
    apis.dedup();
    let mut append =
        |api: ApiId, pick: fn(&Grant) -> &Vec<_>| {
            let start = rules.len();
            for (index, grant) in (0..).zip(&identity.grants).filter(|(_, grant)| grant.api == api) {
                let ids = (u32::try_from(rules.len()).unwrap_or(u32::MAX)..).map(RuleId);
                rules.extend(ids.zip(pick(grant)).map(|(id, operation): (_, &Spanned<Arc<Operation>>)| {
                    Rule { id, operation: Arc::clone(&operation.value), place: operation.place, grant: index }
                }));
            }
            start..rules.len()
        };
    let ranges: Vec<_> = apis
        .into_iter()
        .map(|api| (api, append(api, |grant| &grant.deny), append(api, |grant| &grant.allow)))
        .collect();
    let block = |(api, denies, allows): (ApiId, Range<usize>, Range<usize>)| {
        let of = |range: &Range<usize>| rules.get(range.clone()).unwrap_or_default();
        let operations = |range| of(range).iter().map(|rule| &*rule.operation);
        let deny_index = Index::of_denies(operations(&denies));
        let allow_index = Index::of_allows(operations(&allows));
        let mut grants = identity.grants.iter().filter(|grant| grant.api == api);
        let timed = grants.any(|grant| {
            grant.until.is_some() || grant.when.iter().any(|when| when.condition.looks_at_the_clock())
        });
        Block { api, denies, allows, deny_index, allow_index, timed }
    };
    ranges.into_iter().map(block).collect()
}
