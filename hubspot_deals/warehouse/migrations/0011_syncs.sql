-- Connections: HubSpot accounts that are kept current, and the runs that do it. What they keep
-- current is in schema `hubspot_deals_current`.

CREATE TABLE hubspot_deals.connections (
    -- Order of creation; also the key of the connection's lease (advisory locks take an integer).
    seq             integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    -- Part of asset keys, hence neither dots nor blanks.
    connection_id   text PRIMARY KEY CHECK (connection_id ~ '^[a-z][a-z0-9_]{0,62}$'),
    organization_id text NOT NULL CHECK (length(organization_id) BETWEEN 1 AND 255),
    name            text NOT NULL DEFAULT '',
    portal_id       bigint,
    settings        jsonb NOT NULL,
    -- False: it rests until somebody resumes it; nothing is launched meanwhile.
    is_enabled      boolean NOT NULL DEFAULT true,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    -- Hidden at once; a sensor deletes what it has kept.
    removed_at      timestamptz,
    -- Of the request that created it, for a caller who repeats it.
    idempotency_key text,
    request_hash    text,

    -- Launching: whoever holds the claim asks Dagster for a run.
    sync_wanted_at       timestamptz,
    launch_claimed_until timestamptz,

    -- Working: each run that takes the lease raises the epoch, which fences out every earlier one.
    epoch           integer NOT NULL DEFAULT 0,
    -- The epoch of the last run that took it; another one than `epoch` if that was fenced out.
    worker_epoch    integer,
    run_no          integer,
    heartbeat_at    timestamptz,

    -- Where the next run goes on. `cursor` is NULL until everything has been read once.
    cursor          timestamptz,
    -- Of a first load that is under way: {"began", "checkpoint"}.
    full_pass       jsonb,
    archived_after  text,
    suspects        jsonb NOT NULL DEFAULT '[]',
    unlocated       bigint NOT NULL DEFAULT 0,
    unproved_runs   integer NOT NULL DEFAULT 0,
    reconciled_at   timestamptz,
    -- How far the cycle has come that reads deals anew which show no change.
    refreshed_at    timestamptz,
    refresh_after   text,
    -- Everything that happened to deals before this moment is in the tables.
    fresh_as_of     timestamptz
);

CREATE INDEX connections_by_organization
    ON hubspot_deals.connections (organization_id, seq DESC);
-- Two connections to one account would do everything twice.
CREATE UNIQUE INDEX connections_by_portal
    ON hubspot_deals.connections (organization_id, portal_id) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX connections_by_key
    ON hubspot_deals.connections (organization_id, idempotency_key) WHERE removed_at IS NULL;

-- AES-GCM with `connection:ID` as associated data.
CREATE TABLE hubspot_deals.connection_credentials (
    connection_id text PRIMARY KEY REFERENCES hubspot_deals.connections ON DELETE CASCADE,
    key_id        text NOT NULL,
    nonce         bytea NOT NULL,
    ciphertext    bytea NOT NULL,
    account       text
);

CREATE TABLE hubspot_deals.sync_runs (
    connection_id text NOT NULL REFERENCES hubspot_deals.connections ON DELETE CASCADE,
    run_no        integer NOT NULL,
    run_id        text NOT NULL,
    epoch         integer NOT NULL,
    -- first_load, changes, backfill or reconciliation
    kind          text NOT NULL,
    -- The partitions that it was launched for.
    window_start  timestamptz,
    window_end    timestamptz,
    started_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    outcome       text CHECK (outcome IN ('completed', 'failed', 'cancelled', 'crashed')),
    -- What it read up to: everything that happened before is in the tables.
    read_until    timestamptz,
    is_proved     boolean,
    counts        jsonb NOT NULL DEFAULT '{}',
    error_message text,
    PRIMARY KEY (connection_id, run_no)
);

CREATE INDEX sync_runs_by_run ON hubspot_deals.sync_runs (run_id);
