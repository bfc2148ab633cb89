-- What providers still have of erased generations, to be deleted there; a row for each submit that was taken. Only adds.
-- The names of the constraints are those of the SQLite migration beside this one.
CREATE TABLE provider_erasures (
    generation_id        UUID NOT NULL,
    n                    BIGINT NOT NULL,
    provider             TEXT NOT NULL,
    provider_request_id  TEXT NOT NULL,
    -- How often the provider was asked, and when it is asked next.
    tries                BIGINT NOT NULL DEFAULT 0,
    due_at               BIGINT NOT NULL,
    -- Why it was not done the last time.
    error                TEXT,
    -- When the provider had deleted it; null while it has not.
    deleted_at           BIGINT,
    CONSTRAINT provider_erasures_pk PRIMARY KEY (generation_id, n),
    CONSTRAINT provider_erasures_tries_not_negative CHECK (tries >= 0)
);
CREATE INDEX provider_erasures_due ON provider_erasures (due_at) WHERE deleted_at IS NULL;
