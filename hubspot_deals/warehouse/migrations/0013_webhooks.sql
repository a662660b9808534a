-- Webhooks: who is told what, and an outbox that is written by the very statement that changes a
-- scan, so that no writer can forget it and no event exists without its change.

CREATE TABLE hubspot_deals.webhooks (
    seq             bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    webhook_id      text PRIMARY KEY,
    organization_id text NOT NULL,
    url             text NOT NULL,
    -- Host and port: what requests at once are bounded by.
    receiver        text NOT NULL,
    -- Types, families such as `scan.*`, or `*`.
    events          text[] NOT NULL,
    description     text,
    enabled         boolean NOT NULL DEFAULT true,
    disabled_reason text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhooks_by_organization ON hubspot_deals.webhooks (organization_id, seq DESC);
CREATE INDEX webhooks_enabled ON hubspot_deals.webhooks (organization_id) WHERE enabled;

-- AES-GCM with `webhook_id/secret_id` as associated data. After a rotation there are two for a
-- while, and both sign.
CREATE TABLE hubspot_deals.webhook_secrets (
    secret_id   text PRIMARY KEY,
    webhook_id  text NOT NULL REFERENCES hubspot_deals.webhooks ON DELETE CASCADE,
    key_id      text NOT NULL,
    nonce       bytea NOT NULL,
    ciphertext  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    valid_until timestamptz
);
CREATE INDEX webhook_secrets_by_webhook ON hubspot_deals.webhook_secrets (webhook_id);

CREATE TABLE hubspot_deals.webhook_events (
    -- Receivers see it as `webhook-id`, however often the event is sent.
    event_id        text PRIMARY KEY DEFAULT 'msg_' || replace(gen_random_uuid()::text, '-', ''),
    organization_id text NOT NULL,
    type            text NOT NULL,
    occurred_at     timestamptz NOT NULL DEFAULT now(),
    data            jsonb NOT NULL
);

-- No key refers to `webhooks`: a scan that ends while a webhook is deleted must neither wait nor
-- fail. What such a race leaves behind is never sent and is swept away.
CREATE TABLE hubspot_deals.webhook_deliveries (
    seq             bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    delivery_id     text PRIMARY KEY DEFAULT 'dlv_' || replace(gen_random_uuid()::text, '-', ''),
    webhook_id      text NOT NULL,
    event_id        text NOT NULL REFERENCES hubspot_deals.webhook_events ON DELETE CASCADE,
    status          text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'dead')),
    -- Since it was written or last replayed.
    tries           integer NOT NULL DEFAULT 0,
    -- Whoever sends it moves this on first: if the sender dies, it is due again by itself.
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,
    -- The last attempts: when, HTTP status, error, milliseconds, the beginning of the answer.
    attempts        jsonb NOT NULL DEFAULT '[]'
);
CREATE INDEX webhook_deliveries_due
    ON hubspot_deals.webhook_deliveries (webhook_id, next_attempt_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_by_webhook ON hubspot_deals.webhook_deliveries (webhook_id, seq DESC);
CREATE INDEX webhook_deliveries_by_event ON hubspot_deals.webhook_deliveries (event_id);
CREATE INDEX webhook_deliveries_ended
    ON hubspot_deals.webhook_deliveries (ended_at) WHERE status <> 'pending';

-- Tells an organization's webhooks that want this type; without one, nothing is written.
CREATE FUNCTION hubspot_deals.note_event(organization text, event_type text, event_data jsonb)
RETURNS void LANGUAGE sql AS $$
    WITH wanted AS MATERIALIZED (
        SELECT webhook_id FROM hubspot_deals.webhooks
        WHERE organization_id = organization AND enabled
        AND events && ARRAY[event_type, split_part(event_type, '.', 1) || '.*', '*']
    ), event AS (
        INSERT INTO hubspot_deals.webhook_events (organization_id, type, data)
        SELECT organization, event_type, event_data WHERE EXISTS (SELECT FROM wanted)
        RETURNING event_id
    )
    INSERT INTO hubspot_deals.webhook_deliveries (webhook_id, event_id)
    SELECT webhook_id, event_id FROM wanted CROSS JOIN event
$$;

-- The epoch whose crash for good was noted: no process of ours records it otherwise.
ALTER TABLE hubspot_deals.scans ADD COLUMN crash_noted_epoch integer;

-- An event for each change that callers can see. A run that replaces a served result by hand, and
-- fails, changes nothing that they see.
CREATE FUNCTION hubspot_deals.note_scan_events() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_taken_up boolean := jsonb_array_length(NEW.attempts) > jsonb_array_length(OLD.attempts);
    moment      text := 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"';
    event_type  text;
BEGIN
    IF NOT EXISTS (
        SELECT FROM hubspot_deals.webhooks
        WHERE organization_id = NEW.organization_id AND enabled
    ) THEN
        RETURN NULL;
    END IF;
    FOREACH event_type IN ARRAY array_remove(ARRAY[
        CASE WHEN is_taken_up AND OLD.started_at IS NULL THEN 'scan.started'
            WHEN is_taken_up AND NEW.outcome IS NULL THEN 'scan.resumed' END,
        CASE WHEN NEW.outcome IS NULL AND NEW.requested = 'pause' AND OLD.requested = 'run'
            THEN 'scan.paused' END,
        CASE WHEN NEW.crash_noted_epoch IS DISTINCT FROM OLD.crash_noted_epoch
            THEN 'scan.crashed' END,
        CASE WHEN NEW.outcome IS DISTINCT FROM OLD.outcome
            OR NEW.outcome = 'completed' AND NEW.generation <> OLD.generation
            THEN 'scan.' || NEW.outcome END,
        CASE WHEN NEW.removal = 'scan' AND OLD.removal IS DISTINCT FROM 'scan' THEN 'scan.removed'
            WHEN NEW.removal = 'results' AND OLD.results_removed_at IS NULL
            THEN 'scan.results_removed' END
    ], NULL) LOOP
        PERFORM hubspot_deals.note_event(NEW.organization_id, event_type, jsonb_build_object(
            'scanId', NEW.scan_id,
            'organizationId', NEW.organization_id,
            'status', CASE
                WHEN event_type = 'scan.removed' THEN 'removed'
                WHEN event_type = 'scan.crashed' THEN 'crashed'
                WHEN NEW.outcome IS NOT NULL THEN NEW.outcome
                WHEN NEW.requested = 'pause' THEN 'paused'
                ELSE 'running' END,
            'reason', CASE WHEN is_taken_up THEN NEW.attempts -> -1 ->> 'why' END,
            'recordsExtracted', NEW.records_extracted,
            'recordsExpected', NEW.records_expected,
            'tables', CASE WHEN event_type = 'scan.completed' THEN (
                SELECT coalesce(jsonb_agg(jsonb_build_object(
                    'name', t.table_name, 'rowCount', t.row_count) ORDER BY t.table_name), '[]')
                FROM hubspot_deals.scan_tables t
                WHERE t.scan_id = NEW.scan_id AND t.generation = NEW.generation) END,
            'startTime', to_char(NEW.started_at AT TIME ZONE 'UTC', moment),
            'endTime', to_char(NEW.ended_at AT TIME ZONE 'UTC', moment),
            'resumeAt', to_char(NEW.resume_at AT TIME ZONE 'UTC', moment),
            'errorMessage', left(NEW.error_message, 1000)
        ));
    END LOOP;
    RETURN NULL;
END
$$;

-- Heartbeats and progress, which are most of a scan's changes, do not get as far as the function.
CREATE TRIGGER note_scan_events AFTER UPDATE ON hubspot_deals.scans FOR EACH ROW
    WHEN (OLD.epoch <> NEW.epoch OR OLD.generation <> NEW.generation
        OR OLD.outcome IS DISTINCT FROM NEW.outcome
        OR OLD.crash_noted_epoch IS DISTINCT FROM NEW.crash_noted_epoch)
    EXECUTE FUNCTION hubspot_deals.note_scan_events();
