-- Webhooks: what is to be called when a generation has ended, what came of it, and what signs the calls. Only adds.

-- What signs a project's webhooks. Kept as it is, since a signature needs it.
CREATE TABLE webhook_secrets (
    project_id      UUID NOT NULL,
    secret          BYTEA NOT NULL,
    -- The one before, which signs as well until its time is over.
    previous        BYTEA,
    previous_until  BIGINT,
    created_at      BIGINT NOT NULL,
    CONSTRAINT webhook_secrets_pk PRIMARY KEY (project_id),
    CONSTRAINT webhook_secrets_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT webhook_secrets_long_enough CHECK (length(secret) >= 24),
    CONSTRAINT webhook_secrets_previous_ends CHECK ((previous IS NULL) = (previous_until IS NULL))
);

-- One call about one generation, written with its reservation.
CREATE TABLE webhook_deliveries (
    id             UUID NOT NULL,
    generation_id  UUID NOT NULL,
    project_id     UUID NOT NULL,
    url            TEXT NOT NULL,
    -- In whose words: ours or fal's.
    form           TEXT NOT NULL,
    -- How the customer reached the gateway, for links to it.
    base_url       TEXT NOT NULL,
    state          TEXT NOT NULL DEFAULT 'pending',
    attempts       BIGINT NOT NULL DEFAULT 0,
    created_at     BIGINT NOT NULL,
    -- When it is tried next, once the generation has ended. A replica that tries it puts this off meanwhile.
    next_at        BIGINT,
    -- When it is given up.
    gives_up_at    BIGINT,
    ended_at       BIGINT,
    CONSTRAINT webhook_deliveries_pk PRIMARY KEY (id),
    CONSTRAINT webhook_deliveries_one_a_generation UNIQUE (generation_id),
    CONSTRAINT webhook_deliveries_generation_fk FOREIGN KEY (generation_id) REFERENCES generations (id),
    CONSTRAINT webhook_deliveries_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT webhook_deliveries_url_not_empty CHECK (url <> ''),
    CONSTRAINT webhook_deliveries_form_known CHECK (form IN ('imagegate', 'fal')),
    CONSTRAINT webhook_deliveries_state_known CHECK (state IN ('pending', 'delivered', 'failed')),
    CONSTRAINT webhook_deliveries_next_iff_pending CHECK ((state = 'pending') = (next_at IS NOT NULL)),
    CONSTRAINT webhook_deliveries_ended_iff_not_pending CHECK ((state = 'pending') = (ended_at IS NULL)),
    CONSTRAINT webhook_deliveries_attempts_not_negative CHECK (attempts >= 0)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_project ON webhook_deliveries (project_id, id);
CREATE INDEX webhook_deliveries_by_end ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

-- What came of each try.
CREATE TABLE webhook_attempts (
    delivery_id  UUID NOT NULL,
    n            BIGINT NOT NULL,
    started_at   BIGINT NOT NULL,
    -- Microseconds.
    duration     BIGINT NOT NULL,
    -- The answer's status, if there was one.
    status       BIGINT,
    error        TEXT,
    CONSTRAINT webhook_attempts_pk PRIMARY KEY (delivery_id, n),
    CONSTRAINT webhook_attempts_delivery_fk FOREIGN KEY (delivery_id) REFERENCES webhook_deliveries (id),
    CONSTRAINT webhook_attempts_n_positive CHECK (n > 0),
    CONSTRAINT webhook_attempts_status_or_error CHECK (status IS NOT NULL OR error IS NOT NULL)
);
