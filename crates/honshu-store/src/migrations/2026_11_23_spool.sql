-- One line per group commit: `body` holds `row_count` usage rows as JSON lines. Shipped lines are deleted.
CREATE TABLE batches (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    row_count INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
