-- Chat completions that were asked to be kept, and the messages that they answer. The long columns come last, so
-- that a filtered list does not read them.
CREATE TABLE completions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    scope INTEGER NOT NULL,
    created INTEGER NOT NULL,
    model TEXT NOT NULL,
    model_asked TEXT NOT NULL,
    metadata TEXT NOT NULL,
    object TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX completion_id ON completions (id);
CREATE INDEX completion_scope ON completions (scope, number);
CREATE INDEX completion_created ON completions (created);

CREATE TABLE completion_messages (
    completion INTEGER NOT NULL REFERENCES completions (number) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    id TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (completion, position)
) STRICT, WITHOUT ROWID;
