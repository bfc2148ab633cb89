-- How long prompts are kept, in OpenAI's words, and at which amounts the operator is told. Only adds.
-- The tables and the names of the constraints are those of the SQLite migration beside this one.

-- What was chosen; prompt_retention is what follows from it.
ALTER TABLE projects ADD COLUMN data_retention TEXT NOT NULL DEFAULT 'organization_default'
    CONSTRAINT projects_data_retention_known CHECK (data_retention IN ('organization_default', 'none',
        'zero_data_retention', 'modified_abuse_monitoring', 'enhanced_zero_data_retention',
        'enhanced_modified_abuse_monitoring'));
ALTER TABLE organization ADD COLUMN data_retention TEXT NOT NULL DEFAULT 'zero_data_retention'
    CONSTRAINT organization_data_retention_known CHECK (data_retention IN ('zero_data_retention',
        'modified_abuse_monitoring', 'enhanced_zero_data_retention', 'enhanced_modified_abuse_monitoring'));

CREATE TABLE spend_alerts (
    id              UUID NOT NULL,
    -- Of all projects together when null.
    project_id      UUID,
    -- What a calendar month (UTC) is charged when it goes off.
    threshold       BIGINT NOT NULL,
    -- Whom the operator's own tools shall tell; JSON array. imagegate sends no mail.
    recipients      TEXT NOT NULL,
    subject_prefix  TEXT,
    created_at      BIGINT NOT NULL,
    -- The month in which it last went off: its first moment.
    fired_in        BIGINT,
    CONSTRAINT spend_alerts_pk PRIMARY KEY (id),
    CONSTRAINT spend_alerts_project_fk FOREIGN KEY (project_id) REFERENCES projects (id),
    CONSTRAINT spend_alerts_threshold_positive CHECK (threshold > 0)
);
CREATE INDEX spend_alerts_by_project ON spend_alerts (project_id, id);
