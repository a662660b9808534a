-- What a BI tool is pointed at: of each organization, the full scan that completed last. The views
-- of single organizations, one column for each deal property, are made by `warehouse/views.py`.

CREATE SCHEMA IF NOT EXISTS hubspot_deals_views;

CREATE INDEX scans_latest ON hubspot_deals.scans (organization_id, ended_at DESC, seq DESC)
    WHERE outcome = 'completed' AND results_removed_at IS NULL;
CREATE INDEX IF NOT EXISTS users_by_id ON hubspot_deals_extraction.users (scan_id, id);
CREATE INDEX IF NOT EXISTS pipelines_by_id ON hubspot_deals_extraction.pipelines (scan_id, id);
CREATE INDEX IF NOT EXISTS pipeline_stages_by_id
    ON hubspot_deals_extraction.pipeline_stages (scan_id, id);

-- HubSpot's texts as values; what cannot be read is NULL. PostgreSQL 15 has no cast that fails
-- softly, so each function looks before it casts. The first two are inlined.
CREATE FUNCTION hubspot_deals.to_number(text) RETURNS numeric LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE
        WHEN length($1) < 1000
            AND $1 ~ '^[ \t]*[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]{1,3})?[ \t]*$'
        THEN $1::numeric
    END;
CREATE FUNCTION hubspot_deals.to_truth(text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE lower(btrim($1)) WHEN 'true' THEN true WHEN 'false' THEN false END;
CREATE FUNCTION hubspot_deals.to_moment(value text) RETURNS timestamptz
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE AS $$
DECLARE
    parts text[];
BEGIN
    IF value ~ '^-?[0-9]{11,15}$' THEN
        RETURN CASE WHEN value::bigint BETWEEN -62135596800000 AND 253402300799999
            THEN timestamptz 'epoch' + value::bigint * interval '1 millisecond' END;
    END IF;
    parts := regexp_match(value,
        '^((?!0000)[0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])'
        '(?:[T ]((?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,9})?)?))?'
        '(Z|[-+](?:0[0-9]|1[0-4]):?[0-5][0-9])?$');
    IF parts IS NULL OR parts[3]::integer > extract(
        day FROM make_date(parts[1]::integer, parts[2]::integer, 1) + interval '1 month -1 day'
    ) THEN
        RETURN NULL;
    END IF;
    RETURN (concat_ws('-', parts[1], parts[2], parts[3]) || 'T' || coalesce(parts[4], '00:00')
        || coalesce(parts[5], 'Z'))::timestamptz;
END
$$;
CREATE FUNCTION hubspot_deals.to_day(text) RETURNS date LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (hubspot_deals.to_moment($1) AT TIME ZONE 'UTC')::date;

-- Full: without a range of dates.
CREATE VIEW hubspot_deals_views.latest_scans AS
SELECT DISTINCT ON (s.organization_id) s.organization_id, s.scan_id, s.started_at, s.ended_at,
    s.records_extracted AS deals,
    coalesce((s.config #>> '{filters,includeArchived}')::boolean, false) AS has_archived
FROM hubspot_deals.scans s
WHERE s.outcome = 'completed' AND s.results_removed_at IS NULL
    AND s.config #>> '{filters,dateRange,startDate}' IS NULL
    AND s.config #>> '{filters,dateRange,endDate}' IS NULL
ORDER BY s.organization_id, s.ended_at DESC, s.seq DESC;

CREATE VIEW hubspot_deals_views.latest_users AS
SELECT r.* FROM hubspot_deals_views.latest_scans l
JOIN hubspot_deals.users r USING (organization_id, scan_id);
CREATE VIEW hubspot_deals_views.latest_pipelines AS
SELECT r.* FROM hubspot_deals_views.latest_scans l
JOIN hubspot_deals.pipelines r USING (organization_id, scan_id);
CREATE VIEW hubspot_deals_views.latest_pipeline_stages AS
SELECT r.* FROM hubspot_deals_views.latest_scans l
JOIN hubspot_deals.pipeline_stages r USING (organization_id, scan_id);
CREATE VIEW hubspot_deals_views.latest_deal_properties AS
SELECT r.* FROM hubspot_deals_views.latest_scans l
JOIN hubspot_deals.deal_properties r USING (organization_id, scan_id);

-- A row of another package than a committed chunk's explains nothing, and no label doubles a deal.
CREATE VIEW hubspot_deals_views.latest_deals AS
SELECT s.label AS dealstage_label, p.label AS pipeline_label, o.email AS owner_email, d.*
FROM hubspot_deals_views.latest_scans l
JOIN hubspot_deals.deals d USING (organization_id, scan_id)
LEFT JOIN LATERAL (
    SELECT r.label FROM hubspot_deals_extraction.pipeline_stages r
    JOIN hubspot_deals.served_chunks c ON c.scan_id = r.scan_id AND c.load_id = r._dlt_load_id
        AND c.table_name = 'pipeline_stages'
    WHERE r.scan_id = d.scan_id AND r.id = d.dealstage
        AND (r.pipeline_id = d.pipeline OR d.pipeline IS NULL)
    LIMIT 1
) s ON true
LEFT JOIN LATERAL (
    SELECT r.label FROM hubspot_deals_extraction.pipelines r
    JOIN hubspot_deals.served_chunks c ON c.scan_id = r.scan_id AND c.load_id = r._dlt_load_id
        AND c.table_name = 'pipelines'
    WHERE r.scan_id = d.scan_id AND r.id = d.pipeline LIMIT 1
) p ON true
LEFT JOIN LATERAL (
    SELECT r.email FROM hubspot_deals_extraction.users r
    JOIN hubspot_deals.served_chunks c ON c.scan_id = r.scan_id AND c.load_id = r._dlt_load_id
        AND c.table_name = 'users'
    WHERE r.scan_id = d.scan_id AND r.id = d.hubspot_owner_id LIMIT 1
) o ON true;

-- Which view is whose.
CREATE TABLE hubspot_deals_views.organization_views (
    organization_id text PRIMARY KEY,
    view_name       text NOT NULL UNIQUE,
    -- Properties without a column: too many, or their names are taken.
    left_out        text[] NOT NULL,
    made_at         timestamptz NOT NULL DEFAULT now(),
    -- How views were made when this one was; others are made anew.
    version         integer NOT NULL
);
