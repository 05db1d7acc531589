//! Roles: what they include, what their parameters become, and whether they include themselves.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Linker, Piece};
use crate::diagnostic::{Problem, quote};
use crate::draft::{RoleDraft, RoleUse};
use crate::model::ApiId;
use crate::names::place_text;
use crate::operation::{Arguments, check_value, substitute};
use crate::place::Place;
use crate::suggest;

/// How deep roles may include each other.
const MAX_DEPTH: usize = 32;
/// How many parts a role may have with all that it includes.
const MAX_PARTS: usize = 1000;

type Parts = Arc<[Piece]>;

/// All roles, and what became of them with the values that grants gave.
pub(super) struct Roles {
    /// What each says itself, without its operations; none if its API is not known, or it only includes others.
    heads: Vec<Option<Piece>>,
    /// The positions of the roles that each includes; none where a name is not known.
    includes: Vec<Vec<Option<usize>>>,
    /// Roles that cannot be used, for reasons that were told.
    broken: Vec<bool>,
    known: HashMap<(usize, Arguments), Option<Parts>>,
}

impl Roles {
    pub(super) fn link(linker: &mut Linker<'_, '_>, bindings: &[Vec<ApiId>]) -> Self {
        let drafts = &linker.draft.roles;
        let mut heads = Vec::new();
        let mut includes = Vec::new();
        let mut broken = Vec::new();
        for draft in drafts {
            let head = linker.body(&draft.body, bindings);
            broken.push(draft.body.api.is_some() && head.is_none());
            heads.push(head.map(|head| Piece { role: Some(draft.name.value.clone()), ..head }));
            let found: Vec<Option<usize>> =
                draft.include.iter().map(|used| linker.roles.find(&used.role, linker.findings)).collect();
            for (used, found) in draft.include.iter().zip(&found) {
                if let Some(included) = found.and_then(|found| drafts.get(found)) {
                    linker.check_arguments(included, used, Some(draft));
                }
            }
            includes.push(found);
        }
        let mut roles = Self { heads, includes, broken, known: HashMap::new() };
        roles.find_cycles(linker);
        roles
    }

    /// Reports every cycle once and marks its roles.
    fn find_cycles(&mut self, linker: &mut Linker<'_, '_>) {
        #[derive(Clone, Copy, PartialEq)]
        enum Seen {
            Not,
            OnTheWay,
            Done,
        }
        let drafts = &linker.draft.roles;
        let mut seen = vec![Seen::Not; drafts.len()];
        for start in 0..drafts.len() {
            if seen.get(start) != Some(&Seen::Not) {
                continue;
            }
            // The way from `start`: a role and which of its includes comes next.
            let mut way = vec![(start, 0)];
            while let Some((role, next)) = way.last_mut() {
                let role = *role;
                if let Some(seen) = seen.get_mut(role) {
                    *seen = Seen::OnTheWay;
                }
                let Some(include) = self.includes.get(role).and_then(|includes| includes.get(*next)) else {
                    if let Some(seen) = seen.get_mut(role) {
                        *seen = Seen::Done;
                    }
                    way.pop();
                    continue;
                };
                let place =
                    drafts.get(role).and_then(|draft| draft.include.get(*next)).map(|it| it.role.place);
                *next += 1;
                let Some(include) = *include else { continue };
                match seen.get(include) {
                    Some(Seen::Not) => way.push((include, 0)),
                    Some(Seen::OnTheWay) => {
                        let from = way.iter().position(|(role, _)| *role == include).unwrap_or(0);
                        let mut names = Vec::new();
                        for (role, _) in way.iter().skip(from) {
                            if let Some(broken) = self.broken.get_mut(*role) {
                                *broken = true;
                            }
                            names.extend(drafts.get(*role).map(|draft| draft.name.value.as_str()));
                        }
                        names.extend(drafts.get(include).map(|draft| draft.name.value.as_str()));
                        linker.findings.error(
                            place.unwrap_or_default(),
                            format!("the role includes itself: {}", names.join(" → ")),
                            "remove one of these includes",
                        );
                    }
                    _ => {}
                }
            }
        }
    }

    /// What a grant gets from the role that it names.
    pub(super) fn of_grant(&mut self, linker: &mut Linker<'_, '_>, used: &RoleUse) -> Option<Parts> {
        let found = linker.roles.find(&used.role, linker.findings)?;
        let draft = linker.draft.roles.get(found)?;
        let arguments = linker.check_arguments(draft, used, None)?;
        self.parts(linker, found, &arguments, used.role.place, 0)
    }

    /// A role with these values, and all that it includes. What is wrong is told at `place`.
    fn parts(
        &mut self,
        linker: &mut Linker<'_, '_>,
        role: usize,
        arguments: &Arguments,
        place: Place,
        depth: usize,
    ) -> Option<Parts> {
        if self.broken.get(role) != Some(&false) {
            return None;
        }
        let key = (role, arguments.clone());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let draft = linker.draft.roles.get(role)?;
        if depth >= MAX_DEPTH {
            let message =
                format!("the role includes others more than {MAX_DEPTH} deep, at {}", quote(&draft.name));
            linker.findings.error(place, message, "name the roles that are meant in grants of their own");
            return None;
        }
        let mut parts: Vec<Piece> = Vec::new();
        if let Some(head) = self.heads.get(role).and_then(Option::as_ref) {
            let allow = linker.operations(&draft.body.allow, arguments, place);
            let deny = linker.operations(&draft.body.deny, arguments, place);
            let when = draft.body.when.iter().map(|it| super::when(it, arguments)).collect();
            parts.push(Piece { allow, deny, when, ..head.clone() });
        }
        let includes = self.includes.get(role).cloned().unwrap_or_default();
        let mut whole = true;
        for (used, found) in draft.include.iter().zip(includes) {
            let included = found.and_then(|found| {
                let arguments = linker.included_arguments(used, arguments, place)?;
                self.parts(linker, found, &arguments, place, depth + 1)
            });
            let Some(included) = included else {
                whole = false;
                break;
            };
            parts.extend(included.iter().cloned());
            if parts.len() > MAX_PARTS {
                let message = format!("the role {} has more than {MAX_PARTS} parts", quote(&draft.name));
                linker.findings.error(place, message, "name the roles that are meant in grants of their own");
                whole = false;
                break;
            }
        }
        let parts: Option<Parts> = whole.then(|| parts.into());
        self.known.insert(key, parts.clone());
        parts
    }
}

impl Linker<'_, '_> {
    /// The values that a grant, or another role, gives to the parameters of a role.
    fn check_arguments(
        &mut self,
        role: &RoleDraft,
        used: &RoleUse,
        by: Option<&RoleDraft>,
    ) -> Option<Arguments> {
        let before = self.findings.errors();
        let mut arguments = Arguments::new();
        for (name, value) in &used.with {
            if !role.parameters.contains(&name.value) {
                let known = role.parameters.iter().map(String::as_str);
                let help = match role.parameters.is_empty() {
                    true => format!(
                        "the role at {} has none: remove this",
                        place_text(role.name.place, self.files)
                    ),
                    false => suggest::help(name, known, "parameter"),
                };
                let message = format!("the role {} has no parameter {}", quote(&role.name), quote(name));
                self.findings.error(name.place, message, help);
                continue;
            }
            let checked = match by {
                None => check_value(value),
                // Its own parameters may stand in it, whose values are not known yet.
                Some(by) => substitute(value, |name| match by.parameters.iter().any(|known| known == name) {
                    true => Ok("x".into()),
                    false => Err(Problem::new(
                        format!("unknown parameter {}", quote(name)),
                        suggest::help(name, by.parameters.iter().map(String::as_str), "parameter"),
                    )),
                })
                .and_then(|value| check_value(&value)),
            };
            if let Err(problem) = checked {
                self.findings.problem(value.place, problem);
            }
            arguments.insert(name.value.clone(), value.value.clone());
        }
        for parameter in
            role.parameters.iter().filter(|it| !used.with.iter().any(|(name, _)| name.value == **it))
        {
            let value = match by.is_some_and(|by| by.parameters.contains(parameter)) {
                true => format!("${{{parameter}}}"),
                false => "…".to_owned(),
            };
            let help = match by {
                None => format!("add with = {{ {parameter} = \"…\" }}"),
                Some(_) => format!(
                    "write {{ role = {}, with = {{ {parameter} = \"{value}\" }} }}",
                    quote(&used.role)
                ),
            };
            let message = format!(
                "the role {} needs a value for its parameter {}",
                quote(&role.name),
                quote(parameter)
            );
            self.findings.error(used.role.place, message, help);
        }
        (self.findings.errors() == before).then_some(arguments)
    }

    /// The values for an included role, made of those of the role that includes it.
    fn included_arguments(&mut self, used: &RoleUse, outer: &Arguments, place: Place) -> Option<Arguments> {
        let mut arguments = Arguments::new();
        for (name, value) in &used.with {
            // Unknown names were told where they stand.
            let value = substitute(value, |name| Ok(outer.get(name).cloned().unwrap_or_default())).ok()?;
            if let Err(problem) = check_value(&value) {
                self.findings.problem(place, problem);
                return None;
            }
            arguments.insert(name.value.clone(), value);
        }
        Some(arguments)
    }
}
