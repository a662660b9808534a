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

CREATE FUNCTION hubspot_deals.add_to_counts(
    organization text, scans bigint, completed bigint, failed bigint, cancelled bigint,
    records bigint
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO hubspot_deals.scan_counts AS c VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (organization_id) DO UPDATE SET
        scans = c.scans + EXCLUDED.scans,
        completed = c.completed + EXCLUDED.completed,
        failed = c.failed + EXCLUDED.failed,
        cancelled = c.cancelled + EXCLUDED.cancelled,
        records = c.records + EXCLUDED.records
$$;

CREATE FUNCTION hubspot_deals.count_scan() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    scan hubspot_deals.scans := coalesce(NEW, OLD);
    amount integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    IF scan.removal IS DISTINCT FROM 'scan' THEN
        PERFORM hubspot_deals.add_to_counts(scan.organization_id, amount,
            amount * (scan.outcome IS NOT DISTINCT FROM 'completed')::integer,
            amount * (scan.outcome IS NOT DISTINCT FROM 'failed')::integer,
            amount * (scan.outcome IS NOT DISTINCT FROM 'cancelled')::integer,
            CASE WHEN scan.outcome IS NULL THEN 0 ELSE amount * scan.records_extracted END);
    END IF;
    RETURN NULL;
END
$$;

-- Every count is one row that its organization's scans share. Whoever changes scans has them locked
-- before it takes counts, and takes several in one order, so that nobody waits in a circle; a worker
-- that reports progress takes none.
CREATE FUNCTION hubspot_deals.count_changed_scans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hubspot_deals.add_to_counts(organization_id, scans, completed, failed, cancelled, records)
    FROM (
        SELECT organization_id, sum(amount) AS scans,
            coalesce(sum(amount) FILTER (WHERE outcome = 'completed'), 0) AS completed,
            coalesce(sum(amount) FILTER (WHERE outcome = 'failed'), 0) AS failed,
            coalesce(sum(amount) FILTER (WHERE outcome = 'cancelled'), 0) AS cancelled,
            coalesce(sum(amount * records_extracted) FILTER (WHERE outcome IS NOT NULL), 0)::bigint
                AS records
        FROM (
            SELECT -1 AS amount, organization_id, outcome, removal, records_extracted FROM before
            UNION ALL
            SELECT 1, organization_id, outcome, removal, records_extracted FROM after
        ) s
        WHERE removal IS DISTINCT FROM 'scan' GROUP BY organization_id ORDER BY organization_id
    ) c WHERE (scans, completed, failed, cancelled, records) IS DISTINCT FROM (0, 0, 0, 0, 0);
    RETURN NULL;
END
$$;

CREATE TRIGGER count_scan AFTER INSERT OR DELETE ON hubspot_deals.scans
    FOR EACH ROW EXECUTE FUNCTION hubspot_deals.count_scan();
CREATE TRIGGER count_changed_scans AFTER UPDATE ON hubspot_deals.scans
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION hubspot_deals.count_changed_scans();

INSERT INTO hubspot_deals.scan_counts
SELECT organization_id, count(*),
    count(*) FILTER (WHERE outcome = 'completed'),
    count(*) FILTER (WHERE outcome = 'failed'),
    count(*) FILTER (WHERE outcome = 'cancelled'),
    coalesce(sum(records_extracted) FILTER (WHERE outcome IS NOT NULL), 0)
FROM hubspot_deals.scans WHERE removal IS DISTINCT FROM 'scan' GROUP BY organization_id;

CREATE INDEX scans_by_creation
    ON hubspot_deals.scans (created_at, organization_id, removal);
