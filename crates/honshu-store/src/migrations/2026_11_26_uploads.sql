-- Files that arrive in pieces. An upload without a file is under way; nobody sees it.
CREATE TABLE uploads (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    begun INTEGER NOT NULL,
    file INTEGER REFERENCES files (number) ON DELETE CASCADE
) STRICT;
CREATE INDEX upload_file ON uploads (file);

CREATE TABLE file_pieces (
    upload INTEGER NOT NULL REFERENCES uploads (number) ON DELETE CASCADE,
    piece INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (upload, piece)
) STRICT;
