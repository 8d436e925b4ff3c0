//! What a WebSocket connection remembers of its own turns, so that chains of responses that are not stored go on
//! as long as the connection lives.

use std::collections::VecDeque;
use std::sync::Arc;

use honshu_domain::RawJson;

use crate::record::TurnEnd;

/// Turns that are remembered. A chain needs its last one; a client that forks goes a few back.
const TURNS_MAX: usize = 8;

/// Bytes that are remembered, the chains' shared beginnings counted once for each turn.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The turns of one connection.
#[derive(Debug, Default)]
pub struct Local {
    turns: VecDeque<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    id: Arc<str>,
    items: Arc<Vec<RawJson>>,
    bytes: usize,
}

impl Local {
    /// Everything up to and with the response `id`, if this connection made it.
    pub(crate) fn history(&self, id: &str) -> Option<Arc<Vec<RawJson>>> {
        self.turns
            .iter()
            .find(|turn| &*turn.id == id)
            .map(|turn| Arc::clone(&turn.items))
    }

    /// Remembers a turn that ended well.
    pub fn remember(&mut self, end: &TurnEnd) {
        let items = Arc::clone(&end.chain);
        let bytes = items.iter().map(|item| item.get().len()).sum();
        if bytes > BYTES_MAX {
            return;
        }
        self.turns.push_back(Remembered {
            id: Arc::clone(&end.id),
            items,
            bytes,
        });
        while self.turns.len() > TURNS_MAX
            || self.turns.iter().map(|turn| turn.bytes).sum::<usize>() > BYTES_MAX
        {
            self.turns.pop_front();
        }
    }

    /// Forgets a response that a failed turn wanted to continue.
    pub fn evict(&mut self, id: &str) {
        self.turns.retain(|turn| &*turn.id != id);
    }
}
