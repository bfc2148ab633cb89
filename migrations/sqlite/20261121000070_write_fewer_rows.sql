-- Fewer rows for each request: a hold is a column of its generation, the entries of a ledger transaction are columns of it,
-- and an attempt says itself only when another one replaced it. What was written before is taken over.
-- The tables and the names of the constraints are those of the PostgreSQL migration beside this one.

-- A hold is open as long as its generation is, and ends with it.
ALTER TABLE generations ADD COLUMN hold INTEGER NOT NULL DEFAULT 0
    CONSTRAINT generations_hold_not_negative CHECK (hold >= 0);
UPDATE generations SET hold = COALESCE((SELECT amount FROM holds WHERE generation_id = generations.id), 0);
DROP TABLE holds;

-- How many generations of a project are open, kept beside the sum of their holds.
ALTER TABLE balances ADD COLUMN open_generations INTEGER NOT NULL DEFAULT 0
    CONSTRAINT balances_open_generations_not_negative CHECK (open_generations >= 0);
UPDATE balances SET open_generations = (
    SELECT COUNT(*) FROM generations WHERE settled_at IS NULL AND generations.project_id = balances.project_id);

-- An attempt ends with its generation, as its generation did, unless another one replaced it before. It has no reference to
-- its generation, like the ledger. `imagegate ledger verify` looks for rows without their generation.
CREATE TABLE attempts_now (
    generation_id        BLOB   NOT NULL,
    n                    INTEGER NOT NULL,
    endpoint             TEXT   NOT NULL,
    -- The label of the provider key, never the key.
    credential           TEXT   NOT NULL,
    provider_request_id  TEXT   NOT NULL,
    status_url           TEXT   NOT NULL,
    response_url         TEXT   NOT NULL,
    cancel_url           TEXT   NOT NULL,
    submitted_at         INTEGER NOT NULL,
    replaced_at          INTEGER,
    CONSTRAINT attempts_pk PRIMARY KEY (generation_id, n),
    CONSTRAINT attempts_n_positive CHECK (n > 0)
) STRICT;
INSERT INTO attempts_now (generation_id, n, endpoint, credential, provider_request_id, status_url, response_url, cancel_url,
    submitted_at, replaced_at)
SELECT generation_id, n, endpoint, credential, provider_request_id, status_url, response_url, cancel_url, submitted_at,
    CASE WHEN outcome = 'replaced' THEN ended_at END
FROM attempts;
DROP TABLE attempts;
ALTER TABLE attempts_now RENAME TO attempts;
CREATE INDEX attempts_by_provider_request ON attempts (provider_request_id);

-- The entries of a transaction: what it adds to each account. They balance row by row, and there is no way to write one
-- without the others.
CREATE TABLE ledger_transactions_now (
    id             BLOB   NOT NULL,
    kind           TEXT   NOT NULL,
    project_id     BLOB   NOT NULL,
    -- What a settlement charges, or what a refund gives back.
    generation_id  BLOB,
    reason         TEXT   NOT NULL,
    author         TEXT,
    created_at     INTEGER NOT NULL,
    project        INTEGER NOT NULL DEFAULT 0,
    revenue        INTEGER NOT NULL DEFAULT 0,
    cost_of_sales  INTEGER NOT NULL DEFAULT 0,
    provider       INTEGER NOT NULL DEFAULT 0,
    funding        INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT ledger_transactions_pk PRIMARY KEY (id),
    CONSTRAINT ledger_transactions_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT ledger_transactions_kind_known CHECK (kind IN ('settlement', 'refund', 'top_up', 'correction')),
    CONSTRAINT ledger_transactions_one_settlement
        CHECK ((kind = 'settlement') = (generation_id IS NOT NULL AND generation_id = id)),
    CONSTRAINT ledger_transactions_refund_names_generation
        CHECK ((kind IN ('settlement', 'refund')) = (generation_id IS NOT NULL)),
    CONSTRAINT ledger_transactions_author_of_credits CHECK (kind = 'settlement' OR (author IS NOT NULL AND reason <> '')),
    CONSTRAINT ledger_transactions_balanced CHECK (project + revenue + cost_of_sales + provider + funding = 0),
    CONSTRAINT ledger_transactions_not_empty CHECK ((project | revenue | cost_of_sales | provider | funding) <> 0)
) STRICT;
INSERT INTO ledger_transactions_now (id, kind, project_id, generation_id, reason, author, created_at, project, revenue,
    cost_of_sales, provider, funding)
SELECT t.id, t.kind, t.project_id, t.generation_id, t.reason, t.author, t.created_at,
    COALESCE(SUM(e.amount) FILTER (WHERE e.account = 'project'), 0),
    COALESCE(SUM(e.amount) FILTER (WHERE e.account = 'revenue'), 0),
    COALESCE(SUM(e.amount) FILTER (WHERE e.account = 'cost_of_sales'), 0),
    COALESCE(SUM(e.amount) FILTER (WHERE e.account = 'provider'), 0),
    COALESCE(SUM(e.amount) FILTER (WHERE e.account = 'funding'), 0)
FROM ledger_transactions t LEFT JOIN ledger_entries e ON e.transaction_id = t.id
GROUP BY t.id;
DROP TABLE ledger_entries;
DROP TABLE ledger_transactions;
ALTER TABLE ledger_transactions_now RENAME TO ledger_transactions;
CREATE INDEX ledger_transactions_by_project ON ledger_transactions (project_id, created_at);
CREATE INDEX ledger_transactions_by_time ON ledger_transactions (created_at);
-- The refunds of a generation; its settlement has its id.
CREATE INDEX ledger_transactions_of_refunds ON ledger_transactions (generation_id) WHERE kind = 'refund';
CREATE TRIGGER ledger_transactions_no_update BEFORE UPDATE ON ledger_transactions BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: correct it by a new transaction');
END;
CREATE TRIGGER ledger_transactions_no_delete BEFORE DELETE ON ledger_transactions BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: correct it by a new transaction');
END;

-- The same, an entry a row. Signs: an entry adds to what its account shows. `project` is what a project may still spend
-- (negative: what it owes), `revenue` what we earned, `cost_of_sales` what the images cost us, `provider` what we have at
-- the provider (negative: what we owe it), `funding` what was paid in (negative, the other side of top-ups).
CREATE VIEW ledger_entries AS
    SELECT id AS transaction_id, 'project' AS account, project AS amount FROM ledger_transactions WHERE project <> 0
    UNION ALL SELECT id, 'revenue', revenue FROM ledger_transactions WHERE revenue <> 0
    UNION ALL SELECT id, 'cost_of_sales', cost_of_sales FROM ledger_transactions WHERE cost_of_sales <> 0
    UNION ALL SELECT id, 'provider', provider FROM ledger_transactions WHERE provider <> 0
    UNION ALL SELECT id, 'funding', funding FROM ledger_transactions WHERE funding <> 0;

CREATE TRIGGER ledger_transactions_roll_refunds_up AFTER INSERT ON ledger_transactions WHEN NEW.kind = 'refund' BEGIN
    INSERT INTO usage_days (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
        price, cost, charges, charged_images, refunds, refunded)
    SELECT NEW.created_at - NEW.created_at % 86400000000, g.project_id, g.api_key_id, g.model, g.source,
        COALESCE(g.size, ''), 0, 0, 0, 0, 0, 0, 0, 0, 1, -NEW.revenue
    FROM generations g WHERE g.id = NEW.generation_id
    ON CONFLICT (day, project_id, api_key_id, model, source, size) DO UPDATE SET
        refunds = refunds + excluded.refunds, refunded = refunded + excluded.refunded;
    INSERT INTO usage_day_models (day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
        charged_images, refunds, refunded)
    SELECT NEW.created_at - NEW.created_at % 86400000000, g.project_id, g.model, 0, 0, 0, 0, 0, 0, 0, 0, 1, -NEW.revenue
    FROM generations g WHERE g.id = NEW.generation_id
    ON CONFLICT (day, project_id, model) DO UPDATE SET
        refunds = refunds + excluded.refunds, refunded = refunded + excluded.refunded;
END;
