-- What came to light after a generation had ended: what the provider charges us for it, and when. The end stands, and so does
-- every bucket of usage that is closed: the cost counts on the day that it came to light. Written once.
-- The names are those of the PostgreSQL migration beside this one.
ALTER TABLE generations ADD COLUMN late_cost INTEGER NOT NULL DEFAULT 0
    CONSTRAINT generations_late_cost_not_negative CHECK (late_cost >= 0);
ALTER TABLE generations ADD COLUMN late_at INTEGER
    CONSTRAINT generations_late_after_end
        CHECK (CASE WHEN late_at IS NULL THEN late_cost = 0 ELSE settled_at IS NOT NULL END);
CREATE INDEX generations_late ON generations (late_at) WHERE late_at IS NOT NULL;
-- Given up, and perhaps there is more to learn.
CREATE INDEX generations_given_up ON generations (settled_at) WHERE state = 'expired' AND late_at IS NULL;

CREATE TRIGGER generations_roll_late_costs_up AFTER UPDATE OF late_at ON generations
WHEN OLD.late_at IS NULL AND NEW.late_cost > 0 BEGIN
    INSERT INTO usage_day_models (day, project_id, model, requests, failures, images, megapixels, price, cost, charges,
        charged_images, refunds, refunded)
    VALUES (NEW.late_at - NEW.late_at % 86400000000, NEW.project_id, NEW.model, 0, 0, 0, 0, 0, NEW.late_cost, 0, 0, 0, 0)
    ON CONFLICT (day, project_id, model) DO UPDATE SET cost = cost + excluded.cost;
    INSERT INTO usage_days (day, project_id, api_key_id, model, source, size, requests, failures, images, megapixels,
        price, cost, charges, charged_images, refunds, refunded)
    VALUES (NEW.late_at - NEW.late_at % 86400000000, NEW.project_id, NEW.api_key_id, NEW.model, NEW.source,
        COALESCE(NEW.size, ''), 0, 0, 0, 0, 0, NEW.late_cost, 0, 0, 0, 0)
    ON CONFLICT (day, project_id, api_key_id, model, source, size) DO UPDATE SET cost = cost + excluded.cost;
END;
