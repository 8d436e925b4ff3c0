//! The routes and what surrounds every request: ids, region, the shape of errors, a log line for refusals.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get, post};
use honshu_control::Control;
use honshu_domain::{
    Catalogue, Clock, Entropy, Error, ErrorKind, Region, RequestId, SystemEntropy, Timeouts,
};
use honshu_gateway::Gateway;
use honshu_responses::Runtime;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::context::{Context, OPENAI_BASES, Plane};
use crate::edge::{ListenerTag, RequestInfo};
use crate::{authn, completions, identity, management, messages, native, openai, respond};

/// The longest client-sent `opc-request-id` that is repeated, in bytes: OCI's clients send 32.
const CLIENT_REQUEST_ID_BYTES_MAX: usize = 128;

/// A region and how requests find it.
#[derive(Debug, Clone)]
pub struct RegionRoute {
    /// The region.
    pub region: Region,
    /// Its own listener.
    pub listener: Option<ListenerTag>,
    /// Host names that mean it on any listener, lower case, without port.
    pub hosts: Vec<String>,
}

/// Whether the server takes requests, for `/readyz`.
#[derive(Debug, Default)]
pub struct Readiness {
    draining: AtomicBool,
}

impl Readiness {
    /// From now on `/readyz` says that the server is going away.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// What the application is made of.
pub struct AppParts {
    /// The data plane of each region, by the region's name.
    pub gateways: HashMap<Arc<str>, Gateway>,
    /// The control plane.
    pub control: Arc<Control>,
    /// The models.
    pub catalogue: Arc<dyn Catalogue>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Regions, at least one.
    pub regions: Vec<RegionRoute>,
    /// The clocks of a run.
    pub timeouts: Timeouts,
    /// The stateful runtime.
    pub runtime: Runtime,
    /// Whether requests are taken.
    pub readiness: Arc<Readiness>,
}

/// The application: cheap to clone.
#[derive(Clone)]
pub struct App(Arc<AppParts>);

impl std::ops::Deref for App {
    type Target = AppParts;

    fn deref(&self) -> &AppParts {
        &self.0
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

impl App {
    /// Joins the parts.
    pub fn new(parts: AppParts) -> Self {
        Self(Arc::new(parts))
    }

    /// The routes. What is not listed is 404; a listed path with another method is 405.
    pub fn router(&self) -> Router {
        let mut router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/openapi.json", get(openapi))
            .route(
                "/20231130/actions/{operation}",
                any(native::not_implemented),
            );
        for base in OPENAI_BASES {
            router = router.nest(
                base,
                openai::routes()
                    .merge(completions::routes())
                    .merge(messages::routes()),
            );
        }
        router
            .nest("/20231130", management::routes())
            .nest("/20160918", identity::routes())
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            // Bodies are bounded by the edge, with an answer in the plane's own shape.
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn_with_state(self.clone(), surround))
            .with_state(self.clone())
    }

    /// The data plane of a region.
    pub(crate) fn gateway(&self, region: &Region) -> Result<&Gateway, Error> {
        self.gateways
            .get(region.name())
            .ok_or_else(|| Error::internal(format!("the region {region} has no gateway")))
    }

    /// The region that a request addresses: by its host name, else by its listener, else the first.
    fn region(&self, request: &Request) -> Region {
        let host = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .map(|host| host.rsplit_once(':').map_or(host, |(name, _port)| name));
        if let Some(host) = host
            && let Some(route) = self.regions.iter().find(|route| {
                route
                    .hosts
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(host))
            })
        {
            return route.region.clone();
        }
        let listener = request
            .extensions()
            .get::<RequestInfo>()
            .map(|info| &info.listener);
        self.regions
            .iter()
            .find(|route| route.listener.is_some() && route.listener.as_ref() == listener)
            .or_else(|| self.regions.first())
            .map_or_else(Region::local, |route| route.region.clone())
    }
}

/// Surrounds every request: gives it an id and a region, and the answer its ids.
async fn surround(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let request_id = RequestId::generate(&SystemEntropy as &dyn Entropy);
    let opc_request_id = opc_request_id(request.headers(), &request_id);
    let context = Context {
        plane: Plane::of(request.uri().path()),
        region: app.region(&request),
        target: target_of(&request),
        opc_request_id,
        request_id,
    };
    let ids = (
        header_value(context.request_id.as_str()),
        header_value(&context.opc_request_id),
    );
    let is_messages = context.plane == Plane::Messages;
    request.extensions_mut().insert(context);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let (Some(request_id), Some(opc_request_id)) = ids {
        if is_messages {
            // Anthropic's name for it, which its clients read.
            headers.insert(HeaderName::from_static("request-id"), request_id.clone());
        }
        headers.insert(HeaderName::from_static("x-request-id"), request_id);
        headers.insert(HeaderName::from_static("opc-request-id"), opc_request_id);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Path and query as sent; `*` and authority forms have none and reach no route.
pub(crate) fn target_of(request: &Request) -> PathAndQuery {
    request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}

fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

fn opc_request_id(headers: &HeaderMap, request_id: &RequestId) -> Arc<str> {
    match headers
        .get("opc-request-id")
        .and_then(|value| value.to_str().ok())
    {
        Some(client)
            if !client.is_empty()
                && client.len() <= CLIENT_REQUEST_ID_BYTES_MAX
                && client.bytes().all(|b| {
                    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/' | b'.')
                }) =>
        {
            format!("{client}/{request_id}").into()
        }
        _ => request_id.as_str().into(),
    }
}

/// What is not there, in the shape of the plane that its path looks like.
pub(crate) async fn not_found(request: Request) -> Response {
    respond::error(
        &respond::context_of(&request),
        &Error::new(
            ErrorKind::NotFound,
            format!(
                "there is nothing at {} {}",
                request.method(),
                respond::shown(request.uri().path())
            ),
        ),
    )
}

async fn method_not_allowed(method: Method, request: Request) -> Response {
    respond::error(
        &respond::context_of(&request),
        &Error::new(
            ErrorKind::MethodNotAllowed,
            format!(
                "{method} is not possible on {}",
                respond::shown(request.uri().path())
            ),
        ),
    )
}

/// Alive: the process answers.
async fn healthz() -> Response {
    plain(StatusCode::OK, "ok\n")
}

/// Ready: requests are taken. 503 while draining.
async fn readyz(State(app): State<App>) -> Response {
    if app.readiness.is_draining() {
        plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        plain(StatusCode::OK, "ready\n")
    }
}

/// The document of the data plane. It holds nothing that is anybody's, and asks for a credential all the same, since
/// routes deny by default and whoever needs it has one: `honshu openapi` prints it without a server.
async fn openapi(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = authn::data_plane(&app, &context, &parts)
        .and_then(|_caller| honshu_wire::openapi::document())
        .map(|document| respond::json_bytes(StatusCode::OK, document));
    respond::finish(&context, result)
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// A route for POST only; kept here so that route tables read alike.
pub(crate) fn post_only<H, T>(handler: H) -> axum::routing::MethodRouter<App>
where
    H: axum::handler::Handler<T, App>,
    T: 'static,
{
    post(handler)
}
