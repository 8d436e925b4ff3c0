-- Responses, conversations and files of the OpenAI plane. Times are microseconds since the epoch.
-- Whose something is: one line for each region, compartment and project ('' for none) that was ever used.
CREATE TABLE scopes (
    number INTEGER PRIMARY KEY,
    region TEXT NOT NULL,
    compartment TEXT NOT NULL,
    project TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX scope_words ON scopes (region, compartment, project);

-- Items lie on threads, at positions that count from the beginning of the whole chain. A thread that forked off
-- another one begins at `parent_until`, the number of items that it shares with its parent. Numbers are never used
-- again, so that what hangs on a deleted thread can never find another one in its place.
CREATE TABLE threads (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER,
    parent_until INTEGER NOT NULL,
    length INTEGER NOT NULL,
    is_conversation INTEGER NOT NULL
) STRICT;
CREATE INDEX thread_parent ON threads (parent) WHERE parent IS NOT NULL;

-- An item that was removed from a conversation keeps its place without a body, so that a place that is missing
-- means a deleted response.
CREATE TABLE items (
    thread INTEGER NOT NULL,
    position INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    id TEXT NOT NULL,
    body TEXT,
    PRIMARY KEY (thread, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX item_id ON items (id);

CREATE TABLE responses (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    scope INTEGER NOT NULL,
    status TEXT NOT NULL,
    background INTEGER NOT NULL,
    created INTEGER NOT NULL,
    -- Input at [input_from, output_from), output at [output_from, until).
    thread INTEGER NOT NULL,
    input_from INTEGER NOT NULL,
    output_from INTEGER NOT NULL,
    until INTEGER NOT NULL,
    conversation TEXT,
    -- Where the next turn continues when this one was added to a conversation.
    conversation_thread INTEGER,
    conversation_until INTEGER,
    object TEXT NOT NULL,
    work BLOB
) STRICT;
CREATE UNIQUE INDEX response_id ON responses (id);
CREATE INDEX response_created ON responses (created);
CREATE INDEX response_thread ON responses (thread);
CREATE INDEX response_unfinished ON responses (number) WHERE work IS NOT NULL;

CREATE TABLE response_events (
    response INTEGER NOT NULL REFERENCES responses (number) ON DELETE CASCADE,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    frames BLOB NOT NULL,
    PRIMARY KEY (response, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE conversations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    scope INTEGER NOT NULL,
    thread INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX conversation_id ON conversations (id);
CREATE INDEX conversation_updated ON conversations (updated);

CREATE TABLE files (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    scope INTEGER NOT NULL,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER
) STRICT;
CREATE UNIQUE INDEX file_id ON files (id);
CREATE INDEX file_scope ON files (scope, number);
CREATE INDEX file_expires ON files (expires) WHERE expires IS NOT NULL;

CREATE TABLE file_contents (
    file INTEGER PRIMARY KEY REFERENCES files (number) ON DELETE CASCADE,
    content BLOB NOT NULL
) STRICT;
