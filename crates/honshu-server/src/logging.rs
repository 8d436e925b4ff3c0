//! Log lines on standard error, as text for people or JSON for programs.

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

impl LogFormat {
    /// Text where a person watches.
    pub fn for_terminal(interactive: bool) -> Self {
        if interactive { Self::Text } else { Self::Json }
    }
}

/// Installs the logger once for the process. `filter` is for example `info`; the variable `HONSHU_LOG`
/// goes before it.
pub(crate) fn install(format: LogFormat, filter: &str) {
    let filter = std::env::var("HONSHU_LOG")
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok())
        .or_else(|| EnvFilter::try_new(filter).ok())
        .unwrap_or_else(|| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that cannot be written, on a full disk for example, must not end the process: the library would
        // say so on standard error, which is the log itself, and panic there.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // A second server in one process keeps the first one's logger.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
