//! The only code that calls llama.cpp, and the only `unsafe` code of the crate.
//!
//! llama.cpp answers a broken precondition with an assertion that ends the process. So every function here checks
//! its preconditions first and returns an error; nothing outside this module may hold one of its pointers.
#![expect(
    unsafe_code,
    reason = "llama.cpp has a C interface; every block states why it is sound"
)]

mod context;
mod embedding;
#[cfg(test)]
mod kernels;
mod model;

pub(crate) use context::{Batch, Context, ContextParams, DecodeError, NO_STATE};
pub(crate) use embedding::{EmbedError, EmbeddingContext, Pooling};
pub(crate) use model::{Model, ModelParams};

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Once;

use llama_cpp_sys_2 as ffi;

use crate::selftest::CpuMode;

/// Largest number of sequences of one context (`LLAMA_MAX_SEQ` of this llama.cpp).
pub(crate) const SEQUENCES_MAX: u32 = 256;

thread_local! {
    static LAST_ERROR: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Starts llama.cpp once for the process. The CPU mode of the first call holds for the process in the portable
/// build, where it chooses which variant is loaded.
pub(crate) fn init(mode: CpuMode) {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        // SAFETY: the callback is a function of this program that lives as long as the process, takes no user data
        // and never unwinds; llama_backend_init has no precondition but to come before models are loaded.
        unsafe {
            ffi::llama_log_set(Some(log_line), std::ptr::null_mut());
            load_backends(mode);
            ffi::llama_backend_init();
        }
    });
}

#[cfg(not(feature = "portable"))]
unsafe fn load_backends(_mode: CpuMode) {}

/// Loads the CPU variants that lie beside the executable, or where `HONSHU_BACKENDS_DIR` says, or where the build
/// left them. The safe mode takes the plain x86-64 variant instead of the best one.
#[cfg(feature = "portable")]
unsafe fn load_backends(mode: CpuMode) {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(|dir| dir.join("backends")));
    let dir = std::env::var_os("HONSHU_BACKENDS_DIR")
        .map(std::path::PathBuf::from)
        .or_else(|| beside.filter(|dir| dir.is_dir()))
        .or_else(|| option_env!("HONSHU_BACKENDS_DIR_BUILT").map(std::path::PathBuf::from));
    let Some(dir) = dir else {
        tracing::error!("no folder with CPU backends; set HONSHU_BACKENDS_DIR");
        return;
    };
    let safe = [
        "libggml-cpu-haswell.so",
        "libggml-cpu-x64.so",
        "libggml-cpu-armv8.0_1.so",
    ];
    if mode == CpuMode::Safe {
        for name in safe {
            if let Some(path) = c_path(&dir.join(name)).filter(|_| dir.join(name).is_file()) {
                // SAFETY: `path` is a NUL-terminated string that outlives the call.
                if !unsafe { ffi::ggml_backend_load(path.as_ptr()) }.is_null() {
                    return;
                }
            }
        }
    }
    if let Some(path) = c_path(&dir) {
        // SAFETY: `path` is a NUL-terminated string that outlives the call.
        unsafe { ffi::ggml_backend_load_all_from_path(path.as_ptr()) };
    }
}

/// The path as a C string; `None` if it has a NUL byte or, outside Unix, is not UTF-8.
pub(crate) fn c_path(path: &std::path::Path) -> Option<std::ffi::CString> {
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
    #[cfg(not(unix))]
    let bytes = path.to_str()?.as_bytes().to_vec();
    std::ffi::CString::new(bytes).ok()
}

/// Takes the last error line that llama.cpp wrote on this thread.
pub(crate) fn take_last_error() -> Option<String> {
    LAST_ERROR.with(|cell| cell.borrow_mut().take())
}

unsafe extern "C" fn log_line(level: ffi::ggml_log_level, text: *const c_char, _user: *mut c_void) {
    // A panic must not cross into C; a lost log line is harmless.
    let _ = std::panic::catch_unwind(|| {
        if text.is_null() {
            return;
        }
        // SAFETY: llama.cpp passes a NUL-terminated string that lives until this function returns.
        let line = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        let line = line.trim_end();
        if line.is_empty() || line == "." {
            return;
        }
        match level {
            ffi::GGML_LOG_LEVEL_ERROR => {
                tracing::debug!(target: "honshu_engine::llama", level = "error", "{line}");
                LAST_ERROR.with(|cell| {
                    if let Ok(mut cell) = cell.try_borrow_mut() {
                        // The first line names the cause; later ones say only that loading failed.
                        cell.get_or_insert_with(|| line.to_owned());
                    }
                });
            }
            ffi::GGML_LOG_LEVEL_WARN => {
                tracing::debug!(target: "honshu_engine::llama", level = "warn", "{line}")
            }
            _ => tracing::trace!(target: "honshu_engine::llama", "{line}"),
        }
    });
}
