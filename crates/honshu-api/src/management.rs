//! OCI's management API below `/20231130`: API keys and models.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use bytes::Bytes;
use honshu_control::{ListApiKeys, OpCtx, Page, PageRequest, SortKey, Versioned};
use honshu_domain::{Error, ErrorKind, Ocid, Resolved, ResourceKind, Result};
use honshu_policy::{Authorizer, Operation, Permission, Target};
use honshu_wire::oci;
use http::request::Parts;
use http::{HeaderMap, Method};
use serde::Serialize;

use crate::app::{App, post_only};
use crate::context::Context;
use crate::extract::{Id, Parameters};
use crate::{authn, body, respond};

/// The other groups of the API: there, and not built.
const NOT_BUILT: [&str; 17] = [
    "dedicatedAiClusters",
    "endpoints",
    "generativeAiPrivateEndpoints",
    "generativeAiProjects",
    "hostedApplications",
    "hostedApplicationsIam",
    "hostedApplicationStorages",
    "hostedDeployments",
    "importedModels",
    "routingProfiles",
    "semanticStores",
    "vectorStoreConnectors",
    "vectorStoreConnectorFileSyncs",
    "workRequests",
    "modelDiscovery",
    "guardrailVersions",
    "sandboxes",
];

/// The routes.
pub(crate) fn routes() -> Router<App> {
    let mut router = Router::new()
        .route("/apikeys", post_only(create_api_key).get(list_api_keys))
        .route(
            "/apikeys/{id}",
            get(get_api_key).put(update_api_key).delete(delete_api_key),
        )
        .route("/apikeys/{id}/actions/renew", post_only(renew_api_key))
        .route(
            "/apikeys/{id}/actions/setstate",
            post_only(set_api_key_state),
        )
        .route(
            "/apikeys/{id}/actions/changeCompartment",
            post_only(change_api_key_compartment),
        )
        .route("/models", get(list_models))
        .route("/models/{id}", get(get_model));
    for group in NOT_BUILT {
        router = router
            .route(&format!("/{group}"), any(not_built))
            .route(&format!("/{group}/{{*rest}}"), any(not_built));
    }
    router
}

/// A signed call, authenticated and read.
pub(crate) struct Call {
    pub(crate) ctx: OpCtx,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// Authenticates the caller, reads the body and checks that it is the one that was signed.
    pub(crate) async fn read(app: &App, context: &Context, request: Request) -> Result<Self> {
        let (parts, body) = request.into_parts();
        let caller = authn::management_plane(app, context, &parts)?;
        let body = body::read(body, caller.body_rule.as_ref()).await?;
        Ok(Self {
            ctx: OpCtx {
                principal: caller.principal,
                region: context.region.clone(),
                request_id: context.request_id.clone(),
                now: app.clock.now(),
            },
            headers: parts.headers,
            body,
        })
    }

    pub(crate) fn if_match(&self) -> Result<Option<&str>> {
        self.header("if-match")
    }

    pub(crate) fn retry_token(&self) -> Result<Option<&str>> {
        self.header("opc-retry-token")
    }

    /// A header that guards what is done: one that cannot be read must not count as absent.
    fn header(&self, name: &str) -> Result<Option<&str>> {
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        match (value.to_str(), values.next()) {
            (Ok(text), None) => Ok(Some(text)),
            _ => Err(Error::invalid_at(
                name,
                "must stand once and be printable ASCII",
            )),
        }
    }
}

/// Order and page of a list call.
pub(crate) fn page_request(query: &Parameters) -> Result<PageRequest> {
    let limit = query
        .get("limit")?
        .map(|text| {
            text.parse()
                .map_err(|_| Error::invalid_at("limit", "is not a whole number"))
        })
        .transpose()?;
    Ok(PageRequest {
        limit,
        page: query.text("page")?,
        sort_by: query.text("sortBy")?,
        sort_order: query.text("sortOrder")?,
    })
}

/// A resource with its etag.
pub(crate) fn versioned<T: Serialize>(resource: &Versioned<T>) -> Result<Response> {
    Ok(respond::with_header(
        respond::json(&resource.value)?,
        "etag",
        &resource.etag,
    ))
}

/// Adds the cursor of the next page, which is absent on the last.
pub(crate) fn with_next_page(response: Response, next: Option<&str>) -> Response {
    match next {
        Some(next) => respond::with_header(response, "opc-next-page", next),
        None => response,
    }
}

async fn create_api_key(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let details: oci::CreateApiKeyDetails = oci::parse(&call.body)?;
        let made = app
            .control
            .create_api_key(&call.ctx, details, call.retry_token()?)
            .await?;
        versioned(&made)
    };
    respond::finish(&context, result.await)
}

async fn list_api_keys(State(app): State<App>, query: Parameters, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let Page { items, next_page } = app.control.list_api_keys(
            &call.ctx,
            &ListApiKeys {
                compartment_id: query.text("compartmentId")?.unwrap_or_default(),
                lifecycle_state: query.text("lifecycleState")?,
                display_name: query.text("displayName")?,
                id: query.text("id")?,
                page: page_request(&query)?,
            },
        )?;
        let response = respond::json(&oci::ApiKeyCollection { items })?;
        Ok(with_next_page(response, next_page.as_deref()))
    };
    respond::finish(&context, result.await)
}

async fn get_api_key(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        versioned(&app.control.get_api_key(&call.ctx, &id)?)
    };
    respond::finish(&context, result.await)
}

async fn update_api_key(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let details: oci::UpdateApiKeyDetails = oci::parse(&call.body)?;
        let changed = app
            .control
            .update_api_key(&call.ctx, &id, details, call.if_match()?)
            .await?;
        versioned(&changed)
    };
    respond::finish(&context, result.await)
}

async fn renew_api_key(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let details: oci::RenewApiKeyDetails = oci::parse(&call.body)?;
        let renewed = app
            .control
            .renew_api_key(
                &call.ctx,
                &id,
                details,
                call.if_match()?,
                call.retry_token()?,
            )
            .await?;
        versioned(&renewed)
    };
    respond::finish(&context, result.await)
}

async fn set_api_key_state(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let details: oci::SetApiKeyStateDetails = oci::parse(&call.body)?;
        let changed = app
            .control
            .set_api_key_state(&call.ctx, &id, details, call.if_match()?)
            .await?;
        versioned(&changed)
    };
    respond::finish(&context, result.await)
}

async fn change_api_key_compartment(
    State(app): State<App>,
    Id(id): Id,
    request: Request,
) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let details: oci::ChangeApiKeyCompartmentDetails = oci::parse(&call.body)?;
        let moved = app
            .control
            .change_api_key_compartment(&call.ctx, &id, details, call.if_match()?)
            .await?;
        Ok(respond::with_header(
            respond::no_content(),
            "etag",
            &moved.etag,
        ))
    };
    respond::finish(&context, result.await)
}

async fn delete_api_key(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        app.control
            .delete_api_key(&call.ctx, &id, call.if_match()?)
            .await?;
        Ok(respond::no_content())
    };
    respond::finish(&context, result.await)
}

async fn list_models(State(app): State<App>, query: Parameters, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let compartment = query.text("compartmentId")?.unwrap_or_default();
        let compartment =
            app.control
                .resolve_compartment(&call.ctx, Operation::ListModels, &compartment)?;
        authorize(
            &app,
            &context,
            &call.ctx,
            Permission::GENERATIVE_AI_MODEL_INSPECT,
            &compartment,
            Operation::ListModels,
        )?;
        let filter = |name: &str| query.get(name).map(|wanted| wanted.map(str::to_lowercase));
        let (id, display_name, vendor, state) = (
            filter("id")?,
            filter("displayName")?,
            filter("vendor")?,
            filter("lifecycleState")?,
        );
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted
                .as_ref()
                .is_none_or(|wanted| value.is_some_and(|value| value.to_lowercase() == *wanted))
        };
        let capabilities = query.all("capability");
        let models: Vec<oci::ModelSummary> = app
            .catalogue
            .list(&context.region)
            .iter()
            .map(|(name, resolved)| summary(&context, name, resolved))
            .filter(|model| {
                is(&id, Some(model.id.as_str()))
                    && is(&display_name, model.display_name.as_deref())
                    && is(&vendor, model.vendor.as_deref())
                    && is(&state, Some(&model.lifecycle_state))
                    && capabilities
                        .iter()
                        .all(|wanted| model.capabilities.iter().any(|has| has == wanted))
            })
            .collect();
        let Page { items, next_page } = page_request(&query)?.cut(models, |model| SortKey {
            name: model.display_name.clone().unwrap_or_default(),
            created_us: model.time_created.as_micros(),
            id: model.id.as_str().to_owned(),
        })?;
        let response = respond::json(&oci::ModelCollection { items })?;
        Ok(with_next_page(response, next_page.as_deref()))
    };
    respond::finish(&context, result.await)
}

async fn get_model(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        // Models are the service's own: they are read in the caller's tenancy.
        let tenancy = call.ctx.principal.tenancy.clone();
        authorize(
            &app,
            &context,
            &call.ctx,
            Permission::GENERATIVE_AI_MODEL_READ,
            &tenancy,
            Operation::GetModel,
        )?;
        app.catalogue
            .list(&context.region)
            .iter()
            .map(|(name, resolved)| summary(&context, name, resolved))
            .find(|model| model.id.as_str() == id || model.display_name.as_deref() == Some(&id))
            .map_or_else(
                || Err(not_found()),
                |summary| {
                    respond::json(&oci::Model {
                        summary,
                        description: None,
                        time_updated: None,
                    })
                },
            )
    };
    respond::finish(&context, result.await)
}

fn authorize(
    app: &App,
    context: &Context,
    ctx: &OpCtx,
    permission: Permission,
    compartment: &Ocid,
    operation: Operation,
) -> Result<()> {
    app.control
        .authorizer(&context.region)
        .authorize(
            &ctx.principal,
            permission,
            &Target::new(compartment.as_str()).operation(operation),
        )
        .map(|_authorized| ())
        .map_err(|denied| {
            let error = not_found();
            match denied.decision_id() {
                Some(id) => error.with_decision_id(id),
                None => error,
            }
        })
}

fn not_found() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "Authorization failed or requested resource not found.",
    )
}

fn summary(context: &Context, name: &str, resolved: &Resolved) -> oci::ModelSummary {
    let model = &resolved.model;
    oci::ModelSummary {
        id: model_ocid(context, name),
        compartment_id: None,
        capabilities: model
            .capabilities
            .iter()
            .map(|capability| capability.as_str().to_owned())
            .collect(),
        lifecycle_state: "ACTIVE".to_owned(),
        lifecycle_details: resolved.alias.then(|| format!("an alias of {}", model.id)),
        time_created: model.created,
        model_type: "BASE".to_owned(),
        display_name: Some(name.to_owned()),
        vendor: Some(model.vendor.as_ref().to_owned()),
        version: None,
        base_model_id: None,
        is_long_term_supported: None,
        time_deprecated: None,
        time_on_demand_retired: None,
        time_dedicated_retired: None,
        freeform_tags: Default::default(),
        defined_tags: Default::default(),
        system_tags: Default::default(),
    }
}

/// A model's OCID: the same for the same name and region, on every node.
pub fn model_ocid_of(region: &str, name: &str) -> Ocid {
    let digest = honshu_signature::sha256(format!("{region}\n{name}").as_bytes());
    Ocid::from_digest(ResourceKind::Model, region, &digest)
}

fn model_ocid(context: &Context, name: &str) -> Ocid {
    model_ocid_of(context.region.name(), name)
}

/// In OCI's API and not built here: 501, which its SDKs do not retry.
async fn not_built(State(app): State<App>, method: Method, request: Request) -> Response {
    let context = respond::context_of(&request);
    let path = respond::shown(context.target.path());
    let (parts, _body): (Parts, _) = request.into_parts();
    let result = authn::management_plane(&app, &context, &parts).and_then(|_caller| {
        Err(Error::new(
            ErrorKind::NotImplemented,
            format!("{method} {path} is part of OCI's API and is not available here"),
        ))
    });
    respond::finish(&context, result)
}
