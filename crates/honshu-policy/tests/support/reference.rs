//! The evaluator that the compiled set is compared with: read it top to bottom.

use super::world::{TENANCY, TIMES};
use honshu_policy::{
    AttachedPolicy, Clause, Compartment, Condition, Effect, Grant, Location, Membership,
    QualifiedName, Request, Requester, Statement, Subject, Test, Value, Variable, parse_statement,
};

pub struct World<'a> {
    compartments: &'a [Compartment],
    /// Each with the compartment that its policy is attached to.
    grants: Vec<(&'a str, Grant)>,
    deny_enabled: bool,
}

impl<'a> World<'a> {
    pub fn new(
        compartments: &'a [Compartment],
        policies: &'a [AttachedPolicy],
        deny_enabled: bool,
    ) -> World<'a> {
        let read = |text: &str| match parse_statement(text) {
            Ok(Statement::Grant(grant)) => grant,
            other => panic!("{text}: {other:?}"),
        };
        let grants = policies
            .iter()
            .flat_map(|policy| {
                policy
                    .statements
                    .iter()
                    .map(move |text| (&*policy.compartment_id, read(text)))
            })
            .collect();
        World {
            compartments,
            grants,
            deny_enabled,
        }
    }

    pub fn allows(&self, request: &Request<'_>) -> bool {
        let here = request.target.compartment_id;
        let known = here == TENANCY || self.compartments.iter().any(|c| &*c.id == here);
        if request.principal.tenancy_id != TENANCY || !known {
            return false;
        }
        let administrator = request.principal.kind == "user"
            && request
                .principal
                .groups
                .iter()
                .any(|g| g.name.to_lowercase() == "administrators" && g.domain.is_none());
        let (mut allowed, mut denied) = (false, false);
        for (attached, grant) in &self.grants {
            if self.speaks_of(attached, grant, request) {
                match grant.effect {
                    Effect::Allow => allowed = true,
                    Effect::Deny => denied |= self.deny_enabled && !administrator,
                }
            }
        }
        allowed && !denied
    }

    fn parent(&self, id: &str) -> Option<&str> {
        self.compartments
            .iter()
            .find(|c| &*c.id == id)
            .map(|c| &*c.parent_id)
    }

    fn within(&self, id: &str, ancestor: &str) -> bool {
        id == ancestor
            || self
                .parent(id)
                .is_some_and(|parent| self.within(parent, ancestor))
    }

    fn speaks_of(&self, attached: &str, grant: &Grant, request: &Request<'_>) -> bool {
        let place = match &grant.location {
            Location::Tenancy => Some(TENANCY),
            Location::CompartmentId(id) => Some(id.as_str()),
            Location::Compartment(path) => {
                let mut at = attached;
                let mut found = true;
                for (index, name) in path.iter().enumerate() {
                    let child = self.compartments.iter().find(|c| {
                        &*c.parent_id == at && c.name.to_lowercase() == name.to_lowercase()
                    });
                    let own = self.compartments.iter().find(|c| &*c.id == at);
                    match child {
                        Some(child) => at = &child.id,
                        None if index == 0
                            && own
                                .is_some_and(|c| c.name.to_lowercase() == name.to_lowercase()) => {}
                        None => found = false,
                    }
                }
                found.then_some(at)
            }
        };
        let Some(place) = place else { return false };
        self.within(place, attached)
            && self.within(request.target.compartment_id, place)
            && subject(&grant.subject, &request.principal)
            && grant
                .action
                .permissions()
                .iter()
                .any(|permission| permission == request.permission)
            && grant
                .condition
                .as_ref()
                .is_none_or(|condition| self.holds(condition, request))
    }

    fn holds(&self, condition: &Condition, request: &Request<'_>) -> bool {
        match condition {
            Condition::Any(items) => items.iter().any(|item| self.holds(item, request)),
            Condition::All(items) => items.iter().all(|item| self.holds(item, request)),
            Condition::Clause(Clause { variable, test }) => {
                let values = self.values(variable, request);
                let Some(values) = values else {
                    return *test == Test::Absent;
                };
                let some = |wanted: &[Value]| {
                    values
                        .iter()
                        .any(|value| wanted.iter().any(|wanted| equal(variable, wanted, value)))
                };
                let key = |value: &Value| match value {
                    Value::Literal(text) => sortable(variable, text),
                    Value::Pattern(_) => panic!("patterns have no order"),
                };
                let now = values
                    .first()
                    .map(|value| sortable(variable, value))
                    .unwrap_or_default();
                match test {
                    Test::Present => true,
                    Test::Absent => false,
                    Test::Equals(value) => some(std::slice::from_ref(value)),
                    Test::NotEquals(value) => !some(std::slice::from_ref(value)),
                    Test::In(wanted) => some(wanted),
                    Test::NotIn(wanted) => !some(wanted),
                    Test::Before(limit) => now < key(limit),
                    Test::After(limit) => now > key(limit),
                    Test::Between(from, to) => {
                        let (from, to) = (key(from), key(to));
                        let night = *variable == Variable::RequestTimeOfDay && from > to;
                        if night {
                            now >= from || now <= to
                        } else {
                            from <= now && now <= to
                        }
                    }
                }
            }
        }
    }

    fn values(&self, variable: &Variable, request: &Request<'_>) -> Option<Vec<String>> {
        let principal = &request.principal;
        let user = principal.kind == "user";
        let time = request.time.to_rfc3339();
        let one = |value: &str| Some(vec![value.to_owned()]);
        match variable.name().as_str() {
            "request.principal.type" => one(&principal.kind),
            "request.principal.id" => one(principal.id),
            "request.principal.compartment.id" => one(principal.compartment_id?),
            "request.user.id" if user => one(principal.id),
            "request.user.name" if user => one(principal.name?),
            "request.groups.id" if user => {
                Some(principal.groups.iter().map(|g| g.id.to_owned()).collect())
            }
            "request.permission" => one(request.permission.name()),
            "request.operation" => one(request.target.operation.unwrap().name()),
            "request.region" => one(request.region_key?),
            "request.networkSource.name" => Some(
                request
                    .network_sources?
                    .iter()
                    .map(|n| (*n).to_owned())
                    .collect(),
            ),
            "request.utc-timestamp" => one(&format!("{}Z", &time[..19])),
            "request.utc-timestamp.month-of-year" => one(time[5..7].trim_start_matches('0')),
            "request.utc-timestamp.day-of-month" => one(time[8..10].trim_start_matches('0')),
            "request.utc-timestamp.day-of-week" => {
                one(TIMES.iter().find(|(text, _)| text[..10] == time[..10])?.1)
            }
            "request.utc-timestamp.time-of-day" => one(&time[11..19]),
            "target.compartment.id" => one(request.target.compartment_id),
            "target.compartment.name" => {
                let own = self
                    .compartments
                    .iter()
                    .find(|c| &*c.id == request.target.compartment_id);
                one(own.map_or("root", |c| &c.name))
            }
            "target.model.id" => one(request.target.model_id?),
            _ => {
                let given: Vec<String> = request
                    .target
                    .attributes
                    .iter()
                    .filter(|(v, _)| v == variable)
                    .map(|(_, t)| t.to_string())
                    .collect();
                (!given.is_empty()).then_some(given)
            }
        }
    }
}

fn subject(subject: &Subject, principal: &Requester<'_>) -> bool {
    let named = |names: &[QualifiedName], groups: &[Membership<'_>]| {
        names.iter().any(|name| {
            groups.iter().any(|group| {
                group.name.to_lowercase() == name.name.to_lowercase()
                    && group.domain.unwrap_or("default").to_lowercase()
                        == name.domain.as_deref().unwrap_or("default").to_lowercase()
            })
        })
    };
    match subject {
        Subject::AnyUser => true,
        Subject::AnyGroup => principal.kind != "service",
        Subject::Groups(names) => named(names, &principal.groups),
        Subject::GroupIds(ids) => principal
            .groups
            .iter()
            .any(|group| ids.iter().any(|id| id == group.id)),
        Subject::DynamicGroups(names) => named(names, &principal.dynamic_groups),
        Subject::DynamicGroupIds(ids) => principal
            .dynamic_groups
            .iter()
            .any(|group| ids.iter().any(|id| id == group.id)),
        Subject::Services(names) => {
            principal.kind == "service" && names.iter().any(|name| name == principal.name.unwrap())
        }
    }
}

fn equal(variable: &Variable, wanted: &Value, value: &str) -> bool {
    match wanted {
        Value::Pattern(pattern) => glob(
            &pattern.to_lowercase().chars().collect::<Vec<_>>(),
            &value.to_lowercase().chars().collect::<Vec<_>>(),
        ),
        Value::Literal(text) => sortable(variable, text) == sortable(variable, value),
    }
}

fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        Some((first, rest)) => text.first() == Some(first) && glob(rest, &text[1..]),
    }
}

/// Times written in full, numbers with leading zeros, all else in lower case: then texts sort.
fn sortable(variable: &Variable, text: &str) -> String {
    let text = text.to_lowercase();
    let clock = |clock: &str| {
        if clock.len() == 5 {
            format!("{clock}:00")
        } else {
            clock.to_owned()
        }
    };
    match variable.name().as_str() {
        "request.utc-timestamp" => match text.trim_end_matches('z').split_once('t') {
            Some((date, time)) => format!("{date}t{}", clock(time)),
            None => format!("{}t00:00:00", text.trim_end_matches('z')),
        },
        "request.utc-timestamp.time-of-day" => clock(text.trim_end_matches('z')),
        "request.utc-timestamp.month-of-year" | "request.utc-timestamp.day-of-month" => {
            format!("{text:0>2}")
        }
        _ => text,
    }
}
