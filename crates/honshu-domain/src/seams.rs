//! The few seams beside [`Backend`](crate::Backend) and [`Catalogue`](crate::Catalogue): clock, entropy, usage log.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;

use crate::error::Result;
use crate::time::Timestamp;
use crate::usage::UsageRow;

/// The wall clock. Behaviour that depends on time asks this and nothing else.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
    }
}

/// Random bytes fit for secrets.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's random source. A thread takes some hundred bytes of it at once, because a request
/// needs several short ids and each would be a system call; a byte that was given out is wiped.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

/// Random bytes in stock, the unused ones at the end.
struct Stock {
    bytes: [u8; 512],
    used: usize,
}

thread_local! {
    static STOCK: RefCell<Stock> = const { RefCell::new(Stock { bytes: [0; 512], used: 512 }) };
}

#[expect(clippy::disallowed_methods, reason = "this is the seam")]
#[expect(
    clippy::expect_used,
    reason = "without random bytes no id or secret can be made, and no caller could go on"
)]
fn fill_from_system(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        if bytes.len() > 64 {
            return fill_from_system(bytes);
        }
        STOCK.with_borrow_mut(|stock| {
            if stock.bytes.len() - stock.used < bytes.len() {
                fill_from_system(&mut stock.bytes);
                stock.used = 0;
            }
            let taken = &mut stock.bytes[stock.used..stock.used + bytes.len()];
            bytes.copy_from_slice(taken);
            taken.fill(0);
            stock.used += bytes.len();
        });
    }
}

/// Where usage rows go: the node's own durable spool.
pub trait UsageLog: Send + Sync {
    /// Writes `row` so that it survives a kill of the process, then resolves. Writing a row with a
    /// `run_id` that is already there changes nothing. The write goes on if the future is dropped.
    fn record(&self, row: UsageRow) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>>;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_random_bytes_are_given_out_twice_on_any_thread() {
        let draw = || {
            let mut drawn = Vec::new();
            // Sizes that do not divide the stock, and one that passes it by.
            for length in [16, 40, 22, 64, 65, 7].into_iter().cycle().take(200) {
                let mut bytes = vec![0; length];
                SystemEntropy.fill(&mut bytes);
                drawn.extend(bytes.chunks_exact(7).map(<[u8]>::to_vec));
            }
            drawn
        };
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let drawn: Vec<_> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), drawn.len());
    }
}
