-- Scans, their committed chunks and their credentials. The rows of a scan are in the dataset
-- `hubspot_deals_extraction`, whose tables dlt owns.

CREATE TABLE hubspot_deals.scans (
    -- Order of acceptance; also the key of the scan's lease (advisory locks take an integer).
    seq                  integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    scan_id              text PRIMARY KEY CHECK (scan_id ~ '^[A-Za-z0-9_-]{1,255}$'),
    organization_id      text NOT NULL CHECK (length(organization_id) BETWEEN 1 AND 255),
    config               jsonb NOT NULL,
    idempotency_key      text,
    request_hash         text NOT NULL,
    created_at           timestamptz NOT NULL DEFAULT now(),

    -- Launching: whoever holds the claim asks Dagster for the run.
    launch_claimed_until timestamptz,
    run_id               text,

    -- Working: each taken lease raises the epoch, which fences out every earlier writer.
    epoch                integer NOT NULL DEFAULT 0,
    started_at           timestamptz,
    heartbeat_at         timestamptz,
    records_expected     bigint,

    -- `generation` is the snapshot being served (0: none yet); a rerun fills `working_generation`
    -- beside it and takes its place in the transaction that completes it.
    working_generation   integer NOT NULL DEFAULT 1,
    generation           integer NOT NULL DEFAULT 0,

    outcome              text CHECK (outcome IN ('completed', 'failed', 'cancelled')),
    ended_at             timestamptz,
    error_message        text,
    records_extracted    bigint NOT NULL DEFAULT 0,
    metadata             jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX scans_by_organization ON hubspot_deals.scans (organization_id, seq DESC);
CREATE UNIQUE INDEX scans_by_idempotency_key
    ON hubspot_deals.scans (organization_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX scans_without_run ON hubspot_deals.scans (seq)
    WHERE run_id IS NULL AND started_at IS NULL AND outcome IS NULL;

-- A load package counts only when its chunk is here. Rows of any other package belong to a
-- worker that died or was fenced out, and are never read.
CREATE TABLE hubspot_deals.scan_chunks (
    scan_id      text NOT NULL REFERENCES hubspot_deals.scans ON DELETE CASCADE,
    generation   integer NOT NULL,
    table_name   text NOT NULL,
    chunk_no     integer NOT NULL,
    load_id      text NOT NULL,
    first_row    bigint NOT NULL,
    row_count    bigint NOT NULL CHECK (row_count >= 0),
    -- Where reading goes on after this chunk, in the source's own words.
    checkpoint   jsonb,
    -- What the run noticed while it read this chunk: values that did not fit, notes.
    facts        jsonb NOT NULL DEFAULT '{}',
    epoch        integer NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scan_id, generation, table_name, chunk_no)
);

-- The tables of a served snapshot, counted once when it was completed.
CREATE TABLE hubspot_deals.scan_tables (
    scan_id         text NOT NULL REFERENCES hubspot_deals.scans ON DELETE CASCADE,
    generation      integer NOT NULL,
    table_name      text NOT NULL,
    row_count       bigint NOT NULL,
    extracted_count bigint NOT NULL,
    columns         text[] NOT NULL,
    PRIMARY KEY (scan_id, generation, table_name)
);

-- AES-GCM with the scan id as associated data: a ciphertext moved to another row does not decrypt.
CREATE TABLE hubspot_deals.credentials (
    scan_id    text PRIMARY KEY REFERENCES hubspot_deals.scans ON DELETE CASCADE,
    key_id     text NOT NULL,
    nonce      bytea NOT NULL,
    ciphertext bytea NOT NULL
);
