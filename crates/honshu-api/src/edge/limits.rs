//! Every bound of the HTTP edge, with its unit and its reason.

use std::time::Duration;

/// Bounds of the HTTP edge. [`EdgeLimits::default`] suits a server that faces the
/// open network; a test shortens what it measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Connections over all listeners. Beyond it new ones get a 503 and are
    /// closed, so that those who are being served keep their files and memory.
    pub connections_max: usize,
    /// From accept to the first byte (after TLS, if any). A socket that says
    /// nothing costs 3 KiB and a file; clients speak within a round trip.
    pub first_byte_timeout: Duration,
    /// From the first byte of a request head to its end. Slow writers of heads are
    /// the oldest attack there is.
    pub header_timeout: Duration,
    /// For the whole TLS handshake: some round trips and one signature.
    pub tls_handshake_timeout: Duration,
    /// An open connection without a request is closed after this. Longer than the
    /// 60 s of common load balancers would make them reuse connections that we
    /// close at the same moment, so it is above that.
    pub keep_alive_idle_timeout: Duration,
    /// Whole request head, in bytes. Session tokens take 4 KiB, proxies add some.
    pub header_bytes_max: usize,
    /// Header fields per request. More than three times what any known client sends.
    pub header_fields_max: usize,
    /// Request target, in bytes.
    pub uri_bytes_max: usize,
    /// Request body in bytes, where a route sets nothing else: a prompt of two
    /// million tokens.
    pub body_bytes_max: u64,
    /// Body of a file's upload, in bytes. It passes through memory in pieces of 64 KiB, so that this bounds what one
    /// request puts on the disk.
    pub upload_bytes_max: u64,
    /// Longest silence inside a request body.
    pub body_idle_timeout: Duration,
    /// After [`Self::body_grace`] a body must have arrived at this mean rate, in
    /// bytes per second. A modem does better; a drip of one byte per second is cut.
    pub body_rate_min: u64,
    /// Head start before the mean rate counts. Idle timeout and grace are both
    /// below 30 s, the time within which a dripping body is answered with 408.
    pub body_grace: Duration,
    /// A client that takes no byte of its response for this long is cut: it holds
    /// a run, and the run holds a slot of a model.
    pub write_stall_timeout: Duration,
    /// Unsent bytes that the kernel may hold for one connection. Keeps a slow
    /// reader's backlog where back-pressure reaches the producer.
    pub unsent_bytes_max: u32,
    /// Buffer of the HTTP/1 parser and writer for one connection, in bytes; at
    /// least [`Self::header_bytes_max`]. Bounds what one idle stream costs.
    pub http1_buffer_bytes_max: usize,
    /// Parallel streams of one HTTP/2 connection.
    pub http2_streams_max: u32,
    /// Flow-control window of one HTTP/2 stream, in bytes.
    pub http2_stream_window_bytes: u32,
    /// Flow-control window of one HTTP/2 connection, in bytes.
    pub http2_connection_window_bytes: u32,
    /// Bytes that one HTTP/2 stream may have queued for sending.
    pub http2_send_buffer_bytes: usize,
    /// Streams that a client reset before we looked at them (CVE-2023-44487).
    pub http2_pending_resets_max: usize,
    /// Streams that we reset because of a client's errors, until the connection is
    /// given up (CVE-2025-8671).
    pub http2_local_resets_max: usize,
    /// Control frames (PING, SETTINGS, PRIORITY, RST_STREAM, CONTINUATION, empty
    /// DATA) per second on one connection, over and above a burst of five seconds.
    pub http2_control_frames_per_second: u32,
    /// WINDOW_UPDATE frames per second on one connection. Clients send two for
    /// each DATA frame that they read, so this is far above the others.
    pub http2_window_updates_per_second: u32,
    /// Silence after which an HTTP/2 peer is asked whether it is still there.
    pub http2_ping_interval: Duration,
    /// Time to answer that question.
    pub http2_ping_timeout: Duration,
    /// Silence of a TCP connection after which the kernel asks whether the peer is
    /// there; four more questions follow, a quarter as long apart.
    pub tcp_keepalive: Duration,
    /// How often certificate files are looked at.
    pub tls_poll_interval: Duration,
    /// How long running requests may go on after a drain began.
    pub drain_timeout: Duration,
    /// How long a refused or half-read client is listened to after our last byte,
    /// so that its unread data does not reset the connection under the answer.
    pub linger_timeout: Duration,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            connections_max: connections_from_open_files(),
            first_byte_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            tls_handshake_timeout: Duration::from_secs(10),
            keep_alive_idle_timeout: Duration::from_secs(75),
            header_bytes_max: 32 * 1024,
            header_fields_max: 100,
            uri_bytes_max: 8 * 1024,
            body_bytes_max: 10 * 1024 * 1024,
            upload_bytes_max: 64 * 1024 * 1024,
            body_idle_timeout: Duration::from_secs(10),
            body_rate_min: 1024,
            body_grace: Duration::from_secs(15),
            write_stall_timeout: Duration::from_secs(120),
            unsent_bytes_max: 64 * 1024,
            http1_buffer_bytes_max: 64 * 1024,
            http2_streams_max: 100,
            http2_stream_window_bytes: 64 * 1024,
            http2_connection_window_bytes: 1024 * 1024,
            http2_send_buffer_bytes: 64 * 1024,
            http2_pending_resets_max: 20,
            http2_local_resets_max: 64,
            http2_control_frames_per_second: 200,
            http2_window_updates_per_second: 20_000,
            http2_ping_interval: Duration::from_secs(30),
            http2_ping_timeout: Duration::from_secs(10),
            tcp_keepalive: Duration::from_secs(60),
            tls_poll_interval: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(1),
        }
    }
}

/// Most connections that are taken by default.
const CONNECTIONS_DEFAULT: usize = 10_000;

/// Files that the process needs for other things: database, models, logs.
const FILES_RESERVED: u64 = 64;

/// 10,000, or half of the files that the process may open: a connection may need
/// a second file for its upstream.
fn connections_from_open_files() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match files {
        None => CONNECTIONS_DEFAULT,
        Some(files) => usize::try_from(files.saturating_sub(FILES_RESERVED) / 2)
            .unwrap_or(CONNECTIONS_DEFAULT)
            .clamp(16, CONNECTIONS_DEFAULT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_keep_their_promises_to_each_other() {
        let limits = EdgeLimits::default();
        assert!(limits.http1_buffer_bytes_max >= limits.header_bytes_max + 8192);
        assert!(limits.uri_bytes_max < limits.header_bytes_max);
        assert!(limits.body_idle_timeout + limits.body_grace < Duration::from_secs(30));
        assert!(limits.connections_max >= 16);
        // The parser underneath takes at most 100 fields without an allocation.
        assert!(limits.header_fields_max <= 100);
    }
}
