//! The variables that conditions may name, with their kinds.
//!
//! Names from the OCI policy reference (general variables, IAM) and from the OCI Generative AI
//! policies page (`target.model.id`). A name that is not here is an error in a statement: a typing
//! slip would otherwise be a condition that silently never holds.

use std::fmt;

use serde::{Serialize, Serializer};

/// How the values of a variable compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VariableKind {
    /// A text or an OCID, compared without regard to case.
    Text,
    /// Several texts: a comparison holds if it holds for one of them.
    List,
    /// The name of a permission.
    Permission,
    /// The name of an operation.
    Operation,
    /// The three-letter key of a region.
    Region,
    /// `'true'` or `'false'`.
    Boolean,
    /// A whole number within bounds.
    Number {
        /// Smallest value.
        min: u32,
        /// Largest value.
        max: u32,
    },
    /// An English name of a day.
    Weekday,
    /// A moment in UTC.
    Instant,
    /// A time of day in UTC.
    TimeOfDay,
}

/// Where a tag is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TagSource {
    /// `target.resource.tag.…`
    TargetResource,
    /// `target.resource.compartment.tag.…`
    TargetCompartment,
    /// `request.principal.group.tag.…`
    PrincipalGroup,
    /// `request.principal.compartment.tag.…`
    PrincipalCompartment,
}

impl TagSource {
    const ALL: [TagSource; 4] = [
        TagSource::TargetResource,
        TagSource::TargetCompartment,
        TagSource::PrincipalGroup,
        TagSource::PrincipalCompartment,
    ];

    /// The part of the name before the namespace, with its closing dot.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            TagSource::TargetResource => "target.resource.tag.",
            TagSource::TargetCompartment => "target.resource.compartment.tag.",
            TagSource::PrincipalGroup => "request.principal.group.tag.",
            TagSource::PrincipalCompartment => "request.principal.compartment.tag.",
        }
    }
}

macro_rules! variables {
    ($($variant:ident $name:literal $kind:expr, $meaning:literal;)+) => {
        /// A variable of a condition.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Variable {
            $(#[doc = concat!("`", $name, "`: ", $meaning, ".")] $variant,)+
            /// A defined tag: source, namespace, key. Namespace and key are lower case.
            Tag(TagSource, String, String),
        }

        impl Variable {
            /// Every variable besides the tags.
            pub const NAMED: &'static [Variable] = &[$(Variable::$variant),+];

            fn fixed_name(&self) -> Option<&'static str> {
                match self {
                    $(Variable::$variant => Some($name),)+
                    Variable::Tag(..) => None,
                }
            }

            /// How its values compare.
            #[must_use]
            pub fn kind(&self) -> VariableKind {
                use VariableKind as Kind;
                match self {
                    $(Variable::$variant => $kind,)+
                    Variable::Tag(TagSource::PrincipalGroup, ..) => Kind::List,
                    Variable::Tag(..) => Kind::Text,
                }
            }

            /// What it holds, for reference pages.
            #[must_use]
            pub fn meaning(&self) -> &'static str {
                match self {
                    $(Variable::$variant => $meaning,)+
                    Variable::Tag(..) => "the value of a defined tag",
                }
            }
        }
    };
}

variables! {
    RequestPrincipalType "request.principal.type" Kind::Text, "what kind of principal asks, such as `user` or `generativeaiapikey`";
    RequestPrincipalId "request.principal.id" Kind::Text, "OCID of the principal; for an API key, of the key";
    RequestPrincipalCompartmentId "request.principal.compartment.id" Kind::Text, "OCID of the compartment in which the principal lives";
    RequestUserId "request.user.id" Kind::Text, "OCID of the user";
    RequestUserName "request.user.name" Kind::Text, "name of the user";
    RequestGroupsId "request.groups.id" Kind::List, "OCIDs of the user's groups";
    RequestPermission "request.permission" Kind::Permission, "the permission asked for";
    RequestOperation "request.operation" Kind::Operation, "the API operation, such as `Chat`";
    RequestRegion "request.region" Kind::Region, "three-letter key of the region, such as `KIX`";
    RequestNetworkSourceName "request.networkSource.name" Kind::List, "names of the network sources that the caller's address is in";
    RequestUtcTimestamp "request.utc-timestamp" Kind::Instant, "when the request came";
    RequestMonthOfYear "request.utc-timestamp.month-of-year" Kind::Number { min: 1, max: 12 }, "its month, `1` to `12`";
    RequestDayOfMonth "request.utc-timestamp.day-of-month" Kind::Number { min: 1, max: 31 }, "its day, `1` to `31`";
    RequestDayOfWeek "request.utc-timestamp.day-of-week" Kind::Weekday, "its day of the week in English, such as `Monday`";
    RequestTimeOfDay "request.utc-timestamp.time-of-day" Kind::TimeOfDay, "its time of day";
    TargetCompartmentId "target.compartment.id" Kind::Text, "OCID of the compartment acted in";
    TargetCompartmentName "target.compartment.name" Kind::Text, "name of the compartment acted in";
    TargetModelId "target.model.id" Kind::Text, "ID of the model that would answer";
    TargetPolicyId "target.policy.id" Kind::Text, "OCID of the policy acted on";
    TargetPolicyName "target.policy.name" Kind::Text, "name of the policy acted on";
    TargetPolicyType "target.policy.type" Kind::Text, "`deny` if the policy acted on has a deny statement, else `allow`";
    TargetUserId "target.user.id" Kind::Text, "OCID of the user acted on";
    TargetUserName "target.user.name" Kind::Text, "name of the user acted on";
    TargetGroupId "target.group.id" Kind::Text, "OCID of the group acted on";
    TargetGroupName "target.group.name" Kind::Text, "name of the group acted on";
    TargetGroupMember "target.group.member" Kind::Boolean, "whether the user is in the group acted on";
    TargetDynamicGroupId "target.dynamicgroup.id" Kind::Text, "OCID of the dynamic group acted on";
    TargetDynamicGroupName "target.dynamicgroup.name" Kind::Text, "name of the dynamic group acted on";
}

impl Variable {
    /// The name as statements write it.
    #[must_use]
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// Finds a variable by its name, in any case.
    #[must_use]
    pub fn find(name: &str) -> Option<Variable> {
        let named = Variable::NAMED.iter().find(|variable| {
            variable
                .fixed_name()
                .is_some_and(|fixed| fixed.eq_ignore_ascii_case(name))
        });
        if let Some(variable) = named {
            return Some(variable.clone());
        }
        TagSource::ALL.into_iter().find_map(|source| {
            let prefix = source.prefix();
            let head = name.get(..prefix.len())?;
            if !head.eq_ignore_ascii_case(prefix) {
                return None;
            }
            let (namespace, key) = name[prefix.len()..].split_once('.')?;
            if namespace.is_empty() || key.is_empty() {
                return None;
            }
            let lower = |text: &str| crate::value::fold(text).into_owned();
            Some(Variable::Tag(source, lower(namespace), lower(key)))
        })
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.fixed_name()) {
            (Variable::Tag(source, namespace, key), _) => {
                write!(f, "{}{namespace}.{key}", source.prefix())
            }
            (_, Some(name)) => f.write_str(name),
            (_, None) => Ok(()),
        }
    }
}

impl Serialize for Variable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_found_by_its_name_in_any_case() {
        for variable in Variable::NAMED {
            assert_eq!(
                Variable::find(&variable.name().to_uppercase()).as_ref(),
                Some(variable)
            );
        }
        let tag = Variable::find("Target.Resource.Tag.Ops.Cost-Center").unwrap();
        assert_eq!(tag.to_string(), "target.resource.tag.ops.cost-center");
        assert_eq!(Variable::find("target.resource.tag.ops"), None);
        assert_eq!(Variable::find("request.principal.typ"), None);
    }
}
