-- Usage and costs of each day (UTC), kept by the database itself beside the rows they are the sums of. Only adds.
-- The tables and the names of the constraints are those of the PostgreSQL migration beside this one.

-- One row for each day and combination. Triggers add to it in the very transaction that settles a generation or books a
-- refund, and take away what a change of a settled row takes away; `imagegate ledger verify` recomputes it.
CREATE TABLE usage_days (
    -- The day's first moment.
    day             INTEGER NOT NULL,
    project_id      BLOB    NOT NULL,
    api_key_id      BLOB    NOT NULL,
    model           TEXT    NOT NULL,
    source          TEXT    NOT NULL,
    -- Empty where no size was ordered.
    size            TEXT    NOT NULL,
    -- Of the generations that were settled on the day: how many succeeded, how many ended otherwise, and their sums.
    requests        INTEGER NOT NULL,
    failures        INTEGER NOT NULL,
    images          INTEGER NOT NULL,
    megapixels      INTEGER NOT NULL,
    price           INTEGER NOT NULL,
    cost            INTEGER NOT NULL,
    -- How many of them were charged, and the images of those.
    charges         INTEGER NOT NULL,
    charged_images  INTEGER NOT NULL,
    -- Refunds that were booked on the day, whenever their generations were settled: how many, and what was given back.
    refunds         INTEGER NOT NULL,
    refunded        INTEGER NOT NULL,
    CONSTRAINT usage_days_pk PRIMARY KEY (day, project_id, api_key_id, model, source, size)
) STRICT, WITHOUT ROWID;
-- The same without key, source and size: few rows, so that a month of everything by model is read at once. It is kept by
-- project, since writers of one project wait for each other already and those of two projects need not.
CREATE TABLE usage_day_models (
    day             INTEGER NOT NULL,
    project_id      BLOB    NOT NULL,
    model           TEXT    NOT NULL,
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
    CONSTRAINT usage_day_models_pk PRIMARY KEY (day, project_id, model)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER generations_roll_usage_up
AFTER UPDATE OF settled_at, project_id, api_key_id, model, source, size, state, images, megapixels, price, cost ON generations
WHEN NEW.settled_at IS NOT NULL BEGIN
    INSERT INTO usage_days (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
        price, cost, charges, charged_images, refunds, refunded)
    VALUES (NEW.settled_at - NEW.settled_at % 86400000000, NEW.project_id, NEW.api_key_id, NEW.model, NEW.source,
        COALESCE(NEW.size, ''), NEW.state = 'succeeded', NEW.state <> 'succeeded', NEW.images, NEW.megapixels, NEW.price,
        NEW.cost, NEW.price > 0, CASE WHEN NEW.price > 0 THEN NEW.images ELSE 0 END, 0, 0)
    ON CONFLICT (day, project_id, api_key_id, model, source, size) DO UPDATE SET
        requests = requests + excluded.requests, failures = failures + excluded.failures,
        images = images + excluded.images, megapixels = megapixels + excluded.megapixels,
        price = price + excluded.price, cost = cost + excluded.cost,
        charges = charges + excluded.charges, charged_images = charged_images + excluded.charged_images;
    INSERT INTO usage_day_models (day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
        charged_images, refunds, refunded)
    VALUES (NEW.settled_at - NEW.settled_at % 86400000000, NEW.project_id, NEW.model, NEW.state = 'succeeded',
        NEW.state <> 'succeeded', NEW.images, NEW.megapixels, NEW.price, NEW.cost, NEW.price > 0,
        CASE WHEN NEW.price > 0 THEN NEW.images ELSE 0 END, 0, 0)
    ON CONFLICT (day, project_id, model) DO UPDATE SET
        requests = requests + excluded.requests, failures = failures + excluded.failures,
        images = images + excluded.images, megapixels = megapixels + excluded.megapixels,
        price = price + excluded.price, cost = cost + excluded.cost,
        charges = charges + excluded.charges, charged_images = charged_images + excluded.charged_images;
END;

CREATE TRIGGER generations_roll_usage_back
AFTER UPDATE OF settled_at, project_id, api_key_id, model, source, size, state, images, megapixels, price, cost ON generations
WHEN OLD.settled_at IS NOT NULL BEGIN
    UPDATE usage_days SET
        requests = requests - (OLD.state = 'succeeded'), failures = failures - (OLD.state <> 'succeeded'),
        images = images - OLD.images, megapixels = megapixels - OLD.megapixels,
        price = price - OLD.price, cost = cost - OLD.cost, charges = charges - (OLD.price > 0),
        charged_images = charged_images - CASE WHEN OLD.price > 0 THEN OLD.images ELSE 0 END
    WHERE day = OLD.settled_at - OLD.settled_at % 86400000000 AND project_id = OLD.project_id
        AND api_key_id = OLD.api_key_id AND model = OLD.model AND source = OLD.source AND size = COALESCE(OLD.size, '');
    UPDATE usage_day_models SET
        requests = requests - (OLD.state = 'succeeded'), failures = failures - (OLD.state <> 'succeeded'),
        images = images - OLD.images, megapixels = megapixels - OLD.megapixels,
        price = price - OLD.price, cost = cost - OLD.cost, charges = charges - (OLD.price > 0),
        charged_images = charged_images - CASE WHEN OLD.price > 0 THEN OLD.images ELSE 0 END
    WHERE day = OLD.settled_at - OLD.settled_at % 86400000000 AND project_id = OLD.project_id
        AND model = OLD.model;
END;

CREATE TRIGGER ledger_transactions_roll_refunds_up AFTER INSERT ON ledger_transactions WHEN NEW.kind = 'refund' BEGIN
    INSERT INTO usage_days (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
        price, cost, charges, charged_images, refunds, refunded)
    SELECT NEW.created_at - NEW.created_at % 86400000000, g.project_id, g.api_key_id, g.model, g.source,
        COALESCE(g.size, ''), 0, 0, 0, 0, 0, 0, 0, 0, 1, -e.amount
    FROM generations g JOIN ledger_entries e ON e.transaction_id = NEW.id AND e.account = 'revenue'
    WHERE g.id = NEW.generation_id
    ON CONFLICT (day, project_id, api_key_id, model, source, size) DO UPDATE SET
        refunds = refunds + excluded.refunds, refunded = refunded + excluded.refunded;
    INSERT INTO usage_day_models (day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
        charged_images, refunds, refunded)
    SELECT NEW.created_at - NEW.created_at % 86400000000, g.project_id, g.model, 0, 0, 0, 0, 0, 0, 0, 0, 1, -e.amount
    FROM generations g JOIN ledger_entries e ON e.transaction_id = NEW.id AND e.account = 'revenue'
    WHERE g.id = NEW.generation_id
    ON CONFLICT (day, project_id, model) DO UPDATE SET
        refunds = refunds + excluded.refunds, refunded = refunded + excluded.refunded;
END;

-- What is there already.
INSERT INTO usage_days (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels, price,
    cost, charges, charged_images, refunds, refunded)
SELECT day, project_id, api_key_id, model, source, size, SUM(requests), SUM(failures), SUM(images), SUM(megapixels),
    SUM(price), SUM(cost), SUM(charges), SUM(charged_images), SUM(refunds), SUM(refunded)
FROM (
    SELECT settled_at - settled_at % 86400000000 AS day, project_id, api_key_id, model, source, COALESCE(size, '') AS size,
        state = 'succeeded' AS requests, state <> 'succeeded' AS failures, images, megapixels, price, cost,
        price > 0 AS charges, CASE WHEN price > 0 THEN images ELSE 0 END AS charged_images,
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
