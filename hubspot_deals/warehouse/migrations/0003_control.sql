-- Scans that are paused, resumed, resumed by themselves, cleaned up and removed.

ALTER TABLE hubspot_deals.scans
    -- What the caller wants. Cancelling is an outcome at once.
    ADD COLUMN requested         text NOT NULL DEFAULT 'run' CHECK (requested IN ('run', 'pause')),
    -- When a scan that paused itself goes on.
    ADD COLUMN resume_at         timestamptz,
    -- Since when an interrupted scan waits for a worker to go on with it.
    ADD COLUMN resuming_since    timestamptz,
    ADD COLUMN launch_reason     text NOT NULL DEFAULT 'start',

    -- The epoch that a worker has taken up; any other value than `epoch`: it was fenced out.
    ADD COLUMN worker_epoch      integer,
    -- When that worker was given up although it holds the lock; nobody has taken over since.
    ADD COLUMN lost_at           timestamptz,
    ADD COLUMN progress_at       timestamptz,
    -- Every run that has taken the scan up: run id, when, and why.
    ADD COLUMN attempts          jsonb NOT NULL DEFAULT '[]',

    -- How often in a row it was resumed by itself, and how often it may be.
    ADD COLUMN auto_resumes      integer NOT NULL DEFAULT 0,
    ADD COLUMN auto_resume_limit integer NOT NULL DEFAULT 5,

    -- Set at once when rows are to go, so that nobody reads half of them; `removal` says what
    -- still has to be deleted: the scan with everything, or only its results.
    ADD COLUMN results_removed_at    timestamptz,
    ADD COLUMN removal               text CHECK (removal IN ('scan', 'results')),
    ADD COLUMN removal_claimed_until timestamptz;

UPDATE hubspot_deals.scans SET worker_epoch = epoch, progress_at = heartbeat_at
WHERE started_at IS NOT NULL;

-- What crashed long ago is nobody's wish any more.
UPDATE hubspot_deals.scans SET auto_resume_limit = 0
WHERE started_at IS NOT NULL AND outcome IS NULL
AND coalesce(heartbeat_at, started_at) < now() - interval '1 day';

DROP INDEX hubspot_deals.scans_without_run;
CREATE INDEX scans_unfinished ON hubspot_deals.scans (seq) WHERE outcome IS NULL;
CREATE INDEX scans_to_remove ON hubspot_deals.scans (seq) WHERE removal IS NOT NULL;

-- Scans whose Dagster runs, logs and partition key are to be deleted.
CREATE TABLE hubspot_deals.removed_scans (
    scan_id    text PRIMARY KEY,
    run_ids    text[] NOT NULL,
    removed_at timestamptz NOT NULL DEFAULT now()
);

CREATE OR REPLACE VIEW hubspot_deals.served_chunks AS
SELECT s.scan_id, s.organization_id, c.table_name, c.load_id
FROM hubspot_deals.scans s
JOIN hubspot_deals.scan_chunks c ON c.scan_id = s.scan_id AND c.generation = s.generation
WHERE s.outcome = 'completed' AND s.results_removed_at IS NULL;

-- The fence of the tables that dlt writes. A worker's sessions are named after scan and epoch; one
-- whose epoch has passed is refused here, however late it wakes up. Sessions with any other name
-- belong to no worker.
CREATE FUNCTION hubspot_deals.refuse_past_epochs() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    worker text[] := regexp_match(
        current_setting('application_name'), '^hubspot_deals_scan_(\d+)_epoch_(\d+)$');
BEGIN
    IF worker IS NOT NULL AND NOT EXISTS (
        SELECT FROM hubspot_deals.scans
        WHERE seq = worker[1]::integer AND epoch = worker[2]::integer
    ) THEN
        RAISE insufficient_privilege USING MESSAGE = format(
            'epoch %s of scan number %s has passed', worker[2], worker[1]);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER refuse_past_epochs BEFORE INSERT ON hubspot_deals_extraction.users
    EXECUTE FUNCTION hubspot_deals.refuse_past_epochs();
CREATE TRIGGER refuse_past_epochs BEFORE INSERT ON hubspot_deals_extraction.deals
    EXECUTE FUNCTION hubspot_deals.refuse_past_epochs();
CREATE TRIGGER refuse_past_epochs BEFORE INSERT ON hubspot_deals_extraction.pipelines
    EXECUTE FUNCTION hubspot_deals.refuse_past_epochs();
CREATE TRIGGER refuse_past_epochs BEFORE INSERT ON hubspot_deals_extraction.pipeline_stages
    EXECUTE FUNCTION hubspot_deals.refuse_past_epochs();
CREATE TRIGGER refuse_past_epochs BEFORE INSERT ON hubspot_deals_extraction.deal_properties
    EXECUTE FUNCTION hubspot_deals.refuse_past_epochs();
CREATE TRIGGER refuse_past_epochs BEFORE INSERT ON hubspot_deals_extraction._dlt_loads
    EXECUTE FUNCTION hubspot_deals.refuse_past_epochs();
CREATE TRIGGER refuse_past_epochs BEFORE INSERT ON hubspot_deals_extraction._dlt_pipeline_state
    EXECUTE FUNCTION hubspot_deals.refuse_past_epochs();
