//! A loaded model: weights, vocabulary, metadata. It never changes after loading, so threads may share it.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr::NonNull;

use llama_cpp_sys_2 as ffi;

use super::Pooling;
use crate::job::Token;

/// What loading a model needs to know.
#[derive(Debug, Clone)]
pub(crate) struct ModelParams {
    /// Layers on the GPU, if a GPU backend is compiled in; negative for all.
    pub gpu_layers: i32,
    /// Whether weights may be repacked for wide instructions (AMX, AVX-512 and so on).
    pub repack: bool,
}

/// A loaded model.
pub(crate) struct Model {
    ptr: NonNull<ffi::llama_model>,
    vocab: NonNull<ffi::llama_vocab>,
    n_vocab: usize,
}

// SAFETY: llama.cpp does not change a model or its vocabulary after loading; all functions that are called here take
// it as const, and tokenization is documented as thread-safe.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// Loads a file. The caller has checked that it is a sound GGUF file.
    pub(crate) fn load(path: &Path, params: &ModelParams) -> Result<Self, String> {
        let c_path = super::c_path(path).ok_or("the path has a NUL byte or is not UTF-8")?;
        super::take_last_error();
        // SAFETY: the function only returns a struct of defaults.
        let mut raw = unsafe { ffi::llama_model_default_params() };
        raw.n_gpu_layers = params.gpu_layers;
        raw.use_extra_bufts = params.repack;
        // SAFETY: the path is NUL-terminated and outlives the call; `raw` comes from the library's defaults and its
        // pointers are null. Loading errors are caught inside and reported as null.
        let ptr = unsafe { ffi::llama_model_load_from_file(c_path.as_ptr(), raw) };
        let refused =
            || super::take_last_error().unwrap_or_else(|| "llama.cpp gave no reason".to_owned());
        let ptr = NonNull::new(ptr).ok_or_else(refused)?;
        // SAFETY: `ptr` is a live model; the vocabulary belongs to it and lives as long.
        let vocab = unsafe { ffi::llama_model_get_vocab(ptr.as_ptr()) };
        let Some(vocab) = NonNull::new(vocab.cast_mut()) else {
            // SAFETY: `ptr` is a live model that nobody else has seen.
            unsafe { ffi::llama_model_free(ptr.as_ptr()) };
            return Err("the model has no vocabulary".to_owned());
        };
        // SAFETY: `vocab` belongs to the live model.
        let n_vocab = unsafe { ffi::llama_vocab_n_tokens(vocab.as_ptr()) };
        let model = Self {
            ptr,
            vocab,
            n_vocab: usize::try_from(n_vocab).unwrap_or(0),
        };
        if model.n_vocab == 0 {
            return Err("the vocabulary is empty".to_owned());
        }
        Ok(model)
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::llama_model {
        self.ptr.as_ptr()
    }

    pub(crate) fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    pub(crate) fn n_ctx_train(&self) -> u32 {
        // SAFETY: `ptr` is a live model.
        let n = unsafe { ffi::llama_model_n_ctx_train(self.ptr.as_ptr()) };
        u32::try_from(n).unwrap_or(0)
    }

    pub(crate) fn parameters(&self) -> u64 {
        // SAFETY: `ptr` is a live model.
        unsafe { ffi::llama_model_n_params(self.ptr.as_ptr()) }
    }

    pub(crate) fn bytes(&self) -> u64 {
        // SAFETY: `ptr` is a live model.
        unsafe { ffi::llama_model_size(self.ptr.as_ptr()) }
    }

    /// Whether a decoder alone generates text with it.
    pub(crate) fn is_decoder(&self) -> bool {
        let ptr = self.ptr.as_ptr();
        // SAFETY: `ptr` is a live model.
        unsafe {
            ffi::llama_model_has_decoder(ptr)
                && !ffi::llama_model_has_encoder(ptr)
                && !ffi::llama_model_is_diffusion(ptr)
        }
    }

    /// Whether the state of a sequence can be cut back and shared at any position. Recurrent and hybrid models keep
    /// only the newest state.
    pub(crate) fn has_position_memory(&self) -> bool {
        let ptr = self.ptr.as_ptr();
        // SAFETY: `ptr` is a live model.
        unsafe { !ffi::llama_model_is_recurrent(ptr) && !ffi::llama_model_is_hybrid(ptr) }
    }

    /// A scalar of the file's metadata, as text.
    pub(crate) fn metadata(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut buffer = vec![0_u8; 256];
        loop {
            // SAFETY: `ptr` is a live model, `key` is NUL-terminated, the buffer is writable for the length given,
            // and the function writes a terminating NUL inside that length.
            let n = unsafe {
                ffi::llama_model_meta_val_str(
                    self.ptr.as_ptr(),
                    key.as_ptr(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                )
            };
            let n = usize::try_from(n).ok()?;
            if n < buffer.len() {
                buffer.truncate(n);
                return Some(String::from_utf8_lossy(&buffer).into_owned());
            }
            buffer.resize(n + 1, 0);
        }
    }

    /// How the file says that vectors of tokens become one, if it says so.
    pub(crate) fn pooling(&self) -> Option<Pooling> {
        let architecture = self.metadata("general.architecture")?;
        let number = self.metadata(&format!("{architecture}.pooling_type"))?;
        Pooling::of(number.parse().ok()?)
    }

    /// Numbers of a vector.
    pub(crate) fn vector_width(&self) -> usize {
        // SAFETY: `ptr` is a live model.
        let width = unsafe { ffi::llama_model_n_embd_out(self.ptr.as_ptr()) };
        usize::try_from(width).unwrap_or(0)
    }

    /// The model's own chat template.
    pub(crate) fn chat_template(&self) -> Option<String> {
        // SAFETY: `ptr` is a live model; a null name asks for the default template.
        let text = unsafe { ffi::llama_model_chat_template(self.ptr.as_ptr(), std::ptr::null()) };
        if text.is_null() {
            return None;
        }
        // SAFETY: a non-null answer is a NUL-terminated string that lives as long as the model.
        Some(
            unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned(),
        )
    }

    /// The token that begins a text, if the vocabulary has one.
    pub(crate) fn bos(&self) -> Option<Token> {
        // SAFETY: `vocab` belongs to the live model.
        let t = unsafe { ffi::llama_vocab_bos(self.vocab.as_ptr()) };
        self.in_vocab(t).then_some(t)
    }

    /// The token that ends a text, if the vocabulary has one.
    pub(crate) fn eos(&self) -> Option<Token> {
        // SAFETY: `vocab` belongs to the live model.
        let t = unsafe { ffi::llama_vocab_eos(self.vocab.as_ptr()) };
        self.in_vocab(t).then_some(t)
    }

    pub(crate) fn is_end_of_generation(&self, token: Token) -> bool {
        // SAFETY: `vocab` belongs to the live model and the token is inside it.
        self.in_vocab(token) && unsafe { ffi::llama_vocab_is_eog(self.vocab.as_ptr(), token) }
    }

    /// Whether the token steers the model and is not text.
    pub(crate) fn is_control(&self, token: Token) -> bool {
        if !self.in_vocab(token) {
            return false;
        }
        // SAFETY: `vocab` belongs to the live model and the token is inside it.
        let attr = unsafe { ffi::llama_vocab_get_attr(self.vocab.as_ptr(), token) };
        attr & (ffi::LLAMA_TOKEN_ATTR_CONTROL
            | ffi::LLAMA_TOKEN_ATTR_UNKNOWN
            | ffi::LLAMA_TOKEN_ATTR_UNUSED)
            != 0
    }

    /// Whether there is text behind the token ids; a model for tests may have none.
    pub(crate) fn has_text(&self) -> bool {
        // SAFETY: `vocab` belongs to the live model.
        unsafe { ffi::llama_vocab_type(self.vocab.as_ptr()) != ffi::LLAMA_VOCAB_TYPE_NONE }
    }

    /// The bytes of a token; of a special token its name. Appends to `out`.
    pub(crate) fn piece(&self, token: Token, out: &mut Vec<u8>) {
        if !self.in_vocab(token) || !self.has_text() {
            return;
        }
        let start = out.len();
        let mut room = 32_usize;
        loop {
            out.resize(start + room, 0);
            let length = i32::try_from(room).unwrap_or(i32::MAX);
            // SAFETY: `vocab` belongs to the live model, the token is inside it, and the buffer is writable for
            // `length` bytes.
            let n = unsafe {
                ffi::llama_token_to_piece(
                    self.vocab.as_ptr(),
                    token,
                    out.as_mut_ptr().add(start).cast(),
                    length,
                    0,
                    true,
                )
            };
            if let Ok(n) = usize::try_from(n) {
                out.truncate(start + n);
                return;
            }
            let needed = usize::try_from(n.unsigned_abs()).unwrap_or(0);
            if needed <= room {
                out.truncate(start);
                return;
            }
            room = needed;
        }
    }

    /// The tokens of a text. `add_special` adds what the model wants around a text, `parse_special` reads the names
    /// of special tokens as those tokens.
    pub(crate) fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, String> {
        if !self.has_text() {
            return Err("the model has no tokenizer".to_owned());
        }
        let length =
            i32::try_from(text.len()).map_err(|_| "the text is longer than 2 GiB".to_owned())?;
        let mut tokens: Vec<Token> = vec![0; text.len() / 3 + 16];
        for _ in 0..2 {
            let room = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            // SAFETY: `vocab` belongs to the live model; text and tokens are readable and writable for the lengths
            // given; the text need not be NUL-terminated because its length is given.
            let n = unsafe {
                ffi::llama_tokenize(
                    self.vocab.as_ptr(),
                    text.as_ptr().cast(),
                    length,
                    tokens.as_mut_ptr(),
                    room,
                    add_special,
                    parse_special,
                )
            };
            if n == i32::MIN {
                break;
            }
            if let Ok(n) = usize::try_from(n) {
                tokens.truncate(n);
                return Ok(tokens);
            }
            tokens.resize(usize::try_from(n.unsigned_abs()).unwrap_or(0), 0);
        }
        Err("the text has too many tokens".to_owned())
    }

    fn in_vocab(&self, token: Token) -> bool {
        usize::try_from(token).is_ok_and(|t| t < self.n_vocab)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: `ptr` is a live model; contexts hold an `Arc` of this, so none is left.
        unsafe { ffi::llama_model_free(self.ptr.as_ptr()) };
    }
}
