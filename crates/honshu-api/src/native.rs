//! OCI's native inference, `/20231130/actions/*`: not built yet, and said so in the right shape.

use axum::extract::{Request, State};
use axum::response::Response;
use honshu_domain::{Error, ErrorKind};

use crate::app::App;
use crate::{authn, respond};

/// 501, which the OCI SDK does not retry. Who is not known hears nothing of what there is.
pub(crate) async fn not_implemented(State(app): State<App>, request: Request) -> Response {
    let context = respond::context_of(&request);
    let (parts, _body) = request.into_parts();
    let result = authn::management_plane(&app, &context, &parts).and_then(|_caller| {
        Err(Error::new(
            ErrorKind::NotImplemented,
            "this operation is not available here; the OpenAI-compatible paths below /20231130/actions/v1 are",
        ))
    });
    respond::finish(&context, result)
}
