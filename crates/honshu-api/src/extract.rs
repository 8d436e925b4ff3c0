//! What handlers take from a request's target. None of it refuses a request by itself: whoever is not
//! authenticated gets no other answer than 401, and every answer has its plane's shape.

use std::convert::Infallible;

use axum::RequestPartsExt as _;
use axum::extract::{FromRequestParts, Path, Query};
use honshu_domain::{Error, Result};
use http::Uri;
use http::request::Parts;

/// The one parameter of a path, percent-decoded.
#[derive(Debug)]
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(match parts.extract::<Path<String>>().await {
            Ok(Path(id)) => id,
            // What is no text names nothing, and as it stands in the target no id looks like it.
            Err(_) => parts.uri.path().to_owned(),
        }))
    }
}

/// The parameters of a query, in order.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.uri))
    }
}

impl Parameters {
    /// The parameters of a target.
    pub(crate) fn of(uri: &Uri) -> Self {
        let pairs = Query::try_from_uri(uri).map(|Query(pairs)| pairs);
        Self(pairs.unwrap_or_default())
    }

    /// A parameter that may stand once.
    ///
    /// # Errors
    /// 400 when it stands several times: two readers could take different ones.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>> {
        match self.all(name).as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(Error::invalid_at(name, "is given more than once")),
        }
    }

    /// [`Self::get`], owned.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>> {
        Ok(self.get(name)?.map(ToOwned::to_owned))
    }

    /// A parameter that may be repeated.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The members of a parameter that is an object, as the official SDKs write it: `metadata[key]=value`.
    ///
    /// # Errors
    /// 400 when a member stands several times.
    pub(crate) fn members(&self, name: &str) -> Result<Vec<(String, String)>> {
        let member = |key: &str| {
            let inner = key.strip_prefix(name)?.strip_prefix('[')?;
            inner.strip_suffix(']').map(ToOwned::to_owned)
        };
        let mut found: Vec<(String, String)> = Vec::new();
        for (key, value) in &self.0 {
            let Some(inner) = member(key) else {
                continue;
            };
            if found.iter().any(|(known, _)| *known == inner) {
                return Err(Error::invalid_at(key.as_str(), "is given more than once"));
            }
            found.push((inner, value.clone()));
        }
        Ok(found)
    }
}
