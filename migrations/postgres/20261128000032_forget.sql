-- Forgetting: prompts that outlive a shorter retention, and content that is erased on request. Only adds.
-- The names of the constraints are those of the SQLite migration beside this one.
ALTER TABLE projects
    -- Since when kept prompts may outlive the project's retention, which was lowered; null where none does.
    ADD COLUMN shorten_prompts_at BIGINT,
    -- All that was asked for before this moment is to be erased, or is.
    ADD COLUMN erase_before BIGINT,
    -- When all of it was; null while something is left.
    ADD COLUMN erased_at BIGINT CONSTRAINT projects_erased_if_asked CHECK (erased_at IS NULL OR erase_before IS NOT NULL);
-- Since when its prompt, parameters, answer and images are gone.
ALTER TABLE generations ADD COLUMN erased_at BIGINT
    CONSTRAINT generations_erased_once_ended CHECK (erased_at IS NULL OR settled_at IS NOT NULL);
