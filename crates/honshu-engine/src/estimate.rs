//! How much memory a model will need, told before any of it is taken.
//!
//! The figure is deliberately a little high: being refused with two numbers is better than being killed.

use crate::gguf::Gguf;
use crate::model::{FlashAttention, LoadOptions};

/// Context that is used when the options leave it to the model.
const N_CTX_DEFAULT_MAX: u32 = 8192;
/// Memory beside weights, cache and buffers: graphs, vocabulary, allocator.
const OVERHEAD_BYTES: u64 = 48 << 20;

/// Cells of the KV cache for these options.
pub(crate) fn n_ctx(file: &Gguf, opts: &LoadOptions) -> u32 {
    if opts.n_ctx != 0 {
        return opts.n_ctx;
    }
    let trained = file
        .number("context_length")
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or(2048);
    trained.clamp(64, N_CTX_DEFAULT_MAX)
}

/// Bytes for weights, KV cache and work buffers.
pub(crate) fn bytes(file: &Gguf, opts: &LoadOptions) -> u64 {
    let n_ctx = u64::from(n_ctx(file, opts)).next_multiple_of(256);
    let layers = file.number("block_count").unwrap_or(0);
    let embedding = file.number("embedding_length").unwrap_or(0);
    let heads = file
        .sum_over_layers("attention.head_count", layers)
        .unwrap_or(layers);
    let heads_kv = file
        .sum_over_layers("attention.head_count_kv", layers)
        .unwrap_or(heads);
    let heads_per_layer = heads.checked_div(layers).unwrap_or(1).max(1);
    let head = embedding.checked_div(heads_per_layer).unwrap_or(0);
    let key = file.number("attention.key_length").unwrap_or(head);
    let value = file.number("attention.value_length").unwrap_or(head);
    let cache = heads_kv
        .saturating_mul(key.saturating_add(value))
        .saturating_mul(2)
        .saturating_mul(n_ctx);

    let batch = u64::from(opts.n_batch);
    let feed_forward = file
        .number("feed_forward_length")
        .unwrap_or(embedding.saturating_mul(4));
    let activations =
        batch.saturating_mul(feed_forward.saturating_mul(2).saturating_add(embedding * 6)) * 4;
    let scores = if opts.flash_attention == FlashAttention::On {
        0
    } else {
        batch
            .saturating_mul(n_ctx)
            .saturating_mul(heads_per_layer + 1)
            * 4
    };
    let logits = u64::from(opts.n_seq_max)
        .saturating_mul(file.n_vocab().unwrap_or(0))
        .saturating_mul(8);
    [cache, activations, scores, logits, OVERHEAD_BYTES]
        .into_iter()
        .fold(file.tensor_bytes, u64::saturating_add)
}

/// Memory that a new allocation may take, in bytes: what the kernel calls available, and what the control group of
/// this process leaves. Without either (not Linux) there is no bound.
pub(crate) fn available_bytes() -> u64 {
    let system = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo_available(&text));
    let group = control_group_bytes();
    system.unwrap_or(u64::MAX).min(group.unwrap_or(u64::MAX))
}

fn meminfo_available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn control_group_bytes() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = std::path::Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let max: u64 = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    // Cached file pages are given back under pressure.
    let cached = read("memory.stat")
        .and_then(|text| {
            text.lines()
                .find_map(|l| l.strip_prefix("inactive_file ")?.parse::<u64>().ok())
        })
        .unwrap_or(0);
    Some(max.saturating_sub(current.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let text = "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(meminfo_available(text), Some(20_000_000 * 1024));
        assert_eq!(meminfo_available("MemFree: 1 kB\n"), None);
    }
}
