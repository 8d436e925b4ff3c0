//! Frames that an upstream of the same dialect made: passed on as they are, or as those of a turn of ours.

use bytes::{Bytes, BytesMut};
use honshu_domain::NativeFrame;

use super::super::decode::UpstreamDecoder;
use super::super::object::{State, write_ending};
use super::{StreamEncoder, frame_close, is_terminal};
use crate::json::{members, put, put_str, put_u64};
use crate::sse;

/// What native frames have said so far, for an end that the upstream itself did not reach.
#[derive(Debug, Default)]
pub(super) struct Native {
    pub(super) any: bool,
    pub(super) response: Option<Bytes>,
    pub(super) items: Vec<Bytes>,
    pub(super) terminal: Option<NativeFrame>,
}

impl StreamEncoder {
    pub(super) fn native(&mut self, frame: &NativeFrame, out: &mut BytesMut) {
        if frame.whole {
            // The caller wants a stream and the upstream answered in one piece.
            let mut events = Vec::new();
            if UpstreamDecoder::new()
                .whole(&frame.json, &mut events)
                .is_ok()
            {
                for event in &events {
                    self.event(event, out);
                }
            }
            return;
        }
        self.native.any = true;
        let event = frame.event.as_deref().unwrap_or_default();
        let terminal = is_terminal(event);
        let begins = matches!(
            event,
            "response.created" | "response.queued" | "response.in_progress"
        );
        let keep = begins || event == "response.output_item.done";
        let numbered = self.identity.is_none();
        if let Ok(text) = std::str::from_utf8(&frame.json) {
            let _ = members(text, |key, place| match key {
                "sequence_number" if numbered => {
                    self.sequence = text[place]
                        .parse()
                        .map_or(self.sequence, |n: u64| n.saturating_add(1));
                }
                "response" if keep => self.native.response = Some(frame.json.slice(place)),
                "item" if keep => self.native.items.push(frame.json.slice(place)),
                _ => {}
            });
        }
        if let (Some(identity), true) = (&self.identity, begins)
            && let Some(theirs) = self.native.response.take()
        {
            let mut ours = BytesMut::with_capacity(theirs.len() + 128);
            identity.rewrite(&String::from_utf8_lossy(&theirs), &mut ours);
            self.native.response = Some(ours.freeze());
        }
        if terminal {
            self.native.terminal.get_or_insert_with(|| frame.clone());
        } else if !(begins && self.started && self.identity.is_some()) {
            // The beginning that a background response had before its upstream was asked is not told twice.
            self.native_frame(frame, out);
        }
    }

    /// Writes a frame of an upstream's: as it is, or as one of a turn of ours.
    pub(super) fn native_frame(&mut self, frame: &NativeFrame, out: &mut BytesMut) {
        let text = std::str::from_utf8(&frame.json).unwrap_or("{}");
        let event = frame.event.as_deref();
        let is_delta = event.is_some_and(|event| event.ends_with(".delta"));
        let mut padding = self.padding.as_mut().filter(|_| is_delta);
        let Some(identity) = &self.identity else {
            match &mut padding {
                Some(padding) => sse::encode_frame(event, &padding.pad(&frame.json), out),
                None => sse::encode_frame(event, &frame.json, out),
            }
            return;
        };
        let mut ours = BytesMut::with_capacity(text.len() + 128);
        put(&mut ours, "{\"type\":");
        put_str(&mut ours, frame.event.as_deref().unwrap_or_default());
        put(&mut ours, ",\"sequence_number\":");
        put_u64(&mut ours, self.sequence);
        let _ = members(text, |key, place| {
            let value = &text[place];
            if matches!(key, "type" | "sequence_number") {
                return;
            }
            put(&mut ours, ",");
            put_str(&mut ours, key);
            put(&mut ours, ":");
            match key {
                "response" if value.starts_with('{') => identity.rewrite(value, &mut ours),
                _ => put(&mut ours, value),
            }
        });
        put(&mut ours, "}");
        self.sequence += 1;
        match padding {
            Some(padding) => sse::encode_frame(event, &padding.pad(&ours.freeze()), out),
            None => sse::encode_frame(event, &ours, out),
        }
    }

    /// A whole answer of an upstream's: as it is, or as one of a turn of ours.
    pub(in crate::responses) fn native_body(&self, body: &Bytes) -> Bytes {
        match (&self.identity, std::str::from_utf8(body)) {
            (Some(identity), Ok(text)) => {
                let mut ours = BytesMut::with_capacity(text.len() + 128);
                identity.rewrite(text, &mut ours);
                ours.freeze()
            }
            _ => body.clone(),
        }
    }

    /// The end of a response in the words of an upstream that did not get there.
    pub(super) fn native_ended(
        &mut self,
        event: &str,
        base: &Bytes,
        state: &State<'_>,
        out: &mut BytesMut,
    ) {
        let items = std::mem::take(&mut self.native.items);
        let from = self.frame_open(event, out);
        put(out, ",\"response\":{");
        if let Ok(text) = std::str::from_utf8(base) {
            let _ = members(text, |key, place| {
                if !matches!(
                    key,
                    "status" | "completed_at" | "error" | "incomplete_details" | "usage" | "output"
                ) {
                    put_str(out, key);
                    put(out, ":");
                    put(out, &text[place]);
                    put(out, ",");
                }
            });
        }
        put(out, "\"status\":\"");
        put(out, state.status);
        put(out, "\",\"output\":[");
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                put(out, ",");
            }
            out.extend_from_slice(item);
        }
        put(out, "],");
        write_ending(state, out);
        put(out, "}");
        frame_close(from, out);
    }
}
