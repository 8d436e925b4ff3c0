//! What the handlers of stored objects share: a request is taken apart once, looked at in one order, and answered
//! in the shape of its plane.

use std::future::Future;

use axum::RequestPartsExt as _;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{self, MethodFilter, MethodRouter};
use bytes::Bytes;
use futures_util::stream::Stream;
use honshu_domain::{Error, Page, Result, Scope};
use honshu_policy::{Authorizer as _, Permission, Target};
use http::StatusCode;
use http::request::Parts;

use super::scope;
use crate::app::App;
use crate::context::Context;
use crate::edge::BodyLimit;
use crate::extract::Parameters;
use crate::{authn, openai, respond};

/// A request to what is stored. Nothing of it has been looked at: each handler begins with who asks.
pub(super) struct Visit {
    pub(super) app: App,
    pub(super) context: Context,
    pub(super) parts: Parts,
    body: Body,
    ids: Vec<String>,
}

pub(super) fn gets<F, Fut>(work: F) -> MethodRouter<App>
where
    F: Fn(Visit) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response>> + Send + 'static,
{
    on(MethodFilter::GET, work)
}

pub(super) fn posts<F, Fut>(work: F) -> MethodRouter<App>
where
    F: Fn(Visit) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response>> + Send + 'static,
{
    on(MethodFilter::POST, work)
}

pub(super) fn deletes<F, Fut>(work: F) -> MethodRouter<App>
where
    F: Fn(Visit) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response>> + Send + 'static,
{
    on(MethodFilter::DELETE, work)
}

/// A route for one method. What `work` refuses is logged and answered here.
fn on<F, Fut>(method: MethodFilter, work: F) -> MethodRouter<App>
where
    F: Fn(Visit) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response>> + Send + 'static,
{
    routing::on(
        method,
        move |State(app): State<App>, request: Request| async move {
            let context = respond::context_of(&request);
            let visit = Visit::of(app, context.clone(), request).await;
            respond::finish(&context, work(visit).await)
        },
    )
}

impl Visit {
    async fn of(app: App, context: Context, request: Request) -> Self {
        let (mut parts, body) = request.into_parts();
        let ids = match parts.extract::<Path<Vec<(String, String)>>>().await {
            Ok(Path(ids)) => ids.into_iter().map(|(_, id)| id).collect(),
            // What is no text names nothing, and as it stands in the target no id looks like it.
            Err(_) => vec![parts.uri.path().to_owned()],
        };
        Self {
            app,
            context,
            parts,
            body,
            ids,
        }
    }

    /// The id in the path; the last one where there are two.
    pub(super) fn id(&self) -> &str {
        self.ids.last().map_or("", String::as_str)
    }

    /// The id in the path of what holds the other one.
    pub(super) fn owner_id(&self) -> &str {
        self.ids.first().map_or("", String::as_str)
    }

    /// The answer for an id that names nothing here, or nothing that this caller may see.
    pub(super) fn missing(&self, what: &str) -> Error {
        scope::not_found(what, self.id())
    }

    pub(super) fn parameters(&self) -> Parameters {
        Parameters::of(&self.parts.uri)
    }

    /// `after`, `limit` and `order` of a list.
    pub(super) fn page(&self, rules: PageRules) -> Result<Page> {
        rules.read(&self.parameters())
    }

    /// The caller's scope, if it may do anything there; see [`scope::allowed`].
    pub(super) fn scope(&self, denied: impl FnOnce() -> Error) -> Result<Scope> {
        scope::allowed(&self.app, &self.context, &self.parts, denied)
    }

    /// [`Self::scope`], with the answer for an id that names nothing for whoever may do nothing.
    pub(super) fn scope_of(&self, what: &str) -> Result<Scope> {
        self.scope(|| self.missing(what))
    }

    /// The caller's scope, if it has `permission` in the compartment. Reading the body is left to [`Self::body`].
    pub(super) fn permitted(
        &self,
        permission: Permission,
        denied: impl FnOnce() -> Error,
    ) -> Result<Scope> {
        let caller = authn::data_plane(&self.app, &self.context, &self.parts)?;
        let compartment = authn::compartment(&self.parts.headers, &caller.principal)?;
        let target = Target::new(compartment.as_str());
        self.app
            .control
            .authorizer(&self.context.region)
            .authorize(&caller.principal, permission, &target)
            .map_err(|refusal| match refusal.decision_id() {
                Some(id) => denied().with_decision_id(id),
                None => denied(),
            })?;
        Ok(scope::of(&self.parts.headers, &self.context, &compartment))
    }

    /// The body, of an authenticated caller only.
    pub(super) async fn body(&mut self) -> Result<Bytes> {
        let caller = authn::data_plane(&self.app, &self.context, &self.parts)?;
        let body = std::mem::take(&mut self.body);
        crate::body::read(body, caller.body_rule.as_ref()).await
    }

    /// The body of an upload, of an authenticated caller only, piece by piece.
    pub(super) fn upload(&mut self) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let caller = authn::data_plane(&self.app, &self.context, &self.parts)?;
        if let Some(limit) = self.parts.extensions.get::<BodyLimit>() {
            limit.take_upload();
        }
        let body = std::mem::take(&mut self.body);
        Ok(crate::body::pieces(body, caller.body_rule.as_ref()))
    }

    /// [`Self::body`], if it says that it is JSON.
    pub(super) async fn json_body(&mut self) -> Result<Bytes> {
        authn::data_plane(&self.app, &self.context, &self.parts)?;
        openai::json_content_type(&self.parts.headers)?;
        self.body().await
    }

    /// The request as it came, for a handler that reads its body in another way.
    pub(super) fn into_request(self) -> (App, Context, Request) {
        (
            self.app,
            self.context,
            Request::from_parts(self.parts, self.body),
        )
    }
}

/// What a list takes, and what stands where nothing is said.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageRules {
    pub(super) default: u32,
    pub(super) max: u32,
    /// Oldest first where the caller does not say.
    pub(super) ascending: bool,
}

impl PageRules {
    /// Twenty, newest first (OpenAI API reference).
    pub(super) const USUAL: Self = Self {
        default: 20,
        max: 100,
        ascending: false,
    };

    fn read(self, parameters: &Parameters) -> Result<Page> {
        let limit = match parameters.get("limit")? {
            None => self.default,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=self.max).contains(limit))
                .ok_or_else(|| {
                    let what = format!("expected a whole number from 1 to {}", self.max);
                    Error::invalid_at("limit", what)
                })?,
        };
        let ascending = match parameters.get("order")? {
            None => self.ascending,
            Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(Error::invalid_at("order", "expected `asc` or `desc`")),
        };
        Ok(Page {
            after: parameters.text("after")?.filter(|after| !after.is_empty()),
            limit,
            ascending,
        })
    }
}

/// 200 with a body that is ready.
pub(super) fn ok(body: Bytes) -> Result<Response> {
    Ok(respond::json_bytes(StatusCode::OK, body))
}
