//! What is decided about: who asks, for what, on what, when and from where.
//!
//! Everything a condition can read stands here. This crate reads no clock and no store, so a
//! decision is a function of the request and the policies.

use std::borrow::Cow;

use honshu_domain::{Principal, PrincipalKind, Timestamp};

use crate::table::{Operation, Permission};
use crate::variable::Variable;

/// The identity domain of groups that name none.
pub const DEFAULT_DOMAIN: &str = "Default";

/// The group whose members no deny statement stops, if it is in the default domain.
pub const ADMINISTRATORS: &str = "Administrators";

/// The kinds of principal that the language itself tells apart.
pub(crate) mod kind {
    pub(crate) const USER: &str = "user";
    pub(crate) const SERVICE: &str = "service";
}

/// A group that a principal is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership<'a> {
    /// OCID of the group.
    pub id: &'a str,
    /// Its identity domain; none means the default domain.
    pub domain: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Requester<'a> {
    /// What `request.principal.type` says: `user`, `generativeaiapikey`, `service`, …
    pub kind: Cow<'a, str>,
    /// OCID of the user or of the key; for a service its name.
    pub id: &'a str,
    /// The tenancy it belongs to.
    pub tenancy_id: &'a str,
    /// The compartment it lives in.
    pub compartment_id: Option<&'a str>,
    /// Its name.
    pub name: Option<&'a str>,
    /// Groups of a user. Other principals are in no group.
    pub groups: Vec<Membership<'a>>,
    /// Dynamic groups of a resource.
    pub dynamic_groups: Vec<Membership<'a>>,
    /// Tags of the principal's groups and compartment, as [`Variable::Tag`] and value.
    pub attributes: Vec<(Variable, Cow<'a, str>)>,
}

impl<'a> Requester<'a> {
    /// A principal of which only the necessary is known.
    #[must_use]
    pub fn new(kind: &'a str, id: &'a str, tenancy_id: &'a str) -> Self {
        Requester {
            kind: Cow::Borrowed(kind),
            id,
            tenancy_id,
            compartment_id: None,
            name: None,
            groups: Vec::new(),
            dynamic_groups: Vec::new(),
            attributes: Vec::new(),
        }
    }

    /// Whether deny statements leave this principal alone: a user in the default domain's
    /// `Administrators` (OCI, deny policies).
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.kind == kind::USER
            && self.groups.iter().any(|group| {
                group.name.eq_ignore_ascii_case(ADMINISTRATORS)
                    && group
                        .domain
                        .is_none_or(|domain| domain.eq_ignore_ascii_case(DEFAULT_DOMAIN))
            })
    }
}

impl<'a> From<&'a Principal> for Requester<'a> {
    /// Groups of a [`Principal`] are those of the default domain. A key is in no group, whatever
    /// the principal says.
    fn from(principal: &'a Principal) -> Self {
        let groups = match principal.kind {
            PrincipalKind::User => principal
                .groups
                .iter()
                .map(|(id, name)| Membership {
                    id: id.as_str(),
                    domain: None,
                    name,
                })
                .collect(),
            PrincipalKind::ApiKey => Vec::new(),
        };
        Requester {
            kind: Cow::Borrowed(principal.kind.as_str()),
            id: principal.id.as_str(),
            tenancy_id: principal.tenancy.as_str(),
            compartment_id: Some(principal.compartment.as_str()),
            name: Some(&principal.name),
            groups,
            dynamic_groups: Vec::new(),
            attributes: Vec::new(),
        }
    }
}

/// What is acted on.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// OCID of the compartment (or tenancy) acted in; for a create, where the new thing will be.
    pub compartment_id: &'a str,
    /// The model that would answer, by its catalogue ID and never by an alias.
    pub model_id: Option<&'a str>,
    /// The API operation, where the permission alone does not tell it.
    pub operation: Option<Operation>,
    /// Other target variables that apply, such as [`Variable::TargetPolicyType`], and tags.
    pub attributes: Vec<(Variable, Cow<'a, str>)>,
}

impl<'a> Target<'a> {
    /// A target of which only the compartment is known.
    #[must_use]
    pub fn new(compartment_id: &'a str) -> Self {
        Target {
            compartment_id,
            model_id: None,
            operation: None,
            attributes: Vec::new(),
        }
    }

    /// Names the model.
    #[must_use]
    pub fn model(mut self, model_id: &'a str) -> Self {
        self.model_id = Some(model_id);
        self
    }

    /// Names the operation.
    #[must_use]
    pub fn operation(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Gives the value of a target variable.
    #[must_use]
    pub fn with(mut self, variable: Variable, value: impl Into<Cow<'a, str>>) -> Self {
        self.attributes.push((variable, value.into()));
        self
    }
}

/// One question: may this principal use this permission on this target?
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who asks.
    pub principal: Requester<'a>,
    /// For what.
    pub permission: Permission,
    /// On what.
    pub target: Target<'a>,
    /// Three-letter key of the region.
    pub region_key: Option<&'a str>,
    /// When the request came.
    pub time: Timestamp,
    /// Names of the network sources that the caller's address is in; `None` if nobody looked, so
    /// that the variable does not apply.
    pub network_sources: Option<&'a [&'a str]>,
}

impl Request<'_> {
    /// The operation: the target's, or the one that the permission stands for.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        self.target
            .operation
            .or_else(|| self.permission.primary_operation())
    }

    /// Calls `test` with the values of the variable until it says yes.
    ///
    /// `None` if the variable does not apply to the request, which makes every comparison with it
    /// false.
    pub(crate) fn any_value(
        &self,
        variable: &Variable,
        compartment_name: &str,
        mut test: impl FnMut(&str) -> bool,
    ) -> Option<bool> {
        use Variable as V;
        let user = self.principal.kind == kind::USER;
        let civil = || crate::value::Civil::from_unix(self.time.as_seconds());
        Some(match variable {
            V::RequestPrincipalType => test(&self.principal.kind),
            V::RequestPrincipalId => test(self.principal.id),
            V::RequestPrincipalCompartmentId => test(self.principal.compartment_id?),
            V::RequestUserId => user.then(|| test(self.principal.id))?,
            V::RequestUserName => {
                let name = self.principal.name?;
                user.then(|| test(name))?
            }
            V::RequestGroupsId => {
                user.then(|| self.principal.groups.iter().any(|group| test(group.id)))?
            }
            V::RequestPermission => test(self.permission.name()),
            V::RequestOperation => test(self.operation()?.name()),
            V::RequestRegion => test(self.region_key?),
            V::RequestNetworkSourceName => self.network_sources?.iter().any(|name| test(name)),
            V::RequestUtcTimestamp => test(&civil().timestamp()),
            V::RequestMonthOfYear => test(&civil().month.to_string()),
            V::RequestDayOfMonth => test(&civil().day.to_string()),
            V::RequestDayOfWeek => test(crate::value::WEEKDAYS[civil().weekday]),
            V::RequestTimeOfDay => test(&civil().time_of_day()),
            V::TargetCompartmentId => test(self.target.compartment_id),
            V::TargetCompartmentName => test(compartment_name),
            V::TargetModelId => test(self.target.model_id?),
            other => {
                let mut applies = false;
                let mut found = false;
                for (variable, value) in self.attributes() {
                    if variable == other {
                        applies = true;
                        found = found || test(value);
                    }
                }
                applies.then_some(found)?
            }
        })
    }

    /// The variables whose values the asker gives, each with one of its values.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&Variable, &str)> {
        self.target
            .attributes
            .iter()
            .chain(&self.principal.attributes)
            .map(|(variable, value)| (variable, &**value))
            .filter(|(variable, _)| is_attribute(variable))
    }

    /// The value of a variable that has an order.
    pub(crate) fn number(&self, variable: &Variable) -> Option<i64> {
        let seconds = self.time.as_seconds();
        let civil = || crate::value::Civil::from_unix(seconds);
        match variable {
            Variable::RequestUtcTimestamp => Some(seconds),
            Variable::RequestMonthOfYear => Some(i64::from(civil().month)),
            Variable::RequestDayOfMonth => Some(i64::from(civil().day)),
            Variable::RequestTimeOfDay => Some(i64::from(civil().second_of_day)),
            _ => None,
        }
    }
}

/// Whether the asker gives the variable's values, rather than the request having them.
pub(crate) fn is_attribute(variable: &Variable) -> bool {
    use Variable as V;
    matches!(
        variable,
        V::TargetPolicyId
            | V::TargetPolicyName
            | V::TargetPolicyType
            | V::TargetUserId
            | V::TargetUserName
            | V::TargetGroupId
            | V::TargetGroupName
            | V::TargetGroupMember
            | V::TargetDynamicGroupId
            | V::TargetDynamicGroupName
            | V::Tag(..)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_has_its_value_either_in_the_request_or_among_the_attributes() {
        let mut request = Request {
            principal: Requester::new("user", "u", "t"),
            permission: Permission::GENERATIVE_AI_CHAT,
            target: Target::new("c").model("m"),
            region_key: Some("KIX"),
            time: Timestamp::from_seconds(0),
            network_sources: Some(&["corp"]),
        };
        request.principal.name = Some("n");
        request.principal.compartment_id = Some("c");
        for variable in Variable::NAMED {
            let mut ask = request.clone();
            let bare = ask.any_value(variable, "", |_| true).is_some();
            assert_eq!(bare, !is_attribute(variable), "{variable}");
            ask.target = ask.target.with(variable.clone(), "given");
            assert!(ask.any_value(variable, "", |_| true).is_some());
            assert_eq!(
                ask.any_value(variable, "", |value| value == "given"),
                Some(is_attribute(variable)),
                "{variable}"
            );
        }
    }
}
