-- Who may call the REST API, and what callers did.

-- A key is `hsd_<key_id>_<secret>`. The secret is 256 random bits, so that its plain SHA-256 says
-- nothing about it: a slow hash protects secrets that people choose.
CREATE TABLE hubspot_deals.api_keys (
    key_id        text PRIMARY KEY CHECK (key_id ~ '^[0-9a-f]{8}$'),
    secret_hash   bytea NOT NULL CHECK (length(secret_hash) = 32),
    name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    -- NULL: all of them.
    organizations text[] CHECK (cardinality(organizations) > 0),
    level         text NOT NULL CHECK (level IN ('read', 'run', 'admin')),
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    -- At most a minute old.
    last_used_at  timestamptz,
    revoked_at    timestamptz
);

-- One line for each thing that a caller changed or read. It outlives what it is about: no foreign
-- keys.
CREATE TABLE hubspot_deals.audit_log (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT now(),
    actor           text NOT NULL,
    action          text NOT NULL,
    organization_id text,
    object_id       text,
    -- `begun` is what remains of a change whose process died before its answer.
    outcome         text NOT NULL CHECK (outcome IN ('begun', 'done', 'refused', 'failed', 'cut off')),
    status          smallint,
    request_id      text
);
CREATE INDEX audit_log_by_time ON hubspot_deals.audit_log (at);
CREATE INDEX audit_log_by_organization ON hubspot_deals.audit_log (organization_id, id);
CREATE INDEX audit_log_by_object ON hubspot_deals.audit_log (object_id, id);
