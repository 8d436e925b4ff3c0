//! Tags that callers hang on resources; carried and given back, never interpreted here.

use std::collections::BTreeMap;

/// Simple key-value pairs without a namespace.
pub type FreeformTags = BTreeMap<String, String>;

/// Namespace to key to value; values are texts, numbers or booleans.
pub type DefinedTags = BTreeMap<String, BTreeMap<String, serde_json::Value>>;
