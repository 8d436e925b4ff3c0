//! A context: the KV cache of many sequences and the computation over batches. One thread owns it.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use llama_cpp_sys_2 as ffi;

use super::{Model, SEQUENCES_MAX};
use crate::job::Token;

/// Why an encoder cannot generate.
pub(crate) const NO_STATE: &str = "the model keeps no state between tokens";

/// What making a context needs to know. All numbers are in tokens unless said.
#[derive(Debug, Clone)]
pub(crate) struct ContextParams {
    /// Cells of the KV cache in all.
    pub n_ctx: u32,
    /// Sequences; with separate streams the cells are divided among them.
    pub n_seq_max: u32,
    /// Most tokens of one batch.
    pub n_batch: u32,
    pub threads: u32,
    pub flash_attention: bool,
    /// One buffer for all sequences (they can share cells) instead of one for each.
    pub unified: bool,
}

/// Why a batch was not computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// No free cells; nothing changed.
    NoRoom,
    /// The abort flag was set; lengths of the sequences were read back.
    Aborted,
    /// A precondition is broken; nothing was computed.
    Invalid(&'static str),
    /// llama.cpp failed; lengths of the sequences were read back.
    Failed(i32),
}

/// Tokens to compute, each for one sequence at its next position.
#[derive(Default)]
pub(crate) struct Batch {
    token: Vec<Token>,
    position: Vec<i32>,
    sequence: Vec<i32>,
    output: Vec<i8>,
    // Filled for each call, as the C interface wants an array of pointers to the sequence ids.
    n_seq_id: Vec<i32>,
    seq_id: Vec<*mut i32>,
}

// SAFETY: the raw pointers point into `sequence` of the same batch, are written anew before each use and never read
// outside `Context::decode`, which borrows the batch.
unsafe impl Send for Batch {}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.token.clear();
        self.position.clear();
        self.sequence.clear();
        self.output.clear();
    }

    /// Adds a token and returns its row.
    pub(crate) fn push(
        &mut self,
        sequence: u32,
        position: u32,
        token: Token,
        output: bool,
    ) -> usize {
        self.token.push(token);
        self.position.push(i32::try_from(position).unwrap_or(-1));
        self.sequence.push(i32::try_from(sequence).unwrap_or(-1));
        self.output.push(i8::from(output));
        self.token.len() - 1
    }

    pub(crate) fn len(&self) -> usize {
        self.token.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.token.is_empty()
    }
}

/// A context of a model.
pub(crate) struct Context {
    ptr: NonNull<ffi::llama_context>,
    memory: ffi::llama_memory_t,
    params: ContextParams,
    /// Tokens that each sequence holds.
    lengths: Vec<u32>,
    /// Rows of the last batch that have logits.
    outputs: Vec<bool>,
    abort: Arc<AtomicBool>,
    model: Arc<Model>,
}

// SAFETY: llama.cpp binds a context to no thread; it must only not be used by two at a time, which `&mut self` and
// the missing `Sync` ensure.
unsafe impl Send for Context {}

impl Context {
    pub(crate) fn new(
        model: Arc<Model>,
        params: ContextParams,
        abort: Arc<AtomicBool>,
    ) -> Result<Self, String> {
        let sequences = params.n_seq_max;
        if params.n_seq_max == 0
            || sequences > SEQUENCES_MAX
            || params.n_batch == 0
            || params.n_ctx == 0
        {
            return Err("a size is zero or too large".to_owned());
        }
        super::take_last_error();
        // SAFETY: the function only returns a struct of defaults.
        let mut raw = unsafe { ffi::llama_context_default_params() };
        raw.n_ctx = params.n_ctx;
        raw.n_batch = params.n_batch;
        raw.n_ubatch = params.n_batch;
        raw.n_seq_max = params.n_seq_max;
        // llama.cpp asserts that this is not below the number of sequences; each gets one row of logits at most.
        raw.n_outputs_max = params.n_seq_max;
        raw.n_outputs_max_per_seq = 1;
        raw.n_threads = i32::try_from(params.threads).unwrap_or(1);
        raw.n_threads_batch = raw.n_threads;
        raw.flash_attn_type = if params.flash_attention {
            ffi::LLAMA_FLASH_ATTN_TYPE_ENABLED
        } else {
            ffi::LLAMA_FLASH_ATTN_TYPE_DISABLED
        };
        raw.kv_unified = params.unified;
        // Sliding-window layers keep all positions, so that any prefix can be shared and cut back.
        raw.swa_full = true;
        // SAFETY: the result holds the `Arc`s of the model and of the flag, and `raw` comes from the library's defaults.
        let ptr = unsafe { begin(&model, raw, &abort) }?;
        // SAFETY: `ptr` is a live context.
        let (memory, n_ctx, n_batch) = unsafe {
            let p = ptr.as_ptr();
            (
                ffi::llama_get_memory(p),
                ffi::llama_n_ctx(p),
                ffi::llama_n_batch(p),
            )
        };
        let params = ContextParams {
            n_ctx,
            n_batch,
            ..params
        };
        let context = Self {
            ptr,
            memory,
            params,
            lengths: vec![0; sequences as usize],
            outputs: Vec::new(),
            abort,
            model,
        };
        if context.memory.is_null() {
            return Err(NO_STATE.to_owned());
        }
        Ok(context)
    }

    /// Cells in all, as llama.cpp rounded them.
    pub(crate) fn n_ctx(&self) -> u32 {
        self.params.n_ctx
    }

    /// Cells that one sequence can use.
    pub(crate) fn n_ctx_sequence(&self) -> u32 {
        if self.params.unified {
            self.params.n_ctx
        } else {
            self.params.n_ctx / self.params.n_seq_max
        }
    }

    /// Sets how many threads compute the next batches; at least one.
    pub(crate) fn set_threads(&mut self, threads: u32) {
        let threads = i32::try_from(threads.clamp(1, 512)).unwrap_or(1);
        // SAFETY: the context is live, used by one thread, and the number is in range.
        unsafe { ffi::llama_set_n_threads(self.ptr.as_ptr(), threads, threads) };
    }

    pub(crate) fn n_batch(&self) -> u32 {
        self.params.n_batch
    }

    /// Sequence ids that may be used: 0 up to this.
    pub(crate) fn sequences(&self) -> u32 {
        u32::try_from(self.lengths.len()).unwrap_or(0)
    }

    /// Computes a batch. After `Aborted` and `Failed` parts of it may have been kept; [`Self::length`] tells.
    pub(crate) fn decode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        self.check(batch)?;
        batch.n_seq_id.clear();
        batch.n_seq_id.resize(batch.len(), 1);
        batch.seq_id.clear();
        let sequences = batch.sequence.as_mut_ptr();
        for row in 0..batch.token.len() {
            // SAFETY: `row` is inside `sequence`, which has as many elements as `token`.
            batch.seq_id.push(unsafe { sequences.add(row) });
        }
        let raw = ffi::llama_batch {
            n_tokens: i32::try_from(batch.token.len()).unwrap_or(0),
            token: batch.token.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: batch.position.as_mut_ptr(),
            n_seq_id: batch.n_seq_id.as_mut_ptr(),
            seq_id: batch.seq_id.as_mut_ptr(),
            logits: batch.output.as_mut_ptr(),
        };
        self.outputs.clear();
        super::take_last_error();
        // SAFETY: the context is live and used by one thread; all arrays have `n_tokens` elements and outlive the call;
        // token ids, sequence ids, positions, number of tokens and number of outputs were checked above.
        let code = unsafe { ffi::llama_decode(self.ptr.as_ptr(), raw) };
        match code {
            0 => {
                for sequence in &batch.sequence {
                    if let Some(length) = usize::try_from(*sequence)
                        .ok()
                        .and_then(|s| self.lengths.get_mut(s))
                    {
                        *length += 1;
                    }
                }
                self.outputs.extend(batch.output.iter().map(|o| *o != 0));
                Ok(())
            }
            1 => Err(DecodeError::NoRoom),
            2 => {
                self.read_lengths();
                Err(DecodeError::Aborted)
            }
            code => {
                // The count that is wrong may be ours, so it is replaced, but not before it was written down.
                let counted = self.lengths.clone();
                self.read_lengths();
                tracing::error!(
                    code,
                    reason = super::take_last_error(),
                    ?counted,
                    held = ?self.lengths,
                    "llama.cpp did not compute a batch"
                );
                Err(match code {
                    -1 => DecodeError::Invalid("llama.cpp refused the batch"),
                    code => DecodeError::Failed(code),
                })
            }
        }
    }

    fn check(&self, batch: &Batch) -> Result<(), DecodeError> {
        let invalid = |what| Err(DecodeError::Invalid(what));
        if batch.is_empty() {
            return invalid("the batch is empty");
        }
        if batch.len() > self.params.n_batch as usize {
            return invalid("the batch is too long");
        }
        let outputs = batch.output.iter().filter(|o| **o != 0).count();
        if outputs > self.params.n_seq_max as usize {
            return invalid("the batch has too many outputs");
        }
        let n_vocab = self.model.n_vocab();
        let mut lengths = self.lengths.clone();
        for row in 0..batch.len() {
            if usize::try_from(batch.token[row]).is_ok_and(|t| t >= n_vocab) || batch.token[row] < 0
            {
                return invalid("a token is outside the vocabulary");
            }
            let Some(length) = usize::try_from(batch.sequence[row])
                .ok()
                .and_then(|s| lengths.get_mut(s))
            else {
                return invalid("a sequence id is out of range");
            };
            if u32::try_from(batch.position[row]) != Ok(*length) {
                return invalid("a position does not follow the one before");
            }
            if *length >= self.n_ctx_sequence() {
                return invalid("a sequence is longer than the context");
            }
            *length += 1;
        }
        Ok(())
    }

    fn read_lengths(&mut self) {
        for (sequence, length) in self.lengths.iter_mut().enumerate() {
            // SAFETY: the memory belongs to the live context and the sequence id is in range.
            let last = unsafe {
                ffi::llama_memory_seq_pos_max(self.memory, i32::try_from(sequence).unwrap_or(0))
            };
            *length = u32::try_from(last + 1).unwrap_or(0);
        }
    }

    /// The logits of a row of the last batch, one for each token of the vocabulary.
    pub(crate) fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        if !self.outputs.get(row).copied().unwrap_or(false) {
            return None;
        }
        // SAFETY: the context is live and the row of the last batch was marked as an output.
        let data =
            unsafe { ffi::llama_get_logits_ith(self.ptr.as_ptr(), i32::try_from(row).ok()?) };
        let data = NonNull::new(data)?;
        // SAFETY: a row holds `n_vocab` floats that stay valid and unshared until the next decode, which needs
        // `&mut self` as this borrow does.
        Some(unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), self.model.n_vocab()) })
    }

    /// Tokens that a sequence holds.
    pub(crate) fn length(&self, sequence: u32) -> u32 {
        self.lengths.get(sequence as usize).copied().unwrap_or(0)
    }

    /// Cuts a sequence back to its first `length` tokens. Returns false, and removes the whole sequence, if the model
    /// cannot cut in the middle.
    pub(crate) fn truncate(&mut self, sequence: u32, length: u32) -> bool {
        let Some(current) = self.lengths.get_mut(sequence as usize) else {
            return false;
        };
        if length >= *current {
            return true;
        }
        let id = i32::try_from(sequence).unwrap_or(0);
        let from = i32::try_from(length).unwrap_or(0);
        // SAFETY: the memory belongs to the live context and the sequence id is in range.
        let removed = unsafe { ffi::llama_memory_seq_rm(self.memory, id, from, -1) };
        if removed {
            *current = length;
        } else {
            *current = 0;
            // SAFETY: as above; removing a whole sequence never fails.
            unsafe { ffi::llama_memory_seq_rm(self.memory, id, -1, -1) };
        }
        removed
    }

    /// Makes the empty sequence `to` begin with the first `length` tokens of `from`. Unified cells are shared;
    /// separate streams copy the cells.
    pub(crate) fn share(&mut self, from: u32, to: u32, length: u32) -> bool {
        let sequences = self.sequences();
        if from >= sequences || to >= sequences || from == to {
            return false;
        }
        if self.length(to) != 0 || self.length(from) < length || length == 0 {
            return false;
        }
        let (src, dst) = (
            i32::try_from(from).unwrap_or(0),
            i32::try_from(to).unwrap_or(0),
        );
        let end = if self.params.unified {
            i32::try_from(length).unwrap_or(0)
        } else {
            -1
        };
        // SAFETY: the memory belongs to the live context, both sequence ids are in range and differ, and a range is
        // only named in unified memory, as streams can only be copied whole.
        unsafe { ffi::llama_memory_seq_cp(self.memory, src, dst, -1, end) };
        let copied = if self.params.unified {
            length
        } else {
            self.length(from)
        };
        self.lengths[to as usize] = copied;
        self.truncate(to, length)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: `ptr` is a live context that nobody else uses; the model outlives it.
        unsafe { ffi::llama_free(self.ptr.as_ptr()) };
        // The callback's flag must live until here.
        let _ = &self.abort;
    }
}

/// Makes a context that stops computing when the flag is set.
///
/// # Errors
/// The library's own words.
///
/// # Safety
/// Whoever has the context keeps the model and the flag for as long; `raw` has what the library allows.
pub(super) unsafe fn begin(
    model: &Model,
    mut raw: ffi::llama_context_params,
    abort: &Arc<AtomicBool>,
) -> Result<NonNull<ffi::llama_context>, String> {
    raw.no_perf = true;
    raw.abort_callback = Some(read_abort_flag);
    raw.abort_callback_data = Arc::as_ptr(abort).cast_mut().cast::<c_void>();
    // SAFETY: as this function demands. Errors are caught inside and reported as null.
    let ptr = unsafe { ffi::llama_init_from_model(model.as_ptr(), raw) };
    let refused =
        || super::take_last_error().unwrap_or_else(|| "llama.cpp gave no reason".to_owned());
    NonNull::new(ptr).ok_or_else(refused)
}

unsafe extern "C" fn read_abort_flag(data: *mut c_void) -> bool {
    // SAFETY: the pointer comes from `begin` and points to the `AtomicBool` that is kept for as long as the context.
    unsafe { &*data.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}
