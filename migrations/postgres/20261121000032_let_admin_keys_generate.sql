-- An admin key makes no images unless it may do so for a project. Only adds.
-- The names of the constraints are those of the SQLite migration beside this one.
ALTER TABLE api_keys ADD COLUMN generates_for UUID
    CONSTRAINT api_keys_generates_for_fk REFERENCES projects (id)
    CONSTRAINT api_keys_generates_for_of_admins CHECK (generates_for IS NULL OR kind = 'admin');
