//! A context that makes vectors instead of text. One thread owns it.
//!
//! Two kinds of model come here. Encoders (BERT and its kin) keep no state and see an entry as a whole; llama.cpp pools
//! their vectors, with what the model may have behind the pooling. Decoders read an entry in pieces, and their vectors
//! are pooled here, so that an entry may be longer than what one piece can hold.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use llama_cpp_sys_2 as ffi;

use super::Model;
use super::context::begin;
use crate::job::Token;

/// Tokens that a decoder computes at a time. Each costs a row of logits that nobody reads: a hundred MiB for 512 of
/// a small vocabulary.
const PIECE_TOKENS: u32 = 128;
/// Logits that an encoder's context makes room for, four bytes each: one GiB.
const ENCODER_LOGITS_MAX: u32 = 1 << 28;

/// How the vectors of an entry's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    First,
    /// The last token's.
    Last,
}

impl Pooling {
    /// The pooling that has this number in a file (`llama_pooling_type`); none for what makes no vector.
    pub(crate) fn of(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Mean,
            2 => Self::First,
            3 => Self::Last,
            _ => return None,
        })
    }
}

/// Why an entry has no vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmbedError {
    /// It is empty, longer than the context, or has a token that the model does not know.
    Invalid(&'static str),
    /// The abort flag was set.
    Aborted,
    /// llama.cpp failed.
    Failed(i32),
}

pub(crate) struct EmbeddingContext {
    ptr: NonNull<ffi::llama_context>,
    /// Null for encoders.
    memory: ffi::llama_memory_t,
    pooling: Pooling,
    n_ctx: u32,
    n_batch: u32,
    width: usize,
    // The callback reads it as long as the context lives.
    _abort: Arc<AtomicBool>,
    model: Arc<Model>,
}

// SAFETY: llama.cpp binds a context to no thread; it must only not be used by two at a time, which `&mut self` and
// the missing `Sync` ensure.
unsafe impl Send for EmbeddingContext {}

impl EmbeddingContext {
    /// A context for entries of at most `n_ctx` tokens.
    pub(crate) fn new(
        model: Arc<Model>,
        n_ctx: u32,
        threads: u32,
        abort: Arc<AtomicBool>,
    ) -> Result<Self, String> {
        let pooling = model.pooling().unwrap_or(Pooling::Mean);
        let piece = PIECE_TOKENS.min(n_ctx);
        let context = Self::open(&model, n_ctx, piece, pooling, threads, &abort)?;
        if context.is_encoder() {
            drop(context);
            // llama.cpp makes room for a logit of every token and word, though nobody reads them.
            let words = u32::try_from(model.n_vocab()).unwrap_or(u32::MAX).max(1);
            let n_ctx = n_ctx.min((ENCODER_LOGITS_MAX / words).max(1));
            return Self::open(&model, n_ctx, n_ctx, pooling, threads, &abort);
        }
        Ok(context)
    }

    fn open(
        model: &Arc<Model>,
        n_ctx: u32,
        n_batch: u32,
        pooling: Pooling,
        threads: u32,
        abort: &Arc<AtomicBool>,
    ) -> Result<Self, String> {
        let width = model.vector_width();
        if n_ctx == 0 || n_batch == 0 || width == 0 {
            return Err("a size is zero".to_owned());
        }
        super::take_last_error();
        // SAFETY: the function only returns a struct of defaults.
        let mut raw = unsafe { ffi::llama_context_default_params() };
        raw.n_ctx = n_ctx;
        raw.n_batch = n_batch;
        raw.n_ubatch = n_batch;
        raw.n_seq_max = 1;
        // All tokens are outputs.
        raw.n_outputs_max = 0;
        raw.n_outputs_max_per_seq = 0;
        raw.n_threads = i32::try_from(threads.clamp(1, 512)).unwrap_or(1);
        raw.n_threads_batch = raw.n_threads;
        raw.embeddings = true;
        raw.pooling_type = match (n_batch == n_ctx, pooling) {
            // An entry of several pieces would get the vector of its last piece.
            (false, _) => ffi::LLAMA_POOLING_TYPE_NONE,
            (true, Pooling::Mean) => ffi::LLAMA_POOLING_TYPE_MEAN,
            (true, Pooling::First) => ffi::LLAMA_POOLING_TYPE_CLS,
            (true, Pooling::Last) => ffi::LLAMA_POOLING_TYPE_LAST,
        };
        // SAFETY: the result holds the `Arc`s of the model and of the flag, and `raw` comes from the library's defaults.
        let ptr = unsafe { begin(model, raw, abort) }?;
        // SAFETY: `ptr` is a live context.
        let (memory, n_ctx, n_batch) = unsafe {
            let p = ptr.as_ptr();
            (
                ffi::llama_get_memory(p),
                ffi::llama_n_ctx(p).min(n_ctx),
                ffi::llama_n_batch(p).min(n_batch),
            )
        };
        Ok(Self {
            ptr,
            memory,
            pooling,
            n_ctx,
            n_batch,
            width,
            _abort: Arc::clone(abort),
            model: Arc::clone(model),
        })
    }

    fn is_encoder(&self) -> bool {
        self.memory.is_null()
    }

    /// The vector of an entry, not normalized.
    pub(crate) fn embed(&mut self, tokens: &[Token]) -> Result<Vec<f32>, EmbedError> {
        if tokens.is_empty() {
            return Err(EmbedError::Invalid("it has no tokens"));
        }
        if tokens.len() > self.n_ctx as usize {
            return Err(EmbedError::Invalid("it is longer than the context"));
        }
        let n_vocab = self.model.n_vocab();
        let is_known = |token: &Token| usize::try_from(*token).is_ok_and(|token| token < n_vocab);
        if !tokens.iter().all(is_known) {
            return Err(EmbedError::Invalid("a token is outside the vocabulary"));
        }
        if self.is_encoder() {
            if tokens.len() > self.n_batch as usize {
                return Err(EmbedError::Invalid("it is longer than the context"));
            }
            self.compute(tokens, 0)?;
            // SAFETY: the context is live; sequence 0 is the one that was computed, and an unknown one gives null.
            let data = unsafe { ffi::llama_get_embeddings_seq(self.ptr.as_ptr(), 0) };
            return self.row(data).map(<[f32]>::to_vec);
        }
        // SAFETY: the memory belongs to the live context, which computes nothing now.
        unsafe { ffi::llama_memory_clear(self.memory, false) };
        let mut pooled = vec![0.0_f64; self.width];
        let mut position = 0;
        for piece in tokens.chunks(self.n_batch as usize) {
            self.compute(piece, position)?;
            for row in 0..piece.len() {
                let place = position + row;
                let counts = match self.pooling {
                    Pooling::Mean => true,
                    Pooling::First => place == 0,
                    Pooling::Last => place + 1 == tokens.len(),
                };
                if counts {
                    let row = i32::try_from(row).unwrap_or(-1);
                    // SAFETY: the context is live and the row is one of the batch that was computed last, all of
                    // whose rows are outputs.
                    let data = unsafe { ffi::llama_get_embeddings_ith(self.ptr.as_ptr(), row) };
                    for (sum, number) in pooled.iter_mut().zip(self.row(data)?) {
                        *sum += f64::from(*number);
                    }
                }
            }
            position += piece.len();
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "vectors are single precision; the sum alone needs more"
        )]
        let vector = pooled.into_iter().map(|number| number as f32).collect();
        Ok(vector)
    }

    fn row(&self, data: *mut f32) -> Result<&[f32], EmbedError> {
        let data = NonNull::new(data).ok_or(EmbedError::Failed(0))?;
        // SAFETY: a row holds `width` floats that stay valid and unchanged until the next batch, which needs
        // `&mut self`, while the slice borrows `self`.
        Ok(unsafe { std::slice::from_raw_parts(data.as_ptr(), self.width) })
    }

    /// Computes tokens of sequence 0 from `position` on.
    fn compute(&mut self, tokens: &[Token], position: usize) -> Result<(), EmbedError> {
        let count = tokens.len();
        let mut token = tokens.to_vec();
        let mut positions: Vec<i32> = (position..position + count)
            .map(|position| i32::try_from(position).unwrap_or(-1))
            .collect();
        let mut n_seq_id = vec![1_i32; count];
        let mut sequence = 0_i32;
        let mut seq_id = vec![std::ptr::from_mut(&mut sequence); count];
        let mut output = vec![1_i8; count];
        let raw = ffi::llama_batch {
            n_tokens: i32::try_from(count).unwrap_or(0),
            token: token.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: positions.as_mut_ptr(),
            n_seq_id: n_seq_id.as_mut_ptr(),
            seq_id: seq_id.as_mut_ptr(),
            logits: output.as_mut_ptr(),
        };
        super::take_last_error();
        // SAFETY: the context is live and used by one thread; all arrays have `n_tokens` elements and outlive the call;
        // the caller has checked that the tokens are known, that they fit into one batch and, with those before them,
        // into the context.
        let code = unsafe {
            if self.is_encoder() {
                ffi::llama_encode(self.ptr.as_ptr(), raw)
            } else {
                ffi::llama_decode(self.ptr.as_ptr(), raw)
            }
        };
        match code {
            0 => Ok(()),
            2 => Err(EmbedError::Aborted),
            code => {
                let reason = super::take_last_error();
                tracing::error!(code, reason, "llama.cpp made no vector");
                Err(EmbedError::Failed(code))
            }
        }
    }
}

impl Drop for EmbeddingContext {
    fn drop(&mut self) {
        // SAFETY: `ptr` is a live context that nobody else uses; the model outlives it.
        unsafe { ffi::llama_free(self.ptr.as_ptr()) };
    }
}
