-- Usage and costs of each day (UTC), kept by the database itself beside the rows they are the sums of. Only adds.
-- The tables and the names of the constraints are those of the SQLite migration beside this one.

-- One row for each day and combination. Triggers add to it in the very transaction that settles a generation or books a
-- refund, and take away what a change of a settled row takes away; `imagegate ledger verify` recomputes it.
CREATE TABLE usage_days (
    -- The day's first moment.
    day             BIGINT NOT NULL,
    project_id      UUID   NOT NULL,
    api_key_id      UUID   NOT NULL,
    model           TEXT   NOT NULL,
    source          TEXT   NOT NULL,
    -- Empty where no size was ordered.
    size            TEXT   NOT NULL,
    -- Of the generations that were settled on the day: how many succeeded, how many ended otherwise, and their sums.
    requests        BIGINT NOT NULL,
    failures        BIGINT NOT NULL,
    images          BIGINT NOT NULL,
    megapixels      BIGINT NOT NULL,
    price           BIGINT NOT NULL,
    cost            BIGINT NOT NULL,
    -- How many of them were charged, and the images of those.
    charges         BIGINT NOT NULL,
    charged_images  BIGINT NOT NULL,
    -- Refunds that were booked on the day, whenever their generations were settled: how many, and what was given back.
    refunds         BIGINT NOT NULL,
    refunded        BIGINT NOT NULL,
    CONSTRAINT usage_days_pk PRIMARY KEY (day, project_id, api_key_id, model, source, size)
) WITH (fillfactor = 70);
-- The same without key, source and size: few rows, so that a month of everything by model is read at once. It is kept by
-- project, since writers of one project wait for each other already and those of two projects need not.
CREATE TABLE usage_day_models (
    day             BIGINT NOT NULL,
    project_id      UUID   NOT NULL,
    model           TEXT   NOT NULL,
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
    CONSTRAINT usage_day_models_pk PRIMARY KEY (day, project_id, model)
) WITH (fillfactor = 70);

-- What settled rows (`sign` 1 where they are there now, -1 where they were) and refunds make of the days.
CREATE FUNCTION roll_usage_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    WITH changes AS (
        SELECT settled_at - settled_at % 86400000000 AS day, project_id, api_key_id, model, source, COALESCE(size, '') AS size,
            SUM(sign * (state = 'succeeded')::int) AS requests, SUM(sign * (state <> 'succeeded')::int) AS failures,
            SUM(sign * images) AS images, SUM(sign * megapixels) AS megapixels, SUM(sign * price) AS price,
            SUM(sign * cost) AS cost, SUM(sign * (price > 0)::int) AS charges,
            SUM(CASE WHEN price > 0 THEN sign * images ELSE 0 END) AS charged_images
        FROM (SELECT 1 AS sign, settled_at, project_id, api_key_id, model, source, size, state, images, megapixels, price,
                  cost
              FROM became WHERE settled_at IS NOT NULL
              UNION ALL
              SELECT -1, settled_at, project_id, api_key_id, model, source, size, state, images, megapixels, price, cost
              FROM was WHERE settled_at IS NOT NULL) changed
        GROUP BY 1, 2, 3, 4, 5, 6
        HAVING SUM(sign) <> 0 OR SUM(sign * images) <> 0 OR SUM(sign * megapixels) <> 0 OR SUM(sign * price) <> 0
            OR SUM(sign * cost) <> 0 OR SUM(sign * (state = 'succeeded')::int) <> 0 OR SUM(sign * (price > 0)::int) <> 0
    ), by_model AS (
        INSERT INTO usage_day_models AS d (day, project_id, model, requests, failures, images, megapixels, price, cost,
            charges, charged_images, refunds, refunded)
        SELECT day, project_id, model, SUM(requests), SUM(failures), SUM(images), SUM(megapixels), SUM(price), SUM(cost),
            SUM(charges), SUM(charged_images), 0, 0
        FROM changes GROUP BY 1, 2, 3
        -- In one order for everybody, so that no two transactions wait for each other.
        ORDER BY 1, 2, 3
        ON CONFLICT (day, project_id, model) DO UPDATE SET
            requests = d.requests + excluded.requests, failures = d.failures + excluded.failures,
            images = d.images + excluded.images, megapixels = d.megapixels + excluded.megapixels,
            price = d.price + excluded.price, cost = d.cost + excluded.cost,
            charges = d.charges + excluded.charges, charged_images = d.charged_images + excluded.charged_images
    )
    INSERT INTO usage_days AS d (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
        price, cost, charges, charged_images, refunds, refunded)
    SELECT day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels, price, cost, charges,
        charged_images, 0, 0
    FROM changes
    ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (day, project_id, api_key_id, model, source, size) DO UPDATE SET
        requests = d.requests + excluded.requests, failures = d.failures + excluded.failures,
        images = d.images + excluded.images, megapixels = d.megapixels + excluded.megapixels,
        price = d.price + excluded.price, cost = d.cost + excluded.cost,
        charges = d.charges + excluded.charges, charged_images = d.charged_images + excluded.charged_images;
    RETURN NULL;
END $$;
CREATE TRIGGER generations_roll_usage_up AFTER UPDATE ON generations
    REFERENCING OLD TABLE AS was NEW TABLE AS became FOR EACH STATEMENT EXECUTE FUNCTION roll_usage_up();

CREATE FUNCTION roll_refunds_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF EXISTS (SELECT FROM added WHERE kind = 'refund') THEN
        WITH changes AS (
            SELECT t.created_at - t.created_at % 86400000000 AS day, g.project_id, g.api_key_id, g.model, g.source,
                COALESCE(g.size, '') AS size, COUNT(*) AS refunds, SUM(-e.amount) AS refunded
            FROM added t JOIN generations g ON g.id = t.generation_id
            JOIN ledger_entries e ON e.transaction_id = t.id AND e.account = 'revenue'
            WHERE t.kind = 'refund'
            GROUP BY 1, 2, 3, 4, 5, 6
        ), by_model AS (
            INSERT INTO usage_day_models AS d (day, project_id, model, requests, failures, images, megapixels, price, cost,
                charges, charged_images, refunds, refunded)
            SELECT day, project_id, model, 0, 0, 0, 0, 0, 0, 0, 0, SUM(refunds), SUM(refunded)
            FROM changes GROUP BY 1, 2, 3
            ORDER BY 1, 2, 3
            ON CONFLICT (day, project_id, model) DO UPDATE SET
                refunds = d.refunds + excluded.refunds, refunded = d.refunded + excluded.refunded
        )
        INSERT INTO usage_days AS d (day, project_id, api_key_id, model, source, size, requests, failures, images,
            megapixels, price, cost, charges, charged_images, refunds, refunded)
        SELECT day, project_id, api_key_id, model, source, size, 0, 0, 0, 0, 0, 0, 0, 0, refunds, refunded
        FROM changes
        ORDER BY 1, 2, 3, 4, 5, 6
        ON CONFLICT (day, project_id, api_key_id, model, source, size) DO UPDATE SET
            refunds = d.refunds + excluded.refunds, refunded = d.refunded + excluded.refunded;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_transactions_roll_refunds_up AFTER INSERT ON ledger_transactions
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION roll_refunds_up();

-- The functions run with their owner's rights, on the tables of the schema that they were made in: who may only work
-- cannot change the sums by hand.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION roll_usage_up() SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION roll_refunds_up() SET search_path = %I, pg_temp', current_schema());
END $$;

-- What is there already.
INSERT INTO usage_days (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels, price,
    cost, charges, charged_images, refunds, refunded)
SELECT day, project_id, api_key_id, model, source, size, SUM(requests), SUM(failures), SUM(images), SUM(megapixels),
    SUM(price), SUM(cost), SUM(charges), SUM(charged_images), SUM(refunds), SUM(refunded)
FROM (
    SELECT settled_at - settled_at % 86400000000 AS day, project_id, api_key_id, model, source, COALESCE(size, '') AS size,
        (state = 'succeeded')::int AS requests, (state <> 'succeeded')::int AS failures, images, megapixels, price, cost,
        (price > 0)::int AS charges, CASE WHEN price > 0 THEN images ELSE 0 END AS charged_images,
        0 AS refunds, 0 AS refunded
    FROM generations WHERE settled_at IS NOT NULL
    UNION ALL
    SELECT t.created_at - t.created_at % 86400000000, g.project_id, g.api_key_id, g.model, g.source, COALESCE(g.size, ''),
        0, 0, 0, 0, 0, 0, 0, 0, 1, -e.amount
    FROM ledger_transactions t JOIN generations g ON g.id = t.generation_id
    JOIN ledger_entries e ON e.transaction_id = t.id AND e.account = 'revenue'
    WHERE t.kind = 'refund') rows
GROUP BY day, project_id, api_key_id, model, source, size;
INSERT INTO usage_day_models (day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
    charged_images, refunds, refunded)
SELECT day, project_id, model, SUM(requests), SUM(failures), SUM(images), SUM(megapixels), SUM(price), SUM(cost),
    SUM(charges), SUM(charged_images), SUM(refunds), SUM(refunded)
FROM usage_days GROUP BY day, project_id, model;
