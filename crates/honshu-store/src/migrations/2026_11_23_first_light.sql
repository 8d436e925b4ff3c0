-- The tables of the first release. Times are microseconds since the epoch, ids are OCIDs, tags are JSON objects.
CREATE TABLE tenancy (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    home_region TEXT NOT NULL,
    deny_enabled INTEGER NOT NULL,
    created INTEGER NOT NULL,
    singleton INTEGER NOT NULL DEFAULT 1 UNIQUE CHECK (singleton = 1)
) STRICT;

CREATE TABLE compartments (
    id TEXT PRIMARY KEY,
    parent TEXT REFERENCES compartments (id),
    name TEXT NOT NULL,
    name_folded TEXT NOT NULL,
    description TEXT NOT NULL,
    freeform_tags TEXT NOT NULL,
    defined_tags TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX compartment_name ON compartments (parent, name_folded);

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    name_folded TEXT NOT NULL,
    description TEXT NOT NULL,
    email TEXT,
    active INTEGER NOT NULL,
    created INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX user_name ON users (name_folded);

CREATE TABLE signing_keys (
    user_id TEXT NOT NULL REFERENCES users (id),
    fingerprint TEXT NOT NULL,
    public_key_pem TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (user_id, fingerprint)
) STRICT;

CREATE TABLE groups (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    name_folded TEXT NOT NULL,
    description TEXT NOT NULL,
    created INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX group_name ON groups (name_folded);

CREATE TABLE memberships (
    user_id TEXT NOT NULL REFERENCES users (id),
    group_id TEXT NOT NULL REFERENCES groups (id),
    created INTEGER NOT NULL,
    PRIMARY KEY (user_id, group_id)
) STRICT;

CREATE TABLE policies (
    id TEXT PRIMARY KEY,
    compartment TEXT NOT NULL REFERENCES compartments (id),
    name TEXT NOT NULL,
    name_folded TEXT NOT NULL,
    description TEXT NOT NULL,
    statements TEXT NOT NULL,
    version_date TEXT,
    freeform_tags TEXT NOT NULL,
    defined_tags TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX policy_name ON policies (compartment, name_folded);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    compartment TEXT NOT NULL REFERENCES compartments (id),
    region TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT,
    freeform_tags TEXT NOT NULL,
    defined_tags TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;
CREATE INDEX api_key_compartment ON api_keys (compartment);

CREATE TABLE api_key_secrets (
    api_key TEXT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    place INTEGER NOT NULL,
    digest BLOB NOT NULL,
    mask TEXT NOT NULL,
    state TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    activated INTEGER,
    deactivated INTEGER,
    revoked INTEGER,
    last_used INTEGER,
    PRIMARY KEY (api_key, name)
) STRICT;
CREATE UNIQUE INDEX secret_digest ON api_key_secrets (digest);

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE retry_tokens (
    principal TEXT NOT NULL,
    operation TEXT NOT NULL,
    token TEXT NOT NULL,
    request_digest BLOB NOT NULL,
    resource TEXT NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (principal, operation, token)
) STRICT;
CREATE INDEX retry_token_expiry ON retry_tokens (expires);

CREATE TABLE change_log (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    principal TEXT,
    request_id TEXT,
    operation TEXT NOT NULL,
    resource TEXT
) STRICT;

-- Appended in the order of arrival; the index on run_id makes a second delivery harmless.
CREATE TABLE usage (
    arrival INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    started INTEGER NOT NULL,
    principal TEXT NOT NULL,
    secret_name TEXT,
    compartment TEXT NOT NULL,
    region TEXT NOT NULL,
    operation TEXT NOT NULL,
    model_asked TEXT NOT NULL,
    model_served TEXT NOT NULL,
    deployment TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    input_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    usage_exact INTEGER NOT NULL,
    first_event_us INTEGER,
    total_us INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX usage_run ON usage (run_id);
CREATE INDEX usage_started ON usage (started);
