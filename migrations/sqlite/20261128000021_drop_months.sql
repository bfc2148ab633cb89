-- Months of generations that were dropped: which, and the sums that went with them, so that `imagegate ledger verify` still
-- adds up and refunds still find their day. Only adds.
-- The tables and the names of the constraints are those of the PostgreSQL migration beside this one.

CREATE TABLE dropped_months (
    -- The calendar month in UTC: its first moment, and the next month's.
    starts_at    INTEGER NOT NULL,
    ends_at      INTEGER NOT NULL,
    -- The ids that generations of the month have: from this one on, and before that one.
    first_id     BLOB    NOT NULL,
    before_id    BLOB    NOT NULL,
    generations  INTEGER NOT NULL,
    -- From then on the month counts as dropped, whatever of it is still there.
    begun_at     INTEGER NOT NULL,
    -- When the last row was gone.
    dropped_at   INTEGER,
    CONSTRAINT dropped_months_pk PRIMARY KEY (starts_at),
    CONSTRAINT dropped_months_end_later CHECK (ends_at > starts_at),
    CONSTRAINT dropped_months_generations_not_negative CHECK (generations >= 0)
) STRICT;

-- What the generations of a dropped month, and the refunds of them until then, made of `usage_days`.
CREATE TABLE dropped_usage_days (
    month           INTEGER NOT NULL,
    day             INTEGER NOT NULL,
    project_id      BLOB    NOT NULL,
    api_key_id      BLOB    NOT NULL,
    model           TEXT    NOT NULL,
    source          TEXT    NOT NULL,
    size            TEXT    NOT NULL,
    requests        INTEGER NOT NULL,
    failures        INTEGER NOT NULL,
    images          INTEGER NOT NULL,
    megapixels      INTEGER NOT NULL,
    price           INTEGER NOT NULL,
    cost            INTEGER NOT NULL,
    charges         INTEGER NOT NULL,
    charged_images  INTEGER NOT NULL,
    refunds         INTEGER NOT NULL,
    refunded        INTEGER NOT NULL,
    CONSTRAINT dropped_usage_days_pk PRIMARY KEY (month, day, project_id, api_key_id, model, source, size),
    CONSTRAINT dropped_usage_days_month_fk FOREIGN KEY (month) REFERENCES dropped_months (starts_at)
) STRICT;

-- Refunds that are part of those sums. Later ones find no generation: they count under the model `(dropped)` and no key.
CREATE TABLE dropped_refunds (
    transaction_id  BLOB NOT NULL,
    CONSTRAINT dropped_refunds_pk PRIMARY KEY (transaction_id)
) STRICT;

DROP TRIGGER ledger_transactions_roll_refunds_up;
CREATE TRIGGER ledger_transactions_roll_refunds_up AFTER INSERT ON ledger_transactions WHEN NEW.kind = 'refund' BEGIN
    INSERT INTO usage_days (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
        price, cost, charges, charged_images, refunds, refunded)
    SELECT NEW.created_at - NEW.created_at % 86400000000, NEW.project_id, COALESCE(g.api_key_id, zeroblob(16)),
        COALESCE(g.model, '(dropped)'), COALESCE(g.source, '(dropped)'), COALESCE(g.size, ''), 0, 0, 0, 0, 0, 0, 0, 0, 1,
        -NEW.revenue
    FROM (SELECT 1) LEFT JOIN generations g ON g.id = NEW.generation_id AND NOT EXISTS (
        SELECT 1 FROM dropped_months WHERE NEW.generation_id >= first_id AND NEW.generation_id < before_id)
    WHERE TRUE
    ON CONFLICT (day, project_id, api_key_id, model, source, size) DO UPDATE SET
        refunds = refunds + excluded.refunds, refunded = refunded + excluded.refunded;
    INSERT INTO usage_day_models (day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
        charged_images, refunds, refunded)
    SELECT NEW.created_at - NEW.created_at % 86400000000, NEW.project_id, COALESCE(g.model, '(dropped)'), 0, 0, 0, 0, 0, 0,
        0, 0, 1, -NEW.revenue
    FROM (SELECT 1) LEFT JOIN generations g ON g.id = NEW.generation_id AND NOT EXISTS (
        SELECT 1 FROM dropped_months WHERE NEW.generation_id >= first_id AND NEW.generation_id < before_id)
    WHERE TRUE
    ON CONFLICT (day, project_id, model) DO UPDATE SET
        refunds = refunds + excluded.refunds, refunded = refunded + excluded.refunded;
END;
