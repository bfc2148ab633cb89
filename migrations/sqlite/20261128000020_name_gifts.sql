-- Money given as a gift has a kind of its own, and what is paid in or given is above zero.
-- The names of the constraints are those of the PostgreSQL migration beside this one.
DROP VIEW ledger_entries;
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
    CONSTRAINT ledger_transactions_kind_known
        CHECK (kind IN ('settlement', 'refund', 'top_up', 'correction', 'goodwill')),
    CONSTRAINT ledger_transactions_one_settlement
        CHECK ((kind = 'settlement') = (generation_id IS NOT NULL AND generation_id = id)),
    CONSTRAINT ledger_transactions_refund_names_generation
        CHECK ((kind IN ('settlement', 'refund')) = (generation_id IS NOT NULL)),
    CONSTRAINT ledger_transactions_author_of_credits CHECK (kind = 'settlement' OR (author IS NOT NULL AND reason <> '')),
    CONSTRAINT ledger_transactions_balanced CHECK (project + revenue + cost_of_sales + provider + funding = 0),
    CONSTRAINT ledger_transactions_not_empty CHECK ((project | revenue | cost_of_sales | provider | funding) <> 0),
    CONSTRAINT ledger_transactions_paid_in_above_zero CHECK (kind NOT IN ('top_up', 'goodwill') OR project > 0)
) STRICT;
INSERT INTO ledger_transactions_now (id, kind, project_id, generation_id, reason, author, created_at, project, revenue,
    cost_of_sales, provider, funding)
SELECT id, kind, project_id, generation_id, reason, author, created_at, project, revenue, cost_of_sales, provider, funding
FROM ledger_transactions;
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
