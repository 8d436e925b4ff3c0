//! Finds out in a child process whether the tensor code runs on this processor, before the server trusts it.
//!
//! Code for wide instructions can crash on a processor, a hypervisor or a compiler that it does not suit, and a crash
//! inside the engine takes the server with it. So the first run happens in a child with a tiny model made on the spot;
//! if the child dies, the server goes on with plainer code.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::sys;

/// Which instructions the tensor code may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CpuMode {
    /// Everything this build has for this processor.
    #[default]
    Normal,
    /// No repacked weights, hence no AMX and no special matrix kernels; in the portable build also a plainer variant.
    Safe,
}

/// The self-test found no mode that works.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelfTestError {
    /// The child could not be started.
    #[error("cannot start the engine's self-test")]
    Spawn(#[source] std::io::Error),
    /// Even the safe mode crashed or gave wrong numbers.
    #[error(
        "the tensor code does not run on this processor ({outcome}); \
         build it on this machine, or with HONSHU_CPU=portable"
    )]
    NoModeWorks {
        /// How the last child ended.
        outcome: String,
    },
    /// The test ran and failed.
    #[error("the engine's self-test failed: {0}")]
    Failed(String),
}

/// How long a child may take: loading and decoding a tiny model takes some 50 ms on an idle machine.
const CHILD_TIME_MAX: Duration = Duration::from_secs(30);

/// Runs `exe args` in a child process, where that command calls [`self_test`] with [`CpuMode::Normal`]; if it fails,
/// runs it again with `--safe` appended, where it uses [`CpuMode::Safe`]. Returns the mode that works. Blocks.
///
/// # Errors
/// [`SelfTestError::Spawn`] and [`SelfTestError::NoModeWorks`].
pub fn run_self_test_child(exe: &Path, args: &[OsString]) -> Result<CpuMode, SelfTestError> {
    let Err(outcome) = run_child(exe, args)? else {
        return Ok(CpuMode::Normal);
    };
    tracing::warn!(outcome, "the engine's self-test failed; trying safer code");
    let mut args = args.to_vec();
    args.push("--safe".into());
    match run_child(exe, &args)? {
        Ok(()) => Ok(CpuMode::Safe),
        Err(outcome) => Err(SelfTestError::NoModeWorks { outcome }),
    }
}

fn run_child(exe: &Path, args: &[OsString]) -> Result<Result<(), String>, SelfTestError> {
    let mut child = Command::new(exe)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(SelfTestError::Spawn)?;
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(Ok(())),
            Ok(Some(status)) => return Ok(Err(status.to_string())),
            Ok(None) if started.elapsed() < CHILD_TIME_MAX => {
                std::thread::sleep(Duration::from_millis(5))
            }
            outcome => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(Err(outcome
                    .err()
                    .map_or_else(|| "it hung".to_owned(), |e| e.to_string())));
            }
        }
    }
}

/// Loads a tiny model in this process and computes with it, prompts and single tokens, with and without fused
/// attention. May crash the process: call it in a child.
///
/// # Errors
/// [`SelfTestError::Failed`] if the model does not load or the numbers are not finite or not reproducible.
pub fn self_test(mode: CpuMode) -> Result<(), SelfTestError> {
    let failed = |what: String| SelfTestError::Failed(what);
    let file = TempFile::write(&tiny_model(2))
        .map_err(|e| failed(format!("cannot write a temporary file: {e}")))?;
    sys::init(mode);
    let params = sys::ModelParams {
        gpu_layers: 0,
        repack: mode == CpuMode::Normal,
    };
    let model = Arc::new(sys::Model::load(&file.path, &params).map_err(failed)?);
    for flash_attention in [false, true] {
        let first = decode(&model, flash_attention).map_err(failed)?;
        let second = decode(&model, flash_attention).map_err(failed)?;
        if first.iter().any(|x| !x.is_finite()) {
            return Err(failed("a logit is not a finite number".to_owned()));
        }
        if first != second {
            return Err(failed("two equal computations differ".to_owned()));
        }
    }
    Ok(())
}

/// A prompt long enough for the matrix kernels, then single tokens in two sequences.
fn decode(model: &Arc<sys::Model>, flash_attention: bool) -> Result<Vec<f32>, String> {
    let params = sys::ContextParams {
        n_ctx: 256,
        n_seq_max: 2,
        n_batch: 128,
        threads: 2,
        flash_attention,
        unified: true,
    };
    let mut context =
        sys::Context::new(Arc::clone(model), params, Arc::new(AtomicBool::new(false)))?;
    let mut batch = sys::Batch::default();
    let mut logits = Vec::new();
    let vocabulary = i32::try_from(TINY_VOCABULARY).unwrap_or(1);
    for position in 0..100 {
        batch.push(
            0,
            position,
            i32::try_from(position * 7).unwrap_or(0) % vocabulary,
            position == 99,
        );
    }
    for position in 0..3_u32 {
        let row = batch.len() - 1;
        context
            .decode(&mut batch)
            .map_err(|e| format!("decoding failed: {e:?}"))?;
        logits.extend_from_slice(context.logits(row).ok_or("no logits")?);
        batch.clear();
        batch.push(1, position, 3, true);
        batch.push(0, 100 + position, 5, true);
    }
    Ok(logits)
}

/// A file that is removed when this is dropped.
struct TempFile {
    path: std::path::PathBuf,
}

impl TempFile {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock makes a name that no earlier process used, and nothing depends on it"
    )]
    fn write(bytes: &[u8]) -> std::io::Result<Self> {
        use std::io::Write as _;
        let stamp = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_nanos());
        let name = format!("honshu-self-test-{}-{stamp}.gguf", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        let file_guard = Self { path };
        file.write_all(bytes)?;
        Ok(file_guard)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

const TINY_VOCABULARY: u64 = 512;
const TINY_EMBEDDING: u64 = 256;
const TINY_FEED_FORWARD: u64 = 512;
const F32: u32 = 0;
const Q4_0: u32 = 2;
const Q8_0: u32 = 8;

/// A whole GGUF file of a random llama with `layers` layers and no tokenizer: quantised weights of both common kinds.
pub(crate) fn tiny_model(layers: u32) -> Vec<u8> {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let (e, f, kv) = (TINY_EMBEDDING, TINY_FEED_FORWARD, TINY_EMBEDDING / 2);
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), Q8_0, e, TINY_VOCABULARY),
        ("output_norm.weight".to_owned(), F32, e, 1),
        ("output.weight".to_owned(), Q8_0, e, TINY_VOCABULARY),
    ];
    for layer in 0..layers {
        for (name, kind, columns, rows) in [
            ("attn_norm", F32, e, 1),
            ("attn_q", Q4_0, e, e),
            ("attn_k", Q4_0, e, kv),
            ("attn_v", Q8_0, e, kv),
            ("attn_output", Q4_0, e, e),
            ("ffn_norm", F32, e, 1),
            ("ffn_gate", Q4_0, e, f),
            ("ffn_up", Q4_0, e, f),
            ("ffn_down", Q8_0, f, e),
        ] {
            tensors.push((format!("blk.{layer}.{name}.weight"), kind, columns, rows));
        }
    }
    let mut data = Vec::new();
    let mut offsets = Vec::new();
    for (_, kind, columns, rows) in &tensors {
        data.resize(data.len().next_multiple_of(32), 0);
        offsets.push(data.len() as u64);
        for _ in 0..columns * rows / if *kind == F32 { 1 } else { 32 } {
            match *kind {
                F32 => data.extend(1.0_f32.to_le_bytes()),
                Q4_0 => {
                    data.extend(0x1C00_u16.to_le_bytes()); // 0.0039 as a 16-bit float
                    (0..2).for_each(|_| data.extend(next().to_le_bytes()));
                }
                _ => {
                    data.extend(0x0C00_u16.to_le_bytes()); // 0.00024 as a 16-bit float
                    (0..4).for_each(|_| data.extend(next().to_le_bytes()));
                }
            }
        }
    }
    let texts = [
        ("general.architecture", "llama"),
        ("general.name", "honshu self-test"),
        ("tokenizer.ggml.model", "no_vocab"),
    ];
    let numbers = [
        ("llama.vocab_size", TINY_VOCABULARY),
        ("llama.context_length", 512),
        ("llama.embedding_length", e),
        ("llama.block_count", layers.into()),
        ("llama.feed_forward_length", f),
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 2),
        ("llama.rope.dimension_count", 64),
    ];
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((texts.len() as u64 + numbers.len() as u64 + 1).to_le_bytes());
    let put_text = |file: &mut Vec<u8>, text: &str| {
        file.extend((text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
    };
    for (key, value) in texts {
        put_text(&mut file, key);
        file.extend(8_u32.to_le_bytes());
        put_text(&mut file, value);
    }
    for (key, value) in numbers {
        put_text(&mut file, key);
        file.extend(4_u32.to_le_bytes());
        file.extend(u32::try_from(value).unwrap_or(0).to_le_bytes());
    }
    put_text(&mut file, "llama.attention.layer_norm_rms_epsilon");
    file.extend(6_u32.to_le_bytes());
    file.extend(1e-5_f32.to_le_bytes());
    for ((name, kind, columns, rows), offset) in tensors.iter().zip(offsets) {
        put_text(&mut file, name);
        file.extend(if *rows == 1 { 1_u32 } else { 2 }.to_le_bytes());
        file.extend(columns.to_le_bytes());
        if *rows != 1 {
            file.extend(rows.to_le_bytes());
        }
        file.extend(kind.to_le_bytes());
        file.extend(offset.to_le_bytes());
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_modes_pass_on_this_machine() {
        self_test(CpuMode::Normal).unwrap();
        self_test(CpuMode::Safe).unwrap();
    }

    #[test]
    fn a_child_that_crashes_makes_the_mode_safe() {
        let shell = Path::new("/bin/sh");
        // `sh -c SCRIPT NAME [--safe]`: the script dies by a signal unless it was asked to be safe.
        let script = |text: &str| {
            ["-c".into(), text.into(), "child".into()].map(|s: String| OsString::from(s))
        };
        let crash = script("[ \"$1\" = --safe ] || kill -ILL $$");
        assert_eq!(run_self_test_child(shell, &crash).unwrap(), CpuMode::Safe);
        assert_eq!(
            run_self_test_child(shell, &script("exit 0")).unwrap(),
            CpuMode::Normal
        );
        let error = run_self_test_child(shell, &script("kill -SEGV $$")).unwrap_err();
        assert!(
            matches!(error, SelfTestError::NoModeWorks { .. }),
            "{error}"
        );
    }

    #[test]
    fn no_file_stays_behind() {
        let path = TempFile::write(b"x").unwrap().path.clone();
        assert!(!path.exists());
    }
}
