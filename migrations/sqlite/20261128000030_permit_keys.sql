-- What a key permits, from where it may come, and when it was last used. Only adds: keys that are there keep everything.
-- The names of the constraints are those of the PostgreSQL migration beside this one.

-- JSON array of a project key's scopes; every scope when null.
ALTER TABLE api_keys ADD COLUMN scopes TEXT
    CONSTRAINT api_keys_scopes_of_projects CHECK (scopes IS NULL OR kind = 'project');
-- What an admin key is trusted with; without effect for a project key.
ALTER TABLE api_keys ADD COLUMN role TEXT NOT NULL DEFAULT 'owner'
    CONSTRAINT api_keys_role_known CHECK (role IN ('owner', 'operator', 'billing', 'read_only'));
-- JSON array of the networks that it may be used from; any address when null.
ALTER TABLE api_keys ADD COLUMN allowed_addresses TEXT;
-- When it was last used, as far as it is written: at most once a minute.
ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER;
