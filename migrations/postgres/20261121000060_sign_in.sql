-- Sessions of the console. Only adds.

-- Who is signed in: the digest of a random token, never the token; the key that it was had for.
CREATE TABLE console_sessions (
    token_hash  BYTEA NOT NULL,
    api_key_id  UUID NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    CONSTRAINT console_sessions_pk PRIMARY KEY (token_hash),
    CONSTRAINT console_sessions_api_key_fk FOREIGN KEY (api_key_id) REFERENCES api_keys (id),
    CONSTRAINT console_sessions_hash_is_sha256 CHECK (length(token_hash) = 32),
    CONSTRAINT console_sessions_ends_later CHECK (expires_at > created_at)
);
CREATE INDEX console_sessions_by_end ON console_sessions (expires_at);
