-- Service accounts, and who changed what. Only adds.
-- The tables and the names of the constraints are those of the SQLite migration beside this one.

-- Who holds keys of a project: a program, a team. A deleted one stays for the audit log.
CREATE TABLE service_accounts (
    id          UUID   NOT NULL,
    project_id  UUID   NOT NULL,
    name        TEXT   NOT NULL,
    role        TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    deleted_at  BIGINT,
    CONSTRAINT service_accounts_pk PRIMARY KEY (id),
    CONSTRAINT service_accounts_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT service_accounts_name_not_empty CHECK (name <> ''),
    CONSTRAINT service_accounts_role_known CHECK (role IN ('owner', 'member', 'none'))
);
CREATE INDEX service_accounts_by_project ON service_accounts (project_id, id);

ALTER TABLE api_keys ADD COLUMN service_account_id UUID
    CONSTRAINT api_keys_service_account_fk REFERENCES service_accounts (id);
CREATE INDEX api_keys_by_service_account ON api_keys (service_account_id) WHERE service_account_id IS NOT NULL;

-- Who did what, when, from where; append-only. Written in the transaction of the change itself.
CREATE TABLE audit_logs (
    id                UUID   NOT NULL,
    -- OpenAI's word for the event, such as `api_key.created`.
    event             TEXT   NOT NULL,
    at                BIGINT NOT NULL,
    -- How it was done: with a key over HTTP, by a command on the machine, or by the gateway itself.
    actor             TEXT   NOT NULL,
    actor_api_key_id  UUID,
    ip                TEXT,
    user_agent        TEXT,
    project_id        UUID,
    -- What was changed: the id as it is shown.
    resource_id       TEXT   NOT NULL,
    -- What it was and what it became, as JSON; null before it was made.
    state_before      TEXT,
    state_after       TEXT,
    CONSTRAINT audit_logs_pk PRIMARY KEY (id),
    CONSTRAINT audit_logs_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT audit_logs_api_key_fk FOREIGN KEY (actor_api_key_id) REFERENCES api_keys (id),
    CONSTRAINT audit_logs_actor_known CHECK (actor IN ('api_key', 'command', 'system')),
    CONSTRAINT audit_logs_key_iff_by_key CHECK ((actor = 'api_key') = (actor_api_key_id IS NOT NULL))
);
CREATE INDEX audit_logs_by_project ON audit_logs (project_id, id);
CREATE INDEX audit_logs_by_resource ON audit_logs (resource_id, id);

CREATE FUNCTION refuse_change_of_audit_logs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_audit_logs();

-- Costs: the ledger by time.
CREATE INDEX ledger_transactions_by_time ON ledger_transactions (created_at);
