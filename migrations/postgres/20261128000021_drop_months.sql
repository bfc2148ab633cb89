-- Months of generations that were dropped: which, and the sums that went with them, so that `imagegate ledger verify` still
-- adds up and refunds still find their day. Only adds.
-- The tables and the names of the constraints are those of the SQLite migration beside this one.

CREATE TABLE dropped_months (
    -- The calendar month in UTC: its first moment, and the next month's.
    starts_at    BIGINT NOT NULL,
    ends_at      BIGINT NOT NULL,
    -- The ids that generations of the month have: from this one on, and before that one.
    first_id     UUID   NOT NULL,
    before_id    UUID   NOT NULL,
    generations  BIGINT NOT NULL,
    -- From then on the month counts as dropped, whatever of it is still there.
    begun_at     BIGINT NOT NULL,
    -- When the last row was gone.
    dropped_at   BIGINT,
    CONSTRAINT dropped_months_pk PRIMARY KEY (starts_at),
    CONSTRAINT dropped_months_end_later CHECK (ends_at > starts_at),
    CONSTRAINT dropped_months_generations_not_negative CHECK (generations >= 0)
);

-- What the generations of a dropped month, and the refunds of them until then, made of `usage_days`.
CREATE TABLE dropped_usage_days (
    month           BIGINT NOT NULL,
    day             BIGINT NOT NULL,
    project_id      UUID   NOT NULL,
    api_key_id      UUID   NOT NULL,
    model           TEXT   NOT NULL,
    source          TEXT   NOT NULL,
    size            TEXT   NOT NULL,
    requests        BIGINT NOT NULL,
    failures        BIGINT NOT NULL,
    images          BIGINT NOT NULL,
    megapixels      BIGINT NOT NULL,
    price           BIGINT NOT NULL,
    cost            BIGINT NOT NULL,
    charges         BIGINT NOT NULL,
    charged_images  BIGINT NOT NULL,
    refunds         BIGINT NOT NULL,
    refunded        BIGINT NOT NULL,
    CONSTRAINT dropped_usage_days_pk PRIMARY KEY (month, day, project_id, api_key_id, model, source, size),
    CONSTRAINT dropped_usage_days_month_fk FOREIGN KEY (month) REFERENCES dropped_months (starts_at)
);

-- Refunds that are part of those sums. Later ones find no generation: they count under the model `(dropped)` and no key.
CREATE TABLE dropped_refunds (
    transaction_id  UUID NOT NULL,
    CONSTRAINT dropped_refunds_pk PRIMARY KEY (transaction_id)
);

CREATE OR REPLACE FUNCTION roll_refunds_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    g generations;
BEGIN
    SELECT * INTO g FROM generations WHERE id = NEW.generation_id
        AND NOT EXISTS (SELECT FROM dropped_months WHERE NEW.generation_id >= first_id AND NEW.generation_id < before_id);
    INSERT INTO usage_day_models AS d (day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
        charged_images, refunds, refunded)
    VALUES (NEW.created_at - NEW.created_at % 86400000000, NEW.project_id, COALESCE(g.model, '(dropped)'), 0, 0, 0, 0, 0, 0,
        0, 0, 1, -NEW.revenue)
    ON CONFLICT (day, project_id, model) DO UPDATE SET
        refunds = d.refunds + excluded.refunds, refunded = d.refunded + excluded.refunded;
    INSERT INTO usage_days AS d (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
        price, cost, charges, charged_images, refunds, refunded)
    VALUES (NEW.created_at - NEW.created_at % 86400000000, NEW.project_id,
        COALESCE(g.api_key_id, '00000000-0000-0000-0000-000000000000'), COALESCE(g.model, '(dropped)'),
        COALESCE(g.source, '(dropped)'), COALESCE(g.size, ''), 0, 0, 0, 0, 0, 0, 0, 0, 1, -NEW.revenue)
    ON CONFLICT (day, project_id, api_key_id, model, source, size) DO UPDATE SET
        refunds = d.refunds + excluded.refunds, refunded = d.refunded + excluded.refunded;
    RETURN NULL;
END $$;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION roll_refunds_up() SET search_path = %I, pg_temp', current_schema());
END $$;
