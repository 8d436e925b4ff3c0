//! Regions: the name that hosts and OCIDs carry, and the three-letter key that policies compare.

use std::fmt;
use std::sync::Arc;

/// A region, for example `ap-osaka-1` with the key `KIX`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Region {
    name: Arc<str>,
    key: Arc<str>,
}

impl Region {
    /// A region by its name and key. The key is kept in upper case.
    pub fn new(name: &str, key: &str) -> Self {
        Self {
            name: name.into(),
            key: key.to_ascii_uppercase().into(),
        }
    }

    /// The region of a server without configuration: `local-1`, `LCL`.
    pub fn local() -> Self {
        Self::new("local-1", "LCL")
    }

    /// For example `ap-osaka-1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name, shared.
    pub fn name_arc(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// For example `KIX`: the value of `request.region` in policies.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The key of a public OCI region (OCI documentation, regions with Generative AI), `LCL` for `local-1`.
pub fn known_region_key(name: &str) -> Option<&'static str> {
    Some(match name {
        "local-1" => "LCL",
        "us-ashburn-1" => "IAD",
        "us-chicago-1" => "ORD",
        "us-phoenix-1" => "PHX",
        "us-sanjose-1" => "SJC",
        "ca-toronto-1" => "YYZ",
        "ca-montreal-1" => "YUL",
        "sa-saopaulo-1" => "GRU",
        "eu-frankfurt-1" => "FRA",
        "eu-amsterdam-1" => "AMS",
        "eu-zurich-1" => "ZRH",
        "uk-london-1" => "LHR",
        "me-riyadh-1" => "RUH",
        "me-dubai-1" => "DXB",
        "me-jeddah-1" => "JED",
        "ap-hyderabad-1" => "HYD",
        "ap-mumbai-1" => "BOM",
        "ap-osaka-1" => "KIX",
        "ap-tokyo-1" => "NRT",
        "ap-seoul-1" => "ICN",
        "ap-singapore-1" => "SIN",
        "ap-sydney-1" => "SYD",
        "ap-melbourne-1" => "MEL",
        _ => return None,
    })
}
