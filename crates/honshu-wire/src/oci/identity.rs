//! Compartments, policies, tenancies and regions (OCI API reference, Identity 20160918).
//!
//! Lists of this plane are bare JSON arrays, so there are no collection types.

use honshu_domain::{Ocid, Timestamp};
use serde::{Deserialize, Serialize};

use super::read::{Details, Fields};
use super::tags::{DefinedTags, FreeformTags};

/// A compartment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compartment {
    /// OCID; that of the root compartment is the tenancy's.
    pub id: Ocid,
    /// The parent; for the root compartment its own id, as the SDKs require a text.
    pub compartment_id: Ocid,
    /// Name, unique in its parent without regard to case.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// When it was made.
    pub time_created: Timestamp,
    /// `ACTIVE`.
    pub lifecycle_state: String,
    /// Why it is inactive: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive_status: Option<i64>,
    /// Whether the caller may inspect it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_accessible: Option<bool>,
    /// Tags.
    #[serde(default)]
    pub freeform_tags: FreeformTags,
    /// Tags.
    #[serde(default)]
    pub defined_tags: DefinedTags,
}

/// Body of CreateCompartment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateCompartmentDetails {
    /// The parent.
    pub compartment_id: String,
    /// The name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeform_tags: Option<FreeformTags>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_tags: Option<DefinedTags>,
}

/// Body of UpdateCompartment: absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateCompartmentDetails {
    /// The new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The new tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeform_tags: Option<FreeformTags>,
    /// The new tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_tags: Option<DefinedTags>,
}

/// A policy: statements that hang on a compartment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// OCID.
    pub id: Ocid,
    /// The compartment it hangs on.
    pub compartment_id: Ocid,
    /// Name, unique in its compartment.
    pub name: String,
    /// The statements, as they were written.
    pub statements: Vec<String>,
    /// What it is for.
    pub description: String,
    /// When it was made.
    pub time_created: Timestamp,
    /// `ACTIVE`.
    pub lifecycle_state: String,
    /// Why it is inactive: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive_status: Option<i64>,
    /// The version of the language; absent is the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_date: Option<String>,
    /// Tags.
    #[serde(default)]
    pub freeform_tags: FreeformTags,
    /// Tags.
    #[serde(default)]
    pub defined_tags: DefinedTags,
}

/// Body of CreatePolicy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatePolicyDetails {
    /// Where it hangs.
    pub compartment_id: String,
    /// The name.
    pub name: String,
    /// The statements.
    pub statements: Vec<String>,
    /// What it is for.
    pub description: String,
    /// The version of the language, `YYYY-MM-DD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_date: Option<String>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeform_tags: Option<FreeformTags>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_tags: Option<DefinedTags>,
}

/// Body of UpdatePolicy: absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdatePolicyDetails {
    /// The new text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The new statements, replacing the old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statements: Option<Vec<String>>,
    /// The version of the language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_date: Option<String>,
    /// The new tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeform_tags: Option<FreeformTags>,
    /// The new tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_tags: Option<DefinedTags>,
}

/// The tenancy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenancy {
    /// OCID; also that of the root compartment.
    pub id: Ocid,
    /// Name.
    pub name: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The three-letter key of the home region.
    pub home_region_key: String,
    /// Whether deny statements count. Honshu's own: OCI has this switch in its console only.
    pub is_deny_enabled: bool,
    /// Identity provider compatibility name: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upi_idcs_compatibility_layer_endpoint: Option<String>,
    /// Tags.
    #[serde(default)]
    pub freeform_tags: FreeformTags,
    /// Tags.
    #[serde(default)]
    pub defined_tags: DefinedTags,
}

/// Body of UpdateTenancy, an operation of Honshu's own: absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateTenancyDetails {
    /// Whether deny statements count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_deny_enabled: Option<bool>,
}

/// A region as ListRegions answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Three letters, such as `ORD`.
    pub key: String,
    /// For example `us-chicago-1`.
    pub name: String,
}

/// A region that the tenancy uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionSubscription {
    /// Three letters.
    pub region_key: String,
    /// The name.
    pub region_name: String,
    /// `READY`.
    pub status: String,
    /// Whether it is the home region.
    pub is_home_region: bool,
}

impl Details for CreateCompartmentDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            compartment_id: fields.required_text("compartmentId"),
            name: fields.required_text("name"),
            description: fields.required_text("description"),
            freeform_tags: fields.freeform_tags(),
            defined_tags: fields.defined_tags(),
        }
    }
}

impl Details for UpdateCompartmentDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            name: fields.text("name"),
            description: fields.text("description"),
            freeform_tags: fields.freeform_tags(),
            defined_tags: fields.defined_tags(),
        }
    }
}

impl Details for CreatePolicyDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        let statements = fields.texts("statements");
        if statements.is_none() {
            fields.problem("statements", "a list of texts is required");
        }
        Self {
            compartment_id: fields.required_text("compartmentId"),
            name: fields.required_text("name"),
            statements: statements.unwrap_or_default(),
            description: fields.required_text("description"),
            version_date: fields.text("versionDate"),
            freeform_tags: fields.freeform_tags(),
            defined_tags: fields.defined_tags(),
        }
    }
}

impl Details for UpdateTenancyDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            is_deny_enabled: fields.flag("isDenyEnabled"),
        }
    }
}

impl Details for UpdatePolicyDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            description: fields.text("description"),
            statements: fields.texts("statements"),
            version_date: fields.text("versionDate"),
            freeform_tags: fields.freeform_tags(),
            defined_tags: fields.defined_tags(),
        }
    }
}
