-- The books as a log of events. What is decided about money is one row here, and nothing else decides; generations, attempts,
-- ledger transactions and the sums of days are projections that follow within milliseconds.
-- The tables and the names of the constraints are those of the SQLite migration beside this one.

-- Append-only. The events of one stream (a generation, or a credit or refund of its own) are numbered from one: who appends
-- names the number that he expects, so that of two that race one is refused by the primary key.
CREATE TABLE ledger_events (
    stream_id      UUID   NOT NULL,
    n              BIGINT NOT NULL,
    -- Who appended it, and its place among all that he did: projections follow each writer in this order.
    writer         UUID   NOT NULL,
    seq            BIGINT NOT NULL,
    kind           TEXT   NOT NULL,
    project_id     UUID   NOT NULL,
    api_key_id     UUID,
    at             BIGINT NOT NULL,
    -- What it adds to the project's held amount and to its number of open generations.
    held           BIGINT NOT NULL,
    opened         BIGINT NOT NULL,
    -- What it adds to each account.
    project        BIGINT NOT NULL,
    revenue        BIGINT NOT NULL,
    cost_of_sales  BIGINT NOT NULL,
    provider       BIGINT NOT NULL,
    funding        BIGINT NOT NULL,
    -- What else is known, as JSON.
    payload        TEXT   NOT NULL,
    -- What can be erased: the prompt, while it is kept, and parameters, answer, error and reason as JSON.
    prompt         TEXT,
    content        TEXT,
    CONSTRAINT ledger_events_pk PRIMARY KEY (stream_id, n),
    CONSTRAINT ledger_events_balanced CHECK (project + revenue + cost_of_sales + provider + funding = 0)
) PARTITION BY RANGE (stream_id);
CREATE TABLE ledger_events_default PARTITION OF ledger_events DEFAULT;
CREATE INDEX ledger_events_by_writer ON ledger_events (writer, seq);
-- A generation ends once.
CREATE UNIQUE INDEX ledger_events_one_end ON ledger_events (stream_id) WHERE opened = -1;

-- How far the projections are, for each writer that may still append. The row of the nil id is locked by whoever projects.
CREATE TABLE event_projections (
    writer         UUID   NOT NULL,
    -- The last event that the projections show.
    projected_seq  BIGINT NOT NULL,
    -- When that was.
    projected_at   BIGINT NOT NULL,
    CONSTRAINT event_projections_pk PRIMARY KEY (writer)
) WITH (fillfactor = 50);
INSERT INTO event_projections (writer, projected_seq, projected_at)
VALUES ('00000000-0000-0000-0000-000000000000', 0, 0);

-- What a decision was made on: `version` grows with each change of the sums, `terms_version` with each change of what the
-- project and its keys may do.
ALTER TABLE balances
    ADD COLUMN version        BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN terms_version  BIGINT NOT NULL DEFAULT 0;

CREATE FUNCTION note_change_of_terms() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_TABLE_NAME = 'projects' THEN
        UPDATE balances SET terms_version = terms_version + 1 WHERE project_id = NEW.id;
    ELSIF TG_TABLE_NAME = 'organization' THEN
        UPDATE balances SET terms_version = terms_version + 1;
    ELSIF TG_TABLE_NAME = 'rate_limits' AND TG_OP = 'DELETE' THEN
        UPDATE balances SET terms_version = terms_version + 1 WHERE project_id = OLD.project_id;
    ELSE
        UPDATE balances SET terms_version = terms_version + 1
        WHERE project_id = NEW.project_id OR NEW.project_id IS NULL;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER projects_note_change AFTER UPDATE OF archived_at, prepaid, spend_limit, prompt_retention, concurrency_limit
    ON projects FOR EACH ROW EXECUTE FUNCTION note_change_of_terms();
CREATE TRIGGER organization_note_change AFTER UPDATE OF spend_limit
    ON organization FOR EACH ROW EXECUTE FUNCTION note_change_of_terms();
CREATE TRIGGER rate_limits_note_change AFTER INSERT OR UPDATE OR DELETE
    ON rate_limits FOR EACH ROW EXECUTE FUNCTION note_change_of_terms();
CREATE TRIGGER api_keys_note_change AFTER UPDATE OF project_id, revoked_at, expires_at, budget
    ON api_keys FOR EACH ROW EXECUTE FUNCTION note_change_of_terms();
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION note_change_of_terms() SET search_path = %I, pg_temp', current_schema());
END $$;

-- These are written with the event of a reservation, before the projections show its generation.
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_generation_fk;
ALTER TABLE unanswered_requests DROP CONSTRAINT unanswered_requests_generation_fk;
-- The projections show what was decided before; here each reference would be a query a row. SQLite keeps them.
ALTER TABLE generations DROP CONSTRAINT generations_project_fk, DROP CONSTRAINT generations_api_key_fk;
ALTER TABLE ledger_transactions DROP CONSTRAINT ledger_transactions_project_fk;

-- What is there already.
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload, prompt, content)
SELECT id, 1, '00000000-0000-0000-0000-000000000000', 0, 'reserved', project_id, api_key_id, created_at, hold, 1, 0, 0, 0, 0, 0,
    json_build_object('request_id', request_id, 'owner', owner, 'source', source, 'model', model,
        'requested_model', requested_model, 'provider', provider, 'endpoint', endpoint, 'num_images', num_images,
        'size', size, 'terms', terms, 'user', end_user, 'deadline_at', deadline_at,
        'cancel_if_client_leaves', cancel_if_client_leaves, 'prompt_until', prompt_expires_at)::text,
    prompt, json_build_object('parameters', parameters)::text
FROM generations;
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload)
SELECT a.generation_id, 1 + ROW_NUMBER() OVER (PARTITION BY a.generation_id ORDER BY a.n),
    '00000000-0000-0000-0000-000000000000', 0, 'submitted', g.project_id, g.api_key_id, a.submitted_at, 0, 0, 0, 0, 0, 0, 0,
    json_build_object('attempt', a.n, 'endpoint', a.endpoint, 'credential', a.credential,
        'provider_request_id', a.provider_request_id, 'status_url', a.status_url, 'response_url', a.response_url,
        'cancel_url', a.cancel_url)::text
FROM attempts a JOIN generations g ON g.id = a.generation_id;
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload)
SELECT id, 2 + (SELECT COUNT(*) FROM attempts a WHERE a.generation_id = g.id), '00000000-0000-0000-0000-000000000000', 0,
    'started', project_id, api_key_id, started_at, 0, 0, 0, 0, 0, 0, 0, '{}'
FROM generations g WHERE started_at IS NOT NULL;
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload, content)
SELECT id, 3 + (SELECT COUNT(*) FROM attempts a WHERE a.generation_id = g.id), '00000000-0000-0000-0000-000000000000', 0,
    CASE WHEN state = 'succeeded' THEN 'settled' ELSE 'released' END, project_id, api_key_id, settled_at, -hold, -1,
    -price, price, cost, -cost, 0,
    json_build_object('attempt', (SELECT COALESCE(MAX(n), 0) FROM attempts a WHERE a.generation_id = g.id), 'model', model,
        'state', state, 'cost_source', cost_source,
        'billable_units', billable_units, 'unit_price', unit_price, 'images', images, 'megapixels', megapixels)::text,
    json_build_object('answer', answer, 'error', error, 'reason', reason)::text
FROM generations g WHERE settled_at IS NOT NULL;
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload, content)
SELECT id, 4 + (SELECT COUNT(*) FROM attempts a WHERE a.generation_id = g.id), '00000000-0000-0000-0000-000000000000', 0,
    'late_evidence', project_id, api_key_id, late_at, 0, 0, 0, 0, late_cost, -late_cost, 0,
    json_build_object('cost_source', cost_source, 'billable_units', billable_units, 'unit_price', unit_price)::text,
    json_build_object('answer', answer)::text
FROM generations g WHERE late_at IS NOT NULL;
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload)
SELECT t.id, 1, '00000000-0000-0000-0000-000000000000', 0, CASE WHEN t.kind = 'refund' THEN 'refunded' ELSE 'credited' END,
    t.project_id, g.api_key_id, t.created_at, 0, 0, t.project, t.revenue, t.cost_of_sales, t.provider, t.funding,
    json_build_object('kind', t.kind, 'generation', t.generation_id, 'reason', t.reason, 'author', t.author)::text
FROM ledger_transactions t LEFT JOIN generations g ON g.id = t.generation_id
WHERE t.kind <> 'settlement' AND NOT EXISTS (SELECT FROM dropped_refunds r WHERE r.transaction_id = t.id);
-- Of generations whose months were dropped only their sums are left.
INSERT INTO ledger_events (stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
    cost_of_sales, provider, funding, payload)
SELECT gen_random_uuid(), 1, '00000000-0000-0000-0000-000000000000', 0, 'carried_over', project_id, api_key_id, day, 0, 0,
    -SUM(price - refunded), SUM(price - refunded), SUM(cost), -SUM(cost), 0, '{}'
FROM dropped_usage_days GROUP BY project_id, api_key_id, day;

CREATE TRIGGER ledger_events_append_only
    BEFORE DELETE OR UPDATE OF stream_id, n, writer, seq, kind, project_id, api_key_id, at, held, opened, project, revenue,
        cost_of_sales, provider, funding, payload
    ON ledger_events FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_ledger();
