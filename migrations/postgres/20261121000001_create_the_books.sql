-- The whole data model, in its final shape from the start, so that nothing later has to move money between tables.
--
-- Money is whole nano-dollars, decimals are billionths, times are microseconds since the epoch in UTC; all 64-bit
-- integers. Ids are UUIDv7 made by the application. JSON is kept as text, since no query looks into it.
-- The tables and the names of the constraints are those of the SQLite migration beside this one.

-- Who pays.
CREATE TABLE projects (
    id                UUID    NOT NULL,
    name              TEXT    NOT NULL,
    -- The one project that the first start creates and that IMAGEGATE_BOOTSTRAP_KEY belongs to.
    is_default        BOOLEAN NOT NULL DEFAULT FALSE,
    -- A prepaid project may not spend more than its balance.
    prepaid           BOOLEAN NOT NULL DEFAULT FALSE,
    -- The most that a calendar month (UTC) may cost; none when null.
    spend_limit       BIGINT,
    -- What callers may not change, as JSON; nothing when null.
    policy            TEXT,
    -- How long prompts are kept; zero keeps none.
    prompt_retention  BIGINT  NOT NULL DEFAULT 0,
    created_at        BIGINT  NOT NULL,
    archived_at       BIGINT,
    CONSTRAINT projects_pk PRIMARY KEY (id),
    CONSTRAINT projects_name_not_empty CHECK (name <> ''),
    CONSTRAINT projects_spend_limit_not_negative CHECK (spend_limit >= 0),
    CONSTRAINT projects_prompt_retention_not_negative CHECK (prompt_retention >= 0),
    CONSTRAINT projects_default_not_archived CHECK (NOT (is_default AND archived_at IS NOT NULL))
);
CREATE UNIQUE INDEX projects_one_default ON projects (is_default) WHERE is_default;

-- Who asks. Only the SHA-256 digest of a key is kept.
CREATE TABLE api_keys (
    id              UUID   NOT NULL,
    kind            TEXT   NOT NULL,
    project_id      UUID,
    name            TEXT   NOT NULL,
    hash            BYTEA  NOT NULL,
    -- The beginning of the key, for people to tell keys apart.
    prefix          TEXT   NOT NULL,
    origin          TEXT   NOT NULL,
    -- The most that the key may spend in its whole life; no limit when null.
    budget          BIGINT,
    -- JSON array of model ids; every model when null.
    allowed_models  TEXT,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT,
    revoked_at      BIGINT,
    CONSTRAINT api_keys_pk PRIMARY KEY (id),
    CONSTRAINT api_keys_hash_unique UNIQUE (hash),
    CONSTRAINT api_keys_hash_is_sha256 CHECK (length(hash) = 32),
    CONSTRAINT api_keys_kind_known CHECK (kind IN ('admin', 'project')),
    CONSTRAINT api_keys_project_iff_project_key CHECK ((kind = 'project') = (project_id IS NOT NULL)),
    CONSTRAINT api_keys_origin_known CHECK (origin IN ('bootstrap', 'setting', 'api')),
    CONSTRAINT api_keys_prefix_short CHECK (length(prefix) <= 20),
    CONSTRAINT api_keys_budget_not_negative CHECK (budget >= 0),
    CONSTRAINT api_keys_project_fk FOREIGN KEY (project_id) REFERENCES projects (id)
);
CREATE INDEX api_keys_by_project ON api_keys (project_id, id);

-- One row per image request that reserved money. Partitioned by ranges of the UUIDv7 id, which are ranges of time;
-- the program makes the months ahead, the default partition takes what no month does.
CREATE TABLE generations (
    id                      UUID    NOT NULL,
    project_id              UUID    NOT NULL,
    api_key_id              UUID    NOT NULL,
    request_id              UUID    NOT NULL,
    state                   TEXT    NOT NULL,
    -- The replica that works on it while it is open, the last one that did when it has ended.
    owner                   UUID    NOT NULL,
    source                  TEXT    NOT NULL,
    model                   TEXT    NOT NULL,
    provider                TEXT    NOT NULL,
    endpoint                TEXT    NOT NULL,
    num_images              BIGINT  NOT NULL,
    size                    TEXT,
    parameters              TEXT    NOT NULL,
    prompt                  TEXT,
    prompt_expires_at       BIGINT,
    end_user                TEXT,
    cancel_if_client_leaves BOOLEAN NOT NULL,
    created_at              BIGINT  NOT NULL,
    deadline_at             BIGINT  NOT NULL,
    started_at              BIGINT,
    settled_at              BIGINT,
    price                   BIGINT,
    cost                    BIGINT,
    cost_source             TEXT,
    billable_units          BIGINT,
    unit_price              BIGINT,
    images                  BIGINT,
    megapixels              BIGINT,
    answer                  TEXT,
    error                   TEXT,
    reason                  TEXT,
    CONSTRAINT generations_pk PRIMARY KEY (id),
    CONSTRAINT generations_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT generations_api_key_fk FOREIGN KEY (api_key_id) REFERENCES api_keys (id),
    CONSTRAINT generations_state_known
        CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')),
    CONSTRAINT generations_num_images_positive CHECK (num_images > 0),
    CONSTRAINT generations_prompt_expires CHECK ((prompt IS NULL) = (prompt_expires_at IS NULL)),
    CONSTRAINT generations_settled_iff_ended CHECK ((state IN ('queued', 'running')) = (settled_at IS NULL)),
    CONSTRAINT generations_outcome_iff_settled CHECK (
        (settled_at IS NULL) = (price IS NULL) AND (settled_at IS NULL) = (cost IS NULL)
        AND (settled_at IS NULL) = (cost_source IS NULL) AND (settled_at IS NULL) = (images IS NULL)
        AND (settled_at IS NULL) = (megapixels IS NULL) AND (settled_at IS NULL) = (reason IS NULL)),
    CONSTRAINT generations_free_unless_succeeded CHECK (state = 'succeeded' OR price IS NULL OR price = 0),
    CONSTRAINT generations_amounts_not_negative
        CHECK (price >= 0 AND cost >= 0 AND images >= 0 AND megapixels >= 0),
    CONSTRAINT generations_cost_source_known CHECK (cost_source IN ('billed', 'computed'))
) PARTITION BY RANGE (id);
CREATE TABLE generations_default PARTITION OF generations DEFAULT;
-- The lists: a project's own, everybody's (the primary key), by key.
CREATE INDEX generations_by_project ON generations (project_id, id);
CREATE INDEX generations_by_api_key ON generations (api_key_id, id);
-- Usage: by settlement.
CREATE INDEX generations_by_settlement ON generations (settled_at) WHERE settled_at IS NOT NULL;
-- Recovery: the open ones of a replica.
CREATE INDEX generations_open ON generations (owner) WHERE state IN ('queued', 'running');
-- Retention: prompts to be forgotten.
CREATE INDEX generations_prompts ON generations (prompt_expires_at) WHERE prompt_expires_at IS NOT NULL;

-- Each submit of a generation to a provider that took it, with what is needed to ask for the result again.
CREATE TABLE attempts (
    generation_id        UUID   NOT NULL,
    n                    BIGINT NOT NULL,
    endpoint             TEXT   NOT NULL,
    -- The label of the provider key, never the key.
    credential           TEXT   NOT NULL,
    provider_request_id  TEXT   NOT NULL,
    status_url           TEXT   NOT NULL,
    response_url         TEXT   NOT NULL,
    cancel_url           TEXT   NOT NULL,
    submitted_at         BIGINT NOT NULL,
    ended_at             BIGINT,
    outcome              TEXT,
    cost                 BIGINT,
    billable_units       BIGINT,
    unit_price           BIGINT,
    CONSTRAINT attempts_pk PRIMARY KEY (generation_id, n),
    CONSTRAINT attempts_generation_fk FOREIGN KEY (generation_id) REFERENCES generations (id),
    CONSTRAINT attempts_n_positive CHECK (n > 0),
    CONSTRAINT attempts_outcome_known
        CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'expired', 'replaced')),
    CONSTRAINT attempts_outcome_iff_ended CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX attempts_by_provider_request ON attempts (provider_request_id);

-- Money set aside for a generation until it has ended.
CREATE TABLE holds (
    generation_id  UUID   NOT NULL,
    project_id     UUID   NOT NULL,
    api_key_id     UUID   NOT NULL,
    amount         BIGINT NOT NULL,
    opened_at      BIGINT NOT NULL,
    ended_at       BIGINT,
    outcome        TEXT,
    CONSTRAINT holds_pk PRIMARY KEY (generation_id),
    CONSTRAINT holds_generation_fk FOREIGN KEY (generation_id) REFERENCES generations (id),
    CONSTRAINT holds_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT holds_api_key_fk FOREIGN KEY (api_key_id) REFERENCES api_keys (id),
    CONSTRAINT holds_amount_not_negative CHECK (amount >= 0),
    CONSTRAINT holds_outcome_known CHECK (outcome IN ('settled', 'released')),
    CONSTRAINT holds_outcome_iff_ended CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX holds_open ON holds (project_id) WHERE ended_at IS NULL;

-- The ledger: transactions and their entries, append-only. A settlement has the id of its generation, so that there
-- can be only one.
CREATE TABLE ledger_transactions (
    id             UUID   NOT NULL,
    kind           TEXT   NOT NULL,
    project_id     UUID   NOT NULL,
    -- What a settlement charges, or what a refund gives back.
    generation_id  UUID,
    reason         TEXT   NOT NULL,
    author         TEXT,
    created_at     BIGINT NOT NULL,
    CONSTRAINT ledger_transactions_pk PRIMARY KEY (id),
    CONSTRAINT ledger_transactions_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT ledger_transactions_generation_fk FOREIGN KEY (generation_id) REFERENCES generations (id),
    CONSTRAINT ledger_transactions_kind_known CHECK (kind IN ('settlement', 'refund', 'top_up', 'correction')),
    CONSTRAINT ledger_transactions_one_settlement
        CHECK ((kind = 'settlement') = (generation_id IS NOT NULL AND generation_id = id)),
    CONSTRAINT ledger_transactions_refund_names_generation CHECK ((kind IN ('settlement', 'refund')) = (generation_id IS NOT NULL)),
    CONSTRAINT ledger_transactions_author_of_credits CHECK (kind = 'settlement' OR (author IS NOT NULL AND reason <> ''))
);
CREATE INDEX ledger_transactions_by_project ON ledger_transactions (project_id, created_at);
CREATE INDEX ledger_transactions_by_generation ON ledger_transactions (generation_id) WHERE generation_id IS NOT NULL;

-- Signs: an entry adds to what its account shows. `project` is what a project may still spend (negative: what it
-- owes), `revenue` what we earned, `cost_of_sales` what the images cost us, `provider` what we have at the provider
-- (negative: what we owe it), `funding` what was paid in (negative, the other side of top-ups).
-- Entries are written before their transaction's row, which closes the transaction; hence the deferred reference.
CREATE TABLE ledger_entries (
    transaction_id  UUID   NOT NULL,
    account         TEXT   NOT NULL,
    amount          BIGINT NOT NULL,
    CONSTRAINT ledger_entries_pk PRIMARY KEY (transaction_id, account),
    CONSTRAINT ledger_entries_transaction_fk FOREIGN KEY (transaction_id)
        REFERENCES ledger_transactions (id) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT ledger_entries_account_known
        CHECK (account IN ('project', 'revenue', 'cost_of_sales', 'provider', 'funding')),
    CONSTRAINT ledger_entries_amount_not_zero CHECK (amount <> 0)
);

CREATE FUNCTION refuse_change_of_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: correct it by a new transaction'
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER ledger_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_ledger();
CREATE TRIGGER ledger_transactions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_ledger();

CREATE FUNCTION refuse_unbalanced_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM added
               LEFT JOIN ledger_entries ON ledger_entries.transaction_id = added.id
               GROUP BY added.id
               HAVING count(ledger_entries.amount) < 2 OR sum(ledger_entries.amount) <> 0) THEN
        RAISE EXCEPTION 'the entries of a ledger transaction must sum to zero'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_transactions_balanced AFTER INSERT ON ledger_transactions
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION refuse_unbalanced_transaction();

CREATE FUNCTION refuse_entry_of_closed_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM added JOIN ledger_transactions ON ledger_transactions.id = added.transaction_id) THEN
        RAISE EXCEPTION 'a closed ledger transaction takes no more entries'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_entries_only_before_transaction AFTER INSERT ON ledger_entries
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION refuse_entry_of_closed_transaction();

-- Sums kept beside the ledger for speed, always in the same transaction; `imagegate ledger verify` recomputes them.
CREATE TABLE balances (
    project_id  UUID   NOT NULL,
    -- The sum of the project's ledger entries.
    posted      BIGINT NOT NULL DEFAULT 0,
    -- The sum of its open holds.
    held        BIGINT NOT NULL DEFAULT 0,
    CONSTRAINT balances_pk PRIMARY KEY (project_id),
    CONSTRAINT balances_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT balances_held_not_negative CHECK (held >= 0)
);
CREATE TABLE key_balances (
    api_key_id  UUID   NOT NULL,
    -- What the key's generations were charged, less refunds.
    spent       BIGINT NOT NULL DEFAULT 0,
    held        BIGINT NOT NULL DEFAULT 0,
    CONSTRAINT key_balances_pk PRIMARY KEY (api_key_id),
    CONSTRAINT key_balances_api_key_fk FOREIGN KEY (api_key_id) REFERENCES api_keys (id),
    CONSTRAINT key_balances_held_not_negative CHECK (held >= 0)
);
CREATE TABLE monthly_spend (
    project_id  UUID   NOT NULL,
    -- The calendar month in UTC: its first moment, and the next month's.
    starts_at   BIGINT NOT NULL,
    ends_at     BIGINT NOT NULL,
    -- What was charged in it, less refunds.
    spent       BIGINT NOT NULL DEFAULT 0,
    CONSTRAINT monthly_spend_pk PRIMARY KEY (project_id, starts_at),
    CONSTRAINT monthly_spend_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT monthly_spend_in_order CHECK (ends_at > starts_at)
);

-- One image per key and body.
CREATE TABLE idempotency_keys (
    project_id     UUID   NOT NULL,
    key            TEXT   NOT NULL,
    digest         BYTEA  NOT NULL,
    generation_id  UUID   NOT NULL,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    CONSTRAINT idempotency_keys_pk PRIMARY KEY (project_id, key),
    CONSTRAINT idempotency_keys_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT idempotency_keys_generation_fk FOREIGN KEY (generation_id) REFERENCES generations (id),
    CONSTRAINT idempotency_keys_digest_is_sha256 CHECK (length(digest) = 32),
    CONSTRAINT idempotency_keys_expire_later CHECK (expires_at > created_at)
);
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
CREATE INDEX idempotency_keys_by_generation ON idempotency_keys (generation_id);

-- The running gateways; one whose heartbeat is old has died, and others take over its open generations.
CREATE TABLE replicas (
    id            UUID   NOT NULL,
    heartbeat_at  BIGINT NOT NULL,
    CONSTRAINT replicas_pk PRIMARY KEY (id)
);

-- Numbers that grow with every change of what replicas keep in memory, so that they know when to read it again.
CREATE TABLE changes (
    name    TEXT   NOT NULL,
    number  BIGINT NOT NULL,
    CONSTRAINT changes_pk PRIMARY KEY (name)
);
INSERT INTO changes (name, number) VALUES ('accounts', 0);
