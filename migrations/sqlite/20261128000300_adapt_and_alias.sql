-- What may be changed of requests so that they fit, by project and key; the operator's own names for models; and under which
-- name a generation was asked for. Only adds.
-- The names of the constraints are those of the PostgreSQL migration beside this one.

-- A list such as `size, seed`, or `none`; null leaves it to the project, and there to the request.
ALTER TABLE projects ADD COLUMN adapt TEXT;
ALTER TABLE api_keys ADD COLUMN adapt TEXT;

-- Null where it is the model's own id.
ALTER TABLE generations ADD COLUMN requested_model TEXT;

CREATE TABLE model_aliases (
    -- Null for every project.
    project_id   BLOB,
    -- The id in lower case, by which it is found.
    name_key     TEXT NOT NULL,
    id           TEXT NOT NULL,
    target       TEXT NOT NULL,
    name         TEXT,
    description  TEXT,
    -- JSON objects of the target's parameters.
    defaults     TEXT NOT NULL,
    fixed        TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    CONSTRAINT model_aliases_project_fk FOREIGN KEY (project_id) REFERENCES projects (id)
) STRICT;
CREATE UNIQUE INDEX model_aliases_of_project ON model_aliases (project_id, name_key) WHERE project_id IS NOT NULL;
CREATE UNIQUE INDEX model_aliases_of_all ON model_aliases (name_key) WHERE project_id IS NULL;
