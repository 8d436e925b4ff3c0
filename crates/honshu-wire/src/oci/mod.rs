//! The JSON of OCI's management and identity planes: exactly the field names, optional fields and times
//! that the OCI SDKs send and take (OCI API reference, Generative AI 20231130 and Identity 20160918).
//!
//! Requests are read by [`parse`], which reports every problem of a body at once, each with its JSON path,
//! and accepts fields that it does not know, since newer SDKs send them. Answers leave optional fields out
//! where the SDKs take absence, and write `null` only where a field is required and empty.
//! This module holds shapes and no rule that depends on state: names, limits and transitions are
//! `honshu-control`'s business.

mod api_keys;
mod identity;
mod models;
mod read;
mod tags;

#[cfg(test)]
mod tests;

pub use api_keys::{
    ApiKey, ApiKeyCollection, ApiKeyItem, ApiKeySummary, ChangeApiKeyCompartmentDetails,
    CreateApiKeyDetails, KeyDetails, RenewApiKeyDetails, SetApiKeyStateDetails,
    UpdateApiKeyDetails,
};
pub use identity::{
    Compartment, CreateCompartmentDetails, CreatePolicyDetails, Policy, Region, RegionSubscription,
    Tenancy, UpdateCompartmentDetails, UpdatePolicyDetails, UpdateTenancyDetails,
};
pub use models::{Model, ModelCollection, ModelSummary};
pub use read::{BODY_DEPTH_MAX, Details, Fields, parse};
pub use tags::{DefinedTags, FreeformTags};
