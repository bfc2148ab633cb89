-- Receivers of webhooks that fail again and again are disabled for a while, so that they do not delay others. Only adds.
-- The names of the constraints are those of the PostgreSQL migration beside this one.

-- Host and port of the receiver; empty for calls from before.
ALTER TABLE webhook_deliveries ADD COLUMN host TEXT NOT NULL DEFAULT '';

-- A project's receivers whose latest call failed. A call that is answered removes the row.
CREATE TABLE webhook_endpoints (
    project_id   BLOB NOT NULL,
    host         TEXT NOT NULL,
    -- In a row.
    failures     INTEGER NOT NULL,
    last_error   TEXT NOT NULL,
    failed_at    INTEGER NOT NULL,
    -- Since when it is disabled.
    disabled_at  INTEGER,
    -- When one call is tried while it is disabled.
    probe_at     INTEGER,
    CONSTRAINT webhook_endpoints_pk PRIMARY KEY (project_id, host),
    CONSTRAINT webhook_endpoints_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT webhook_endpoints_failures_positive CHECK (failures > 0),
    CONSTRAINT webhook_endpoints_probed_iff_disabled CHECK ((disabled_at IS NULL) = (probe_at IS NULL))
) STRICT;
