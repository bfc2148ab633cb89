-- The books as a log of events. What is decided about money is one row here, and nothing else decides; generations, attempts,
-- ledger transactions and the sums of days are projections that follow within milliseconds.
-- The tables and the names of the constraints are those of the PostgreSQL migration beside this one.

-- Append-only. The events of one stream (a generation, or a credit or refund of its own) are numbered from one: who appends
-- names the number that he expects, so that of two that race one is refused by the primary key.
CREATE TABLE ledger_events (
    stream_id      BLOB    NOT NULL,
    n              INTEGER NOT NULL,
    -- Who appended it, and its place among all that he did: projections follow each writer in this order.
    writer         BLOB    NOT NULL,
    seq            INTEGER NOT NULL,
    kind           TEXT    NOT NULL,
    project_id     BLOB    NOT NULL,
    api_key_id     BLOB,
    at             INTEGER NOT NULL,
    -- What it adds to the project's held amount and to its number of open generations.
    held           INTEGER NOT NULL,
    opened         INTEGER NOT NULL,
    -- What it adds to each account.
    project        INTEGER NOT NULL,
    revenue        INTEGER NOT NULL,
    cost_of_sales  INTEGER NOT NULL,
    provider       INTEGER NOT NULL,
    funding        INTEGER NOT NULL,
    -- What else is known, as JSON.
    payload        TEXT    NOT NULL,
    -- What can be erased: the prompt, while it is kept, and parameters, answer, error and reason as JSON.
    prompt         TEXT,
    content        TEXT,
    CONSTRAINT ledger_events_pk PRIMARY KEY (stream_id, n),
    CONSTRAINT ledger_events_balanced CHECK (project + revenue + cost_of_sales + provider + funding = 0)
) STRICT;
CREATE INDEX ledger_events_by_writer ON ledger_events (writer, seq);
-- A generation ends once.
CREATE UNIQUE INDEX ledger_events_one_end ON ledger_events (stream_id) WHERE opened = -1;

-- How far the projections are, for each writer that may still append. The row of the nil id is locked by whoever projects.
CREATE TABLE event_projections (
    writer         BLOB    NOT NULL,
    -- The last event that the projections show.
    projected_seq  INTEGER NOT NULL,
    -- When that was.
    projected_at   INTEGER NOT NULL,
    CONSTRAINT event_projections_pk PRIMARY KEY (writer)
) STRICT;
INSERT INTO event_projections (writer, projected_seq, projected_at) VALUES (zeroblob(16), 0, 0);

-- What a decision was made on: `version` grows with each change of the sums, `terms_version` with each change of what the
-- project and its keys may do.
ALTER TABLE balances ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE balances ADD COLUMN terms_version INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER projects_note_change AFTER UPDATE OF archived_at, prepaid, spend_limit, prompt_retention, concurrency_limit
ON projects BEGIN
    UPDATE balances SET terms_version = terms_version + 1 WHERE project_id = NEW.id;
END;
CREATE TRIGGER organization_note_change AFTER UPDATE OF spend_limit ON organization BEGIN
    UPDATE balances SET terms_version = terms_version + 1;
END;
CREATE TRIGGER rate_limits_note_insert AFTER INSERT ON rate_limits BEGIN
    UPDATE balances SET terms_version = terms_version + 1 WHERE project_id = NEW.project_id;
END;
CREATE TRIGGER rate_limits_note_update AFTER UPDATE ON rate_limits BEGIN
    UPDATE balances SET terms_version = terms_version + 1 WHERE project_id = NEW.project_id;
END;
CREATE TRIGGER rate_limits_note_delete AFTER DELETE ON rate_limits BEGIN
    UPDATE balances SET terms_version = terms_version + 1 WHERE project_id = OLD.project_id;
END;
CREATE TRIGGER api_keys_note_change AFTER UPDATE OF project_id, revoked_at, expires_at, budget ON api_keys BEGIN
    UPDATE balances SET terms_version = terms_version + 1 WHERE project_id = NEW.project_id OR NEW.project_id IS NULL;
END;

-- These are written with the event of a reservation, before the projections show its generation: without a reference to it.
CREATE TABLE idempotency_keys_kept (
    project_id     BLOB    NOT NULL,
    key            TEXT    NOT NULL,
    digest         BLOB    NOT NULL,
    generation_id  BLOB    NOT NULL,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    CONSTRAINT idempotency_keys_pk PRIMARY KEY (project_id, key),
    CONSTRAINT idempotency_keys_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT idempotency_keys_digest_is_sha256 CHECK (length(digest) = 32),
    CONSTRAINT idempotency_keys_expire_later CHECK (expires_at > created_at)
) STRICT;
INSERT INTO idempotency_keys_kept (project_id, key, digest, generation_id, created_at, expires_at)
SELECT project_id, key, digest, generation_id, created_at, expires_at FROM idempotency_keys;
DROP TABLE idempotency_keys;
ALTER TABLE idempotency_keys_kept RENAME TO idempotency_keys;
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
CREATE INDEX idempotency_keys_by_generation ON idempotency_keys (generation_id);
CREATE TABLE unanswered_requests_kept (
    generation_id  BLOB    NOT NULL,
    api_key_id     BLOB    NOT NULL,
    digest         BLOB    NOT NULL,
    -- The replica that the client is connected to.
    replica        BLOB    NOT NULL,
    created_at     INTEGER NOT NULL,
    -- Since when nobody waits for it: the client went away or got a 5xx. Null while somebody waits.
    left_at        INTEGER,
    CONSTRAINT unanswered_requests_pk PRIMARY KEY (generation_id),
    CONSTRAINT unanswered_requests_api_key_fk FOREIGN KEY (api_key_id) REFERENCES api_keys (id),
    CONSTRAINT unanswered_requests_digest_is_sha256 CHECK (length(digest) = 32)
) STRICT;
INSERT INTO unanswered_requests_kept (generation_id, api_key_id, digest, replica, created_at, left_at)
SELECT generation_id, api_key_id, digest, replica, created_at, left_at FROM unanswered_requests;
DROP TABLE unanswered_requests;
ALTER TABLE unanswered_requests_kept RENAME TO unanswered_requests;
CREATE INDEX unanswered_requests_by_digest ON unanswered_requests (api_key_id, digest);
CREATE INDEX unanswered_requests_by_age ON unanswered_requests (created_at);

-- What is there already.
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload, prompt, content)
SELECT id, 1, zeroblob(16), 0, 'reserved', project_id, api_key_id, created_at, hold, 1, 0, 0, 0, 0, 0,
    json_object('request_id', lower(hex(request_id)), 'owner', lower(hex(owner)), 'source', source, 'model', model,
        'requested_model', requested_model, 'provider', provider, 'endpoint', endpoint, 'num_images', num_images,
        'size', size, 'terms', terms, 'user', end_user, 'deadline_at', deadline_at,
        'cancel_if_client_leaves', json(CASE WHEN cancel_if_client_leaves THEN 'true' ELSE 'false' END),
        'prompt_until', prompt_expires_at),
    prompt, json_object('parameters', parameters)
FROM generations;
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload)
SELECT a.generation_id, 1 + ROW_NUMBER() OVER (PARTITION BY a.generation_id ORDER BY a.n),
    zeroblob(16), 0, 'submitted', g.project_id, g.api_key_id, a.submitted_at, 0, 0, 0, 0, 0, 0, 0,
    json_object('attempt', a.n, 'endpoint', a.endpoint, 'credential', a.credential,
        'provider_request_id', a.provider_request_id, 'status_url', a.status_url, 'response_url', a.response_url,
        'cancel_url', a.cancel_url)
FROM attempts a JOIN generations g ON g.id = a.generation_id;
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload)
SELECT id, 2 + (SELECT COUNT(*) FROM attempts a WHERE a.generation_id = g.id), zeroblob(16), 0,
    'started', project_id, api_key_id, started_at, 0, 0, 0, 0, 0, 0, 0, '{}'
FROM generations g WHERE started_at IS NOT NULL;
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload, content)
SELECT id, 3 + (SELECT COUNT(*) FROM attempts a WHERE a.generation_id = g.id), zeroblob(16), 0,
    CASE WHEN state = 'succeeded' THEN 'settled' ELSE 'released' END, project_id, api_key_id, settled_at, -hold, -1,
    -price, price, cost, -cost, 0,
    json_object('attempt', (SELECT COALESCE(MAX(n), 0) FROM attempts a WHERE a.generation_id = g.id), 'model', model,
        'state', state, 'cost_source', cost_source,
        'billable_units', billable_units, 'unit_price', unit_price, 'images', images, 'megapixels', megapixels),
    json_object('answer', answer, 'error', error, 'reason', reason)
FROM generations g WHERE settled_at IS NOT NULL;
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload, content)
SELECT id, 4 + (SELECT COUNT(*) FROM attempts a WHERE a.generation_id = g.id), zeroblob(16), 0,
    'late_evidence', project_id, api_key_id, late_at, 0, 0, 0, 0, late_cost, -late_cost, 0,
    json_object('cost_source', cost_source, 'billable_units', billable_units, 'unit_price', unit_price),
    json_object('answer', answer)
FROM generations g WHERE late_at IS NOT NULL;
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload)
SELECT t.id, 1, zeroblob(16), 0, CASE WHEN t.kind = 'refund' THEN 'refunded' ELSE 'credited' END,
    t.project_id, g.api_key_id, t.created_at, 0, 0, t.project, t.revenue, t.cost_of_sales, t.provider, t.funding,
    json_object('kind', t.kind, 'generation', CASE WHEN t.generation_id IS NOT NULL THEN lower(hex(t.generation_id)) END, 'reason', t.reason, 'author', t.author)
FROM ledger_transactions t LEFT JOIN generations g ON g.id = t.generation_id
WHERE t.kind <> 'settlement' AND NOT EXISTS (SELECT 1 FROM dropped_refunds r WHERE r.transaction_id = t.id);
-- Of generations whose months were dropped only their sums are left.
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload)
SELECT randomblob(16), 1, zeroblob(16), 0, 'carried_over', project_id, api_key_id, day, 0, 0,
    -SUM(price - refunded), SUM(price - refunded), SUM(cost), -SUM(cost), 0, '{}'
FROM dropped_usage_days GROUP BY project_id, api_key_id, day;

CREATE TRIGGER ledger_events_no_update BEFORE UPDATE OF stream_id, n, writer, seq, kind, project_id, api_key_id, at, held,
    opened, project, revenue, cost_of_sales, provider, funding, payload ON ledger_events BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: correct it by a new transaction');
END;
CREATE TRIGGER ledger_events_no_delete BEFORE DELETE ON ledger_events BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: correct it by a new transaction');
END;
