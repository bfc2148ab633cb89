-- Whether a request joins an equal one whose client went away, by project and key. Only adds.

-- Null leaves it to the project, and there means that it does not.
ALTER TABLE projects ADD COLUMN join_retries INTEGER;
ALTER TABLE api_keys ADD COLUMN join_retries INTEGER;
