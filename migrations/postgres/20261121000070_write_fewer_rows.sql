-- Fewer rows for each request: a hold is a column of its generation, the entries of a ledger transaction are columns of it,
-- and an attempt says itself only when another one replaced it. What was written before is taken over.
-- The tables and the names of the constraints are those of the SQLite migration beside this one.

-- A hold is open as long as its generation is, and ends with it.
ALTER TABLE generations ADD COLUMN hold BIGINT NOT NULL DEFAULT 0
    CONSTRAINT generations_hold_not_negative CHECK (hold >= 0);
ALTER TABLE generations DISABLE TRIGGER generations_roll_usage_up;
UPDATE generations SET hold = holds.amount FROM holds WHERE holds.generation_id = generations.id AND holds.amount <> 0;
ALTER TABLE generations ENABLE TRIGGER generations_roll_usage_up;
ALTER TABLE generations ALTER COLUMN hold DROP DEFAULT;
DROP TABLE holds;

-- The same in fewer words: PostgreSQL reads the text of each check anew for each statement that writes.
ALTER TABLE generations
    DROP CONSTRAINT generations_outcome_iff_settled,
    DROP CONSTRAINT generations_amounts_not_negative;
ALTER TABLE generations
    ADD CONSTRAINT generations_outcome_iff_settled
        CHECK (num_nulls(settled_at, price, cost, cost_source, images, megapixels, reason) IN (0, 7)),
    ADD CONSTRAINT generations_amounts_not_negative CHECK (LEAST(price, cost, images, megapixels) >= 0);

-- How many generations of a project are open, kept beside the sum of their holds.
ALTER TABLE balances ADD COLUMN open_generations BIGINT NOT NULL DEFAULT 0
    CONSTRAINT balances_open_generations_not_negative CHECK (open_generations >= 0);
UPDATE balances SET open_generations = open.count
FROM (SELECT project_id, COUNT(*) AS count FROM generations WHERE settled_at IS NULL GROUP BY project_id) open
WHERE open.project_id = balances.project_id;

-- An attempt ends with its generation, as its generation did, unless another one replaced it before. It has no reference to
-- its generation, like the ledger: a month of generations could not be dropped while something refers to it, and each row
-- would be looked for in each partition. `imagegate ledger verify` looks for rows without their generation.
ALTER TABLE attempts ADD COLUMN replaced_at BIGINT;
UPDATE attempts SET replaced_at = ended_at WHERE outcome = 'replaced';
ALTER TABLE attempts DROP COLUMN ended_at, DROP COLUMN outcome, DROP COLUMN cost, DROP COLUMN billable_units,
    DROP COLUMN unit_price, DROP CONSTRAINT attempts_generation_fk;

-- The entries of a transaction: what it adds to each account. They balance row by row, and there is no way to write one
-- without the others.
ALTER TABLE ledger_transactions
    DROP CONSTRAINT ledger_transactions_generation_fk,
    ADD COLUMN project        BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN revenue        BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cost_of_sales  BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN provider       BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN funding        BIGINT NOT NULL DEFAULT 0;
ALTER TABLE ledger_transactions DISABLE TRIGGER ledger_transactions_append_only;
UPDATE ledger_transactions SET project = e.project, revenue = e.revenue, cost_of_sales = e.cost_of_sales,
    provider = e.provider, funding = e.funding
FROM (SELECT transaction_id,
          COALESCE(SUM(amount) FILTER (WHERE account = 'project'), 0) AS project,
          COALESCE(SUM(amount) FILTER (WHERE account = 'revenue'), 0) AS revenue,
          COALESCE(SUM(amount) FILTER (WHERE account = 'cost_of_sales'), 0) AS cost_of_sales,
          COALESCE(SUM(amount) FILTER (WHERE account = 'provider'), 0) AS provider,
          COALESCE(SUM(amount) FILTER (WHERE account = 'funding'), 0) AS funding
      FROM ledger_entries GROUP BY transaction_id) e
WHERE e.transaction_id = ledger_transactions.id;
ALTER TABLE ledger_transactions ENABLE TRIGGER ledger_transactions_append_only;
DROP TRIGGER ledger_transactions_balanced ON ledger_transactions;
DROP TRIGGER ledger_transactions_roll_refunds_up ON ledger_transactions;
DROP TABLE ledger_entries;
DROP FUNCTION refuse_unbalanced_transaction();
DROP FUNCTION refuse_entry_of_closed_transaction();
ALTER TABLE ledger_transactions
    ADD CONSTRAINT ledger_transactions_balanced CHECK (project + revenue + cost_of_sales + provider + funding = 0),
    ADD CONSTRAINT ledger_transactions_not_empty CHECK ((project | revenue | cost_of_sales | provider | funding) <> 0);
-- The refunds of a generation; its settlement has its id.
DROP INDEX ledger_transactions_by_generation;
CREATE INDEX ledger_transactions_of_refunds ON ledger_transactions (generation_id) WHERE kind = 'refund';

-- The same, an entry a row. Signs: an entry adds to what its account shows. `project` is what a project may still spend
-- (negative: what it owes), `revenue` what we earned, `cost_of_sales` what the images cost us, `provider` what we have at
-- the provider (negative: what we owe it), `funding` what was paid in (negative, the other side of top-ups).
CREATE VIEW ledger_entries AS
    SELECT id AS transaction_id, 'project' AS account, project AS amount FROM ledger_transactions WHERE project <> 0
    UNION ALL SELECT id, 'revenue', revenue FROM ledger_transactions WHERE revenue <> 0
    UNION ALL SELECT id, 'cost_of_sales', cost_of_sales FROM ledger_transactions WHERE cost_of_sales <> 0
    UNION ALL SELECT id, 'provider', provider FROM ledger_transactions WHERE provider <> 0
    UNION ALL SELECT id, 'funding', funding FROM ledger_transactions WHERE funding <> 0;

-- Asked for refunds only, so that settlements cost nothing here.
CREATE OR REPLACE FUNCTION roll_refunds_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO usage_day_models AS d (day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
        charged_images, refunds, refunded)
    SELECT NEW.created_at - NEW.created_at % 86400000000, g.project_id, g.model, 0, 0, 0, 0, 0, 0, 0, 0, 1, -NEW.revenue
    FROM generations g WHERE g.id = NEW.generation_id
    ON CONFLICT (day, project_id, model) DO UPDATE SET
        refunds = d.refunds + excluded.refunds, refunded = d.refunded + excluded.refunded;
    INSERT INTO usage_days AS d (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
        price, cost, charges, charged_images, refunds, refunded)
    SELECT NEW.created_at - NEW.created_at % 86400000000, g.project_id, g.api_key_id, g.model, g.source,
        COALESCE(g.size, ''), 0, 0, 0, 0, 0, 0, 0, 0, 1, -NEW.revenue
    FROM generations g WHERE g.id = NEW.generation_id
    ON CONFLICT (day, project_id, api_key_id, model, source, size) DO UPDATE SET
        refunds = d.refunds + excluded.refunds, refunded = d.refunded + excluded.refunded;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_transactions_roll_refunds_up AFTER INSERT ON ledger_transactions
    FOR EACH ROW WHEN (NEW.kind = 'refund') EXECUTE FUNCTION roll_refunds_up();
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION roll_refunds_up() SET search_path = %I, pg_temp', current_schema());
END $$;
