//! WebSocket mode: `GET /responses` upgraded, turns in order, chains that the connection remembers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::RequestPartsExt as _;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Request, State};
use axum::response::Response;
use honshu_domain::{Dialect, Error, ErrorKind, Result, Scope};
use honshu_gateway::Call;
use honshu_responses::{Answer, Asked, Local, Words};
use honshu_wire::responses::{Create, error_message, messages, parse_create};
use http::header;
use tokio::time::Instant;

use super::scope;
use crate::app::App;
use crate::context::Context;
use crate::{authn, openai, respond};

/// How long a connection lives (Open Responses: 60 minutes).
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Silence after which the server asks whether the client is there.
const PING_AFTER: Duration = Duration::from_secs(30);

/// A message that a client does not take in this time ends the connection.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of one message: a prompt with images. The same as the bound of a posted body by default.
const MESSAGE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Turns that wait for the one that runs, and their bytes.
const WAITING_MAX: usize = 16;
const WAITING_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// A connection's read buffer. The library's default of 128 KiB would be most of what an idle client costs.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// `GET /responses`: a WebSocket, or the hint that there is none without an upgrade.
pub(super) async fn open(State(app): State<App>, request: Request) -> Response {
    let is_upgrade = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !is_upgrade {
        return openai::websocket_refused(request).await;
    }
    let context = respond::context_of(&request);
    let result = upgrade(&app, &context, request).await;
    respond::finish(&context, result)
}

async fn upgrade(app: &App, context: &Context, request: Request) -> Result<Response> {
    let (mut parts, _body) = request.into_parts();
    let caller = authn::data_plane(app, context, &parts)?;
    let compartment = authn::compartment(&parts.headers, &caller.principal)?;
    let scope = scope::of(&parts.headers, context, &compartment);
    let upgrade = parts.extract::<WebSocketUpgrade>().await.map_err(|error| {
        Error::invalid_at("", "the request is not a WebSocket handshake").with_cause(error)
    })?;
    let call = Call {
        principal: caller.principal,
        region: context.region.clone(),
        compartment,
        request_id: context.request_id.as_str().into(),
        operation: Dialect::Responses.as_str(),
        timeouts: app.timeouts,
    };
    let runtime = app.runtime.clone();
    let app = app.clone();
    Ok(upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MESSAGE_BYTES_MAX)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| {
            let connection = Connection {
                socket,
                app,
                call,
                scope,
                local: Local::default(),
                waiting: VecDeque::new(),
                waiting_bytes: 0,
            };
            runtime.track(Box::pin(connection.serve()))
        }))
}

/// Why a connection ends.
enum End {
    /// The client has left, or takes nothing.
    Gone,
    /// The server goes away.
    Draining,
    /// It has lived long enough.
    Old,
    /// Its credential is not good any more.
    Refused,
}

struct Connection {
    socket: WebSocket,
    app: App,
    call: Call,
    scope: Scope,
    local: Local,
    /// Turns that came while another one ran.
    waiting: VecDeque<Utf8Bytes>,
    waiting_bytes: usize,
}

impl Connection {
    async fn serve(mut self) {
        let until = Instant::now() + LIFETIME;
        let end = loop {
            let text = match self.waiting.pop_front() {
                Some(text) => text,
                None => match self.next(until).await {
                    Ok(text) => text,
                    Err(end) => break end,
                },
            };
            self.waiting_bytes = self.waiting_bytes.saturating_sub(text.len());
            if let Err(end) = self.turn(&text).await {
                break end;
            }
        };
        let (code, reason) = match end {
            End::Gone => return,
            End::Draining => (close_code::AWAY, "the server is shutting down"),
            End::Refused => (close_code::POLICY, "the credential is not good any more"),
            End::Old => {
                let error = Error::new(
                    ErrorKind::Invalid,
                    "the connection has reached its limit of 60 minutes; open another one",
                )
                .with_code("websocket_connection_limit_reached");
                if self.tell(&error, None).await.is_err() {
                    return;
                }
                (close_code::NORMAL, "the connection has lived long enough")
            }
        };
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        let _ = self.send(Message::Close(Some(frame))).await;
    }

    /// The next turn's message.
    async fn next(&mut self, until: Instant) -> Result<Utf8Bytes, End> {
        loop {
            let message = tokio::select! {
                biased;
                message = self.socket.recv() => message,
                () = self.app.runtime.draining() => return Err(End::Draining),
                () = tokio::time::sleep_until(until) => return Err(End::Old),
                () = tokio::time::sleep(PING_AFTER) => {
                    self.send(Message::Ping(bytes::Bytes::new())).await?;
                    continue;
                }
            };
            match message {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Binary(_))) => self.tell(&not_text(), None).await?,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
            }
        }
    }

    async fn turn(&mut self, text: &str) -> Result<(), End> {
        let create = match parse_create(text) {
            Ok(create) => create,
            Err(error) => return self.tell(&error, None).await,
        };
        let lane = create.stream_id.clone();
        let Some(principal) = self.app.runtime.caller_again(&self.call) else {
            self.tell(&respond::unauthenticated(), lane.as_deref())
                .await?;
            return Err(End::Refused);
        };
        self.call.principal = principal;
        let previous = create.previous_response_id.clone();
        let has_failed = match self.answer(create).await? {
            Ok(has_failed) => has_failed,
            Err(error) => {
                self.tell(&error, lane.as_deref()).await?;
                true
            }
        };
        if has_failed && let Some(previous) = previous {
            self.local.evict(&previous);
        }
        Ok(())
    }

    /// Runs a turn. The inner error is one before it began; the value, whether it failed.
    async fn answer(&mut self, create: Create) -> Result<Result<bool>, End> {
        let lane = create.stream_id;
        let request = match openai::parse(Dialect::Responses, create.body).await {
            Ok(request) => Arc::new(request),
            Err(error) => return Ok(Err(error)),
        };
        let asked = Asked {
            call: self.call.clone(),
            scope: self.scope.clone(),
            request,
            stream: true,
        };
        let runtime = self.app.runtime.clone();
        // What waits is read while the model thinks, so that a client that leaves is noticed.
        let mut recorded = {
            let begun = runtime.respond(asked, Some(&self.local));
            tokio::pin!(begun);
            loop {
                tokio::select! {
                    biased;
                    begun = begun.as_mut() => match begun {
                        Ok(Answer::Recorded(recorded)) => break recorded,
                        Ok(_) => return Ok(Err(Error::internal("a turn was not recorded"))),
                        Err(error) => return Ok(Err(error)),
                    },
                    message = self.socket.recv() => {
                        queue(&mut self.waiting, &mut self.waiting_bytes, message)?;
                    }
                }
            }
        };
        loop {
            let words = tokio::select! {
                biased;
                words = recorded.next() => words,
                message = self.socket.recv() => {
                    queue(&mut self.waiting, &mut self.waiting_bytes, message)?;
                    continue;
                }
            };
            let (frames, end) = match words {
                Some(Words::Frames(frames)) => (frames, None),
                Some(Words::End(frames, end)) => (frames, Some(end)),
                _ => return Ok(Err(Error::internal("the recorder of a response broke"))),
            };
            if let Some(Some(end)) = &end {
                self.local.remember(end);
            }
            for message in messages(&frames, lane.as_deref()) {
                self.send(Message::Text(message.into())).await?;
            }
            if let Some(end) = end {
                return Ok(Ok(end.is_none()));
            }
        }
    }

    async fn tell(&mut self, error: &Error, lane: Option<&str>) -> Result<(), End> {
        let request_id = Arc::clone(&self.call.request_id);
        tracing::debug!(request_id = &*request_id, error = %respond::chain(error), "turn refused");
        let message = error_message(error, &request_id, lane);
        self.send(Message::Text(message.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Gone),
        }
    }
}

fn not_text() -> Error {
    Error::invalid_at("", "expected a text message that holds one JSON object")
}

/// Keeps what came while a turn runs for its time.
fn queue(
    waiting: &mut VecDeque<Utf8Bytes>,
    waiting_bytes: &mut usize,
    message: Option<Result<Message, axum::Error>>,
) -> Result<(), End> {
    match message {
        Some(Ok(Message::Text(text))) => {
            *waiting_bytes += text.len();
            if waiting.len() >= WAITING_MAX || *waiting_bytes > WAITING_BYTES_MAX {
                return Err(End::Gone);
            }
            waiting.push_back(text);
            Ok(())
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => Ok(()),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::Gone),
    }
}
