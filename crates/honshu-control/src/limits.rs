//! Every bound of the control plane in one place, each with its unit and its reason.

use std::time::Duration;

/// Secrets of one key (OCI documentation: up to two, so that one can be renewed while the other serves).
pub const SECRETS_MAX: usize = 2;

/// How long a secret lives when its request names no end, in calendar months (OCI documentation).
pub const SECRET_LIFE_MONTHS: i32 = 3;

/// Longest name of a key or secret, in characters (OCI documentation: `^[A-Za-z_][A-Za-z0-9_-]{0,254}$`).
pub const KEY_NAME_CHARS_MAX: usize = 255;

/// Longest name of a compartment or policy, in characters (OCI API reference).
pub const NAME_CHARS_MAX: usize = 100;

/// Longest description, in characters (OCI API reference: 400 for identity resources; keys take the same).
pub const DESCRIPTION_CHARS_MAX: usize = 400;

/// Tags of one kind on one resource, and the longest text in them in characters: keeps rows small.
pub const TAGS_MAX: usize = 64;
/// Longest tag key or value, in characters (OCI documentation, tags: 256 a value).
pub const TAG_CHARS_MAX: usize = 256;

/// Levels of compartments below the root (OCI documentation).
pub const COMPARTMENT_DEPTH_MAX: usize = 6;

/// Statements of one policy (OCI documentation, service limits).
pub const STATEMENTS_MAX: usize = 50;

/// Longest statement, in bytes: a screen full of conditions is far below it.
pub const STATEMENT_BYTES_MAX: usize = 8 * 1024;

/// Items on a page when the caller names no limit.
pub const PAGE_DEFAULT: usize = 100;
/// Most items on a page (OCI API reference).
pub const PAGE_MAX: usize = 1_000;

/// How long a retry token is remembered (OCI API reference).
pub const RETRY_TOKEN_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest retry token, in bytes. OCI's SDKs send 30 characters.
pub const RETRY_TOKEN_BYTES_MAX: usize = 64;

/// How long a repeated create or renew still gets its secrets, from memory: longer than the ten minutes for
/// which OCI's SDKs retry, short enough that a secret is not kept about.
pub const SECRETS_AGAIN_LIFE: Duration = Duration::from_secs(11 * 60);
/// Requests whose secrets are kept that long; the oldest give way.
pub const SECRETS_AGAIN_MAX: usize = 1_000;

/// How long a denial can be explained.
pub const DECISION_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Denials that can be explained; the oldest give way.
pub const DECISIONS_MAX: usize = 10_000;

/// Tries to change a row that others change at the same time, when the caller names no version.
pub const CHANGE_TRIES_MAX: usize = 8;

/// Shortest pepper, in bytes: as long as the digest that it keys.
pub const PEPPER_BYTES_MIN: usize = 32;

/// How often last-used times should be written. A crash loses at most this much of them.
pub const LAST_USED_FLUSH: Duration = Duration::from_secs(15);
