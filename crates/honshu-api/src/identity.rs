//! OCI's identity API below `/20160918`, as far as the command line needs it: compartments, policies,
//! tenancy, regions. Lists are bare arrays, as the real one's.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use honshu_control::{ListCompartments, ListPolicies, Page};
use honshu_domain::{Error, ErrorKind};
use honshu_wire::oci;

use crate::app::{App, post_only};
use crate::extract::{Id, Parameters};
use crate::management::{Call, page_request, versioned, with_next_page};
use crate::{authn, respond};

/// The other groups of the API: there, and not built.
const NOT_BUILT: [&str; 8] = [
    "users",
    "groups",
    "userGroupMemberships",
    "dynamicGroups",
    "availabilityDomains",
    "networkSources",
    "tagNamespaces",
    "domains",
];

/// The routes.
pub(crate) fn routes() -> Router<App> {
    let mut router = Router::new()
        .route(
            "/compartments",
            post_only(create_compartment).get(list_compartments),
        )
        .route(
            "/compartments/{id}",
            get(get_compartment)
                .put(update_compartment)
                .delete(delete_compartment),
        )
        .route("/policies", post_only(create_policy).get(list_policies))
        .route(
            "/policies/{id}",
            get(get_policy).put(update_policy).delete(delete_policy),
        )
        .route("/tenancies/{id}", get(get_tenancy).put(update_tenancy))
        .route(
            "/tenancies/{id}/regionSubscriptions",
            get(list_region_subscriptions),
        )
        .route("/regions", get(list_regions));
    for group in NOT_BUILT {
        router = router
            .route(&format!("/{group}"), any(not_built))
            .route(&format!("/{group}/{{*rest}}"), any(not_built));
    }
    router
}

async fn create_compartment(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let details: oci::CreateCompartmentDetails = oci::parse(&call.body)?;
        let made = app
            .control
            .create_compartment(&call.ctx, details, call.retry_token()?)
            .await?;
        versioned(&made)
    };
    respond::finish(&context, result.await)
}

async fn list_compartments(
    State(app): State<App>,
    query: Parameters,
    request: Request,
) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let is_set = |name: &str| query.get(name).map(|value| value == Some("true"));
        let Page { items, next_page } = app.control.list_compartments(
            &call.ctx,
            &ListCompartments {
                compartment_id: query.text("compartmentId")?.unwrap_or_default(),
                in_subtree: is_set("compartmentIdInSubtree")?,
                include_root: is_set("includeRoot")?,
                name: query.text("name")?,
                lifecycle_state: query.text("lifecycleState")?,
                page: page_request(&query)?,
            },
        )?;
        Ok(with_next_page(respond::json(&items)?, next_page.as_deref()))
    };
    respond::finish(&context, result.await)
}

async fn get_compartment(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        versioned(&app.control.get_compartment(&call.ctx, &id)?)
    };
    respond::finish(&context, result.await)
}

async fn update_compartment(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let details: oci::UpdateCompartmentDetails = oci::parse(&call.body)?;
        let changed = app
            .control
            .update_compartment(&call.ctx, &id, details, call.if_match()?)
            .await?;
        versioned(&changed)
    };
    respond::finish(&context, result.await)
}

async fn delete_compartment(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        app.control
            .delete_compartment(&call.ctx, &id, call.if_match()?)
            .await?;
        Ok(respond::no_content())
    };
    respond::finish(&context, result.await)
}

async fn create_policy(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let details: oci::CreatePolicyDetails = oci::parse(&call.body)?;
        let made = app
            .control
            .create_policy(&call.ctx, details, call.retry_token()?)
            .await?;
        versioned(&made)
    };
    respond::finish(&context, result.await)
}

async fn list_policies(State(app): State<App>, query: Parameters, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let Page { items, next_page } = app.control.list_policies(
            &call.ctx,
            &ListPolicies {
                compartment_id: query.text("compartmentId")?.unwrap_or_default(),
                name: query.text("name")?,
                lifecycle_state: query.text("lifecycleState")?,
                page: page_request(&query)?,
            },
        )?;
        Ok(with_next_page(respond::json(&items)?, next_page.as_deref()))
    };
    respond::finish(&context, result.await)
}

async fn get_policy(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        versioned(&app.control.get_policy(&call.ctx, &id)?)
    };
    respond::finish(&context, result.await)
}

async fn update_policy(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let details: oci::UpdatePolicyDetails = oci::parse(&call.body)?;
        let changed = app
            .control
            .update_policy(&call.ctx, &id, details, call.if_match()?)
            .await?;
        versioned(&changed)
    };
    respond::finish(&context, result.await)
}

async fn delete_policy(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        app.control
            .delete_policy(&call.ctx, &id, call.if_match()?)
            .await?;
        Ok(respond::no_content())
    };
    respond::finish(&context, result.await)
}

async fn get_tenancy(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        respond::json(&app.control.get_tenancy(&call.ctx, &id)?)
    };
    respond::finish(&context, result.await)
}

async fn update_tenancy(State(app): State<App>, Id(id): Id, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        let details: oci::UpdateTenancyDetails = oci::parse(&call.body)?;
        respond::json(&app.control.update_tenancy(&call.ctx, &id, details).await?)
    };
    respond::finish(&context, result.await)
}

async fn list_region_subscriptions(
    State(app): State<App>,
    Id(id): Id,
    request: Request,
) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        respond::json(&app.control.list_region_subscriptions(&call.ctx, &id)?)
    };
    respond::finish(&context, result.await)
}

async fn list_regions(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let result = async {
        let call = Call::read(&app, &context, request).await?;
        respond::json(&app.control.list_regions(&call.ctx)?)
    };
    respond::finish(&context, result.await)
}

/// In OCI's API and not built here: 501, which its SDKs do not retry.
async fn not_built(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = authn::management_plane(&app, &context, &parts).and_then(|_caller| {
        Err(Error::new(
            ErrorKind::NotImplemented,
            "this operation is part of OCI's identity API and is not available here",
        ))
    });
    respond::finish(&context, result)
}
