//! Being written.
#![allow(missing_docs, dead_code, reason = "being written")]
use crate::model::*;
use crate::sys;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
pub(crate) struct Started { pub context: sys::Context, pub flash_attention: bool }
pub(crate) fn start_context(model: &Arc<sys::Model>, opts: &LoadOptions, n_ctx: u32, abort: &Arc<AtomicBool>) -> Result<Started, String> {
    let p = sys::ContextParams { n_ctx, n_seq_max: opts.n_seq_max, n_batch: opts.n_batch, n_outputs: opts.n_seq_max, threads: opts.threads(), flash_attention: false, unified: true };
    Ok(Started { context: sys::Context::new(Arc::clone(model), p, Arc::clone(abort))?, flash_attention: false })
}
pub(crate) struct Engine { shared: Arc<Shared> }
impl Engine {
    pub(crate) fn new(_s: Started, _m: Arc<sys::Model>, _v: Arc<Vocabulary>, shared: Arc<Shared>, _o: &LoadOptions, _l: u32) -> Self { Self { shared } }
    pub(crate) fn run(self) { self.shared.lock().stopped = true; }
}
