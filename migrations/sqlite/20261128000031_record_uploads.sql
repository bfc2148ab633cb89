-- Input files that clients upload: which there are, whose, and how much a project may upload. Only adds.
-- The names of the constraints are those of the PostgreSQL migration beside this one.

-- The most bytes that a day (UTC) may bring; any number when null.
ALTER TABLE projects ADD COLUMN upload_bytes_a_day INTEGER DEFAULT 10737418240
    CONSTRAINT projects_upload_bytes_not_negative CHECK (upload_bytes_a_day >= 0);
-- The most files that may be kept at once; any number when null.
ALTER TABLE projects ADD COLUMN kept_files INTEGER DEFAULT 10000
    CONSTRAINT projects_kept_files_not_negative CHECK (kept_files >= 0);

CREATE TABLE files (
    id            BLOB    NOT NULL,
    project_id    BLOB    NOT NULL,
    api_key_id    BLOB    NOT NULL,
    -- What the client calls it; empty once it is deleted.
    name          TEXT    NOT NULL,
    purpose       TEXT    NOT NULL,
    -- Zero where the client put it into the provider's storage itself, so that its size is not known.
    bytes         INTEGER NOT NULL,
    content_type  TEXT    NOT NULL,
    -- Where it lies; null until it is uploaded, and once it is deleted.
    url           TEXT,
    created_at    INTEGER NOT NULL,
    -- A deleted file counts for its day.
    deleted_at    INTEGER,
    CONSTRAINT files_pk PRIMARY KEY (id),
    CONSTRAINT files_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT files_api_key_fk FOREIGN KEY (api_key_id) REFERENCES api_keys (id),
    CONSTRAINT files_bytes_not_negative CHECK (bytes >= 0),
    CONSTRAINT files_gone_when_deleted CHECK (deleted_at IS NULL OR (url IS NULL AND name = ''))
) STRICT;
CREATE INDEX files_kept ON files (project_id, id) WHERE deleted_at IS NULL;
CREATE INDEX files_by_day ON files (project_id, created_at);
CREATE INDEX files_deleted ON files (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX files_unfinished ON files (created_at) WHERE url IS NULL AND deleted_at IS NULL;
