//! Who calls, where from and under which clocks: all that a run needs to know beside the request itself.

use std::sync::Arc;

use honshu_domain::{Ocid, Principal, Region, Timeouts};

/// One call by an authenticated principal.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who asks.
    pub principal: Principal,
    /// The region whose listener was called.
    pub region: Region,
    /// The compartment that the call acts in and that is charged: a key's own, or the one a request names.
    pub compartment: Ocid,
    /// The HTTP request's id: in the log line, in the usage row, and sent upstream.
    pub request_id: Arc<str>,
    /// The word of usage rows: `chat_completions`, `responses`, `chat`, …
    pub operation: &'static str,
    /// The four clocks of the run.
    pub timeouts: Timeouts,
}
