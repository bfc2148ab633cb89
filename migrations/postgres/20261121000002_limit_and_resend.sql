-- Limits that the first migration lacks, and what a resend without a key is recognized by. Only adds.
-- The tables and the names of the constraints are those of the SQLite migration beside this one.

-- How many generations of a project may be open at once; any number when null.
ALTER TABLE projects ADD COLUMN concurrency_limit BIGINT
    CONSTRAINT projects_concurrency_limit_positive CHECK (concurrency_limit > 0);

-- What all projects together may do. One row; reservations lock it while it limits them.
CREATE TABLE organization (
    id           BIGINT NOT NULL,
    -- The most that a calendar month (UTC) may cost; none when null.
    spend_limit  BIGINT,
    CONSTRAINT organization_pk PRIMARY KEY (id),
    CONSTRAINT organization_one_row CHECK (id = 1),
    CONSTRAINT organization_spend_limit_not_negative CHECK (spend_limit >= 0)
);
INSERT INTO organization (id) VALUES (1);
-- What a month was charged over all projects.
CREATE INDEX monthly_spend_by_month ON monthly_spend (starts_at);

-- How much of a model a project may ask for in any minute. The model `*` stands for each model without a row.
CREATE TABLE rate_limits (
    project_id           UUID   NOT NULL,
    model                TEXT   NOT NULL,
    requests_per_minute  BIGINT,
    images_per_minute    BIGINT,
    CONSTRAINT rate_limits_pk PRIMARY KEY (project_id, model),
    CONSTRAINT rate_limits_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT rate_limits_model_not_empty CHECK (model <> ''),
    CONSTRAINT rate_limits_positive CHECK (requests_per_minute > 0 AND images_per_minute > 0),
    CONSTRAINT rate_limits_limit_something CHECK (requests_per_minute IS NOT NULL OR images_per_minute IS NOT NULL)
);

-- What was reserved under a rate limit in each second; kept for a few minutes.
CREATE TABLE request_counts (
    project_id  UUID   NOT NULL,
    -- Unix time.
    second      BIGINT NOT NULL,
    model       TEXT   NOT NULL,
    requests    BIGINT NOT NULL,
    images      BIGINT NOT NULL,
    CONSTRAINT request_counts_pk PRIMARY KEY (project_id, second, model),
    CONSTRAINT request_counts_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT request_counts_not_negative CHECK (requests >= 0 AND images >= 0)
);
CREATE INDEX request_counts_by_second ON request_counts (second);

-- Requests of clients that resend without an idempotency key, until they have their answer: a resend joins the first
-- one of its key and hash that nobody waits for any more.
CREATE TABLE unanswered_requests (
    generation_id  UUID   NOT NULL,
    api_key_id     UUID   NOT NULL,
    digest         BYTEA  NOT NULL,
    -- The replica that the client is connected to.
    replica        UUID   NOT NULL,
    created_at     BIGINT NOT NULL,
    -- Since when nobody waits for it: the client went away or got a 5xx. Null while somebody waits.
    left_at        BIGINT,
    CONSTRAINT unanswered_requests_pk PRIMARY KEY (generation_id),
    CONSTRAINT unanswered_requests_generation_fk FOREIGN KEY (generation_id) REFERENCES generations (id),
    CONSTRAINT unanswered_requests_api_key_fk FOREIGN KEY (api_key_id) REFERENCES api_keys (id),
    CONSTRAINT unanswered_requests_digest_is_sha256 CHECK (length(digest) = 32)
);
CREATE INDEX unanswered_requests_by_digest ON unanswered_requests (api_key_id, digest);
CREATE INDEX unanswered_requests_by_age ON unanswered_requests (created_at);
