//! `POST /responses/compact`: a conversation becomes its users' messages and one sealed summary.

use std::sync::Arc;

use bytes::Bytes;
use honshu_domain::{Error, ErrorKind, Item, RunEvent, Status, Usage};
use honshu_gateway::Step;
use honshu_wire::responses::{compacted, user_messages};

use crate::prepare::prepare;
use crate::shape::Shape;
use crate::{Asked, Runtime};

impl Runtime {
    /// Compacts a conversation. What is given back can be the input of a next response as it is.
    ///
    /// # Errors
    /// As [`Runtime::respond`].
    pub async fn compact(&self, asked: Asked) -> Result<Bytes, Error> {
        let shared = &self.shared;
        let prepared = prepare(shared, &asked, None, true).await?;
        let mut run = self
            .gateway(&asked.call)?
            .generate(asked.call, Arc::clone(&prepared.request))
            .await?;
        let mut shape = Shape::compacts();
        let mut item: Option<Item> = None;
        while let Some(step) = run.next().await {
            match step {
                Step::Event(event) => {
                    for event in shape.apply(event, shared, &asked.scope)? {
                        if let RunEvent::ItemDone { item: whole, .. } = event {
                            item = Some(whole);
                        }
                    }
                }
                Step::End { outcome, error } => {
                    return match (outcome.status, item) {
                        (Status::Completed | Status::Incomplete(_), Some(item)) => {
                            let kept = prepared.before.iter().chain(&prepared.turn.input);
                            let messages = user_messages(kept, &*shared.entropy);
                            Ok(self.compaction(&messages, &item, &outcome.usage))
                        }
                        _ => Err(error.unwrap_or_else(|| {
                            Error::new(ErrorKind::Upstream, "the summary broke off before its end")
                        })),
                    };
                }
            }
        }
        Err(Error::internal("the run ended without an outcome"))
    }

    fn compaction(
        &self,
        messages: &[honshu_domain::StoredItem],
        item: &Item,
        usage: &Usage,
    ) -> Bytes {
        let created = self.shared.clock.now();
        compacted(&self.response_id(), created, messages, item, usage)
    }
}
