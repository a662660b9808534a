-- What makes answers cheap: values as JSON text, chunks by row, and counts that are kept.

-- A value as the REST API shows it, in JSON: exact numbers as text without the padding of their
-- column, moments in UTC with milliseconds. Each is inlined into the statement that uses it.
CREATE FUNCTION hubspot_deals.to_answer(text) RETURNS text LANGUAGE sql STABLE
    RETURN coalesce(to_json($1)::text, 'null');
CREATE FUNCTION hubspot_deals.to_answer(bigint) RETURNS text LANGUAGE sql STABLE
    RETURN coalesce($1::text, 'null');
CREATE FUNCTION hubspot_deals.to_answer(boolean) RETURNS text LANGUAGE sql STABLE
    RETURN coalesce($1::text, 'null');
CREATE FUNCTION hubspot_deals.to_answer(jsonb) RETURNS text LANGUAGE sql STABLE
    RETURN coalesce($1::text, 'null');
CREATE FUNCTION hubspot_deals.to_answer(numeric) RETURNS text LANGUAGE sql STABLE
    RETURN coalesce('"' || trim_scale($1)::text || '"', 'null');
CREATE FUNCTION hubspot_deals.to_answer(timestamptz) RETURNS text LANGUAGE sql STABLE
    RETURN coalesce(
        to_char($1 AT TIME ZONE 'UTC', '"\""YYYY-MM-DD"T"HH24:MI:SS.MS"Z\""'), 'null');

-- The chunk of a row, without looking at all chunks of its scan.
CREATE INDEX scan_chunks_by_row
    ON hubspot_deals.scan_chunks (scan_id, generation, table_name, first_row);

-- How many scans can be seen, by organization and outcome, and how many deals the ended ones have.
CREATE TABLE hubspot_deals.scan_counts (
    organization_id text PRIMARY KEY,
    scans           bigint NOT NULL,
    completed       bigint NOT NULL,
    failed          bigint NOT NULL,
    cancelled       bigint NOT NULL,
    records         bigint NOT NULL
);

CREATE FUNCTION hubspot_deals.add_to_counts(scan hubspot_deals.scans, amount integer) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO hubspot_deals.scan_counts AS c
    SELECT scan.organization_id, amount,
        amount * (scan.outcome IS NOT DISTINCT FROM 'completed')::integer,
        amount * (scan.outcome IS NOT DISTINCT FROM 'failed')::integer,
        amount * (scan.outcome IS NOT DISTINCT FROM 'cancelled')::integer,
        CASE WHEN scan.outcome IS NULL THEN 0 ELSE amount * scan.records_extracted END
    WHERE scan.removal IS DISTINCT FROM 'scan'
    ON CONFLICT (organization_id) DO UPDATE SET
        scans = c.scans + EXCLUDED.scans,
        completed = c.completed + EXCLUDED.completed,
        failed = c.failed + EXCLUDED.failed,
        cancelled = c.cancelled + EXCLUDED.cancelled,
        records = c.records + EXCLUDED.records
$$;

CREATE FUNCTION hubspot_deals.count_scan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM hubspot_deals.add_to_counts(OLD, -1);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM hubspot_deals.add_to_counts(NEW, 1);
    END IF;
    RETURN NULL;
END
$$;

-- Not while a worker reports progress: every count is one row that its organization's scans share.
CREATE TRIGGER count_scan AFTER INSERT OR DELETE ON hubspot_deals.scans
    FOR EACH ROW EXECUTE FUNCTION hubspot_deals.count_scan();
CREATE TRIGGER count_changed_scan AFTER UPDATE ON hubspot_deals.scans FOR EACH ROW
    WHEN (OLD.outcome IS DISTINCT FROM NEW.outcome OR OLD.removal IS DISTINCT FROM NEW.removal
        OR (NEW.outcome IS NOT NULL AND OLD.records_extracted <> NEW.records_extracted))
    EXECUTE FUNCTION hubspot_deals.count_scan();

INSERT INTO hubspot_deals.scan_counts
SELECT organization_id, count(*),
    count(*) FILTER (WHERE outcome = 'completed'),
    count(*) FILTER (WHERE outcome = 'failed'),
    count(*) FILTER (WHERE outcome = 'cancelled'),
    coalesce(sum(records_extracted) FILTER (WHERE outcome IS NOT NULL), 0)
FROM hubspot_deals.scans WHERE removal IS DISTINCT FROM 'scan' GROUP BY organization_id;

CREATE INDEX scans_by_creation ON hubspot_deals.scans (created_at);
