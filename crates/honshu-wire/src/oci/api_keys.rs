//! API keys of the Generative AI service (OCI API reference, `ApiKey` and its details).

use std::fmt;

use honshu_domain::{Ocid, Timestamp};
use serde::{Deserialize, Serialize};

use super::read::{Details, Fields};
use super::tags::{DefinedTags, FreeformTags};

/// One secret that a create or renew asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyDetails {
    /// The secret's name, unique in its key.
    pub key_name: String,
    /// When it ends; the service's default (three months) when absent, as the SDKs allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_expiry: Option<Timestamp>,
}

/// Body of CreateApiKey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateApiKeyDetails {
    /// The key's name for people.
    pub display_name: String,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where the key is to live.
    pub compartment_id: String,
    /// One or two secrets.
    pub key_details: Vec<KeyDetails>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeform_tags: Option<FreeformTags>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_tags: Option<DefinedTags>,
}

/// Body of UpdateApiKey: absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateApiKeyDetails {
    /// The new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The new text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The new tags, replacing the old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeform_tags: Option<FreeformTags>,
    /// The new tags, replacing the old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_tags: Option<DefinedTags>,
}

/// Body of RenewApiKey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewApiKeyDetails {
    /// Which secret, and its new end.
    pub details: KeyDetails,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeform_tags: Option<FreeformTags>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_tags: Option<DefinedTags>,
}

/// Body of SetApiKeyState.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetApiKeyStateDetails {
    /// Which secret.
    pub key_name: String,
    /// `ACTIVE`, `INACTIVE` or `REVOKED`.
    pub state: String,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeform_tags: Option<FreeformTags>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_tags: Option<DefinedTags>,
}

/// Body of ChangeApiKeyCompartment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeApiKeyCompartmentDetails {
    /// Where the key is to live.
    pub compartment_id: String,
}

/// One secret of a key. `Debug` leaves the secret out.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyItem {
    /// The secret itself: only in the answers of create and renew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its name.
    pub key_name: String,
    /// What may be shown of it: `sk-****` and its last four characters.
    pub key_mask: String,
    /// When it was made.
    pub time_created: Timestamp,
    /// When it ends.
    pub time_expiry: Timestamp,
    /// When it was last made active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_activated: Option<Timestamp>,
    /// When it was last made inactive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_deactivated: Option<Timestamp>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_revoked: Option<Timestamp>,
    /// When it last authenticated a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_last_used: Option<Timestamp>,
    /// `ACTIVE`, `INACTIVE`, `REVOKED` or `EXPIRED`.
    pub state: String,
}

impl fmt::Debug for ApiKeyItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyItem")
            .field("key_name", &self.key_name)
            .field("key_mask", &self.key_mask)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A key as get, create, update, renew and set-state answer it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// OCID.
    pub id: Ocid,
    /// Name for people.
    pub display_name: String,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it lives.
    pub compartment_id: Ocid,
    /// When it was made.
    pub time_created: Timestamp,
    /// When it was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_updated: Option<Timestamp>,
    /// Its secrets, one or two.
    pub keys: Vec<ApiKeyItem>,
    /// `ACTIVE`; create and delete finish before they answer.
    pub lifecycle_state: String,
    /// More about the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle_details: Option<String>,
    /// Tags.
    #[serde(default)]
    pub freeform_tags: FreeformTags,
    /// Tags.
    #[serde(default)]
    pub defined_tags: DefinedTags,
    /// Tags that the service itself hangs on; none today.
    #[serde(default)]
    pub system_tags: DefinedTags,
}

/// A key in a list; the same fields as [`ApiKey`], never with a secret.
pub type ApiKeySummary = ApiKey;

/// Answer of ListApiKeys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApiKeyCollection {
    /// One page of keys.
    pub items: Vec<ApiKeySummary>,
}

impl Details for KeyDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            key_name: fields.required_text("keyName"),
            time_expiry: fields.time("timeExpiry"),
        }
    }
}

impl Details for CreateApiKeyDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            display_name: fields.required_text("displayName"),
            description: fields.text("description"),
            compartment_id: fields.required_text("compartmentId"),
            key_details: fields.required_objects("keyDetails"),
            freeform_tags: fields.freeform_tags(),
            defined_tags: fields.defined_tags(),
        }
    }
}

impl Details for UpdateApiKeyDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            display_name: fields.text("displayName"),
            description: fields.text("description"),
            freeform_tags: fields.freeform_tags(),
            defined_tags: fields.defined_tags(),
        }
    }
}

impl Details for RenewApiKeyDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            details: fields.required_object("details").unwrap_or(KeyDetails {
                key_name: String::new(),
                time_expiry: None,
            }),
            freeform_tags: fields.freeform_tags(),
            defined_tags: fields.defined_tags(),
        }
    }
}

impl Details for SetApiKeyStateDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            key_name: fields.required_text("keyName"),
            state: fields.required_text("state"),
            freeform_tags: fields.freeform_tags(),
            defined_tags: fields.defined_tags(),
        }
    }
}

impl Details for ChangeApiKeyCompartmentDetails {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            compartment_id: fields.required_text("compartmentId"),
        }
    }
}
