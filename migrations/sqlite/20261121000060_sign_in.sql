-- Sessions of the console. Only adds. The names of the constraints are those of the PostgreSQL migration beside this one.

-- Who is signed in: the digest of a random token, never the token; the key that it was had for.
CREATE TABLE console_sessions (
    token_hash  BLOB NOT NULL,
    api_key_id  BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    CONSTRAINT console_sessions_pk PRIMARY KEY (token_hash),
    CONSTRAINT console_sessions_api_key_fk FOREIGN KEY (api_key_id) REFERENCES api_keys (id),
    CONSTRAINT console_sessions_hash_is_sha256 CHECK (length(token_hash) = 32),
    CONSTRAINT console_sessions_ends_later CHECK (expires_at > created_at)
) STRICT;
CREATE INDEX console_sessions_by_end ON console_sessions (expires_at);
