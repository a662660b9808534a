-- What a BI tool is pointed at: of each organization, the full scan that completed last. The views
-- of single organizations, one column for each deal property, are made by `warehouse/views.py`.

CREATE SCHEMA IF NOT EXISTS hubspot_deals_views;

CREATE INDEX scans_latest ON hubspot_deals.scans (organization_id)
    WHERE generation > 0 AND results_removed_at IS NULL;

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
BEGIN
    IF value ~ '^-?[0-9]{11,15}$' THEN
        RETURN CASE WHEN value::bigint BETWEEN -62135596800000 AND 253402300799999
            THEN timestamptz 'epoch' + value::bigint * interval '1 millisecond' END;
    END IF;
    -- Without groups, with which PostgreSQL's patterns take many times as long.
    IF value !~ ('^[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])'
        '(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,9})?)?'
        '(?:Z|[-+](?:0[0-9]|1[0-4]):?[0-5][0-9])?)?$')
        OR left(value, 4) = '0000'
        OR substr(value, 9, 2) > '28' AND substr(value, 9, 2)::integer > extract(
            day FROM (left(value, 7) || '-01')::date + interval '1 month -1 day')
    THEN
        RETURN NULL;
    END IF;
    RETURN (CASE
        WHEN length(value) = 10 THEN value || 'T00:00Z'
        WHEN value ~ '(?:Z|[-+][0-9:]{4,5})$' AND length(value) > 16 THEN value
        ELSE value || 'Z'
    END)::timestamptz;
END
$$;
CREATE FUNCTION hubspot_deals.to_day(text) RETURNS date LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (hubspot_deals.to_moment($1) AT TIME ZONE 'UTC')::date;

-- Full: without a range of dates.
CREATE VIEW hubspot_deals_views.latest_scans AS
-- Of a scan that is started anew, what is served is the result of before until the new one commits.
SELECT DISTINCT ON (s.organization_id) s.organization_id, s.scan_id, r.started_at, r.ended_at,
    t.row_count AS deals,
    coalesce((r.config #>> '{filters,includeArchived}')::boolean, false) AS has_archived
FROM hubspot_deals.scans s
CROSS JOIN LATERAL (SELECT coalesce(s.metadata #> '{served,config}', s.config) AS config,
    coalesce((s.metadata #>> '{served,startTime}')::timestamptz, s.started_at) AS started_at,
    coalesce((s.metadata #>> '{served,endTime}')::timestamptz, s.ended_at) AS ended_at) r
JOIN hubspot_deals.scan_tables t ON t.scan_id = s.scan_id AND t.generation = s.generation
    AND t.table_name = 'deals'
WHERE s.generation > 0 AND s.results_removed_at IS NULL
    AND r.config #>> '{filters,dateRange,startDate}' IS NULL
    AND r.config #>> '{filters,dateRange,endDate}' IS NULL
ORDER BY s.organization_id, r.ended_at DESC, s.seq DESC;

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

-- Packages that count, and texts by id, as one value each for the latest scan: however PostgreSQL
-- plans a query, each deal is then a lookup or two, and no label doubles a deal. Grouping keeps a
-- condition on the organization in, and the values from being made for each deal.
CREATE VIEW hubspot_deals.latest_lookups AS
SELECT l.organization_id, l.scan_id,
    (SELECT jsonb_object_agg(c.load_id, null) FROM hubspot_deals.served_chunks c
        WHERE c.scan_id = l.scan_id AND c.table_name = 'deals') AS packages,
    -- A stage is also found without its pipeline, which a scan need not have read, if only one
    -- pipeline has a stage of that id: as on result pages.
    (SELECT jsonb_object_agg(m.key, m.label) FROM (
        SELECT concat(r.pipeline_id, '/', r.id) AS key, min(r.label) AS label
        FROM hubspot_deals.pipeline_stages r WHERE r.scan_id = l.scan_id
        GROUP BY GROUPING SETS ((r.pipeline_id, r.id), (r.id))
        HAVING GROUPING(r.pipeline_id) = 0 OR count(*) = 1) m) AS stages,
    (SELECT jsonb_object_agg(r.id, r.label) FROM hubspot_deals.pipelines r
        WHERE r.scan_id = l.scan_id AND r.id IS NOT NULL) AS pipelines,
    (SELECT jsonb_object_agg(r.id, r.email) FROM hubspot_deals.users r
        WHERE r.scan_id = l.scan_id AND r.id IS NOT NULL) AS owners
FROM hubspot_deals_views.latest_scans l GROUP BY l.organization_id, l.scan_id;

CREATE VIEW hubspot_deals_views.latest_deals AS
SELECT l.organization_id, r.scan_id, r.row_no,
    l.stages ->> concat(r.pipeline, '/', r.dealstage) AS dealstage_label,
    l.pipelines ->> r.pipeline AS pipeline_label,
    l.owners ->> r.hubspot_owner_id AS owner_email,
    r.id,
    r.created_at,
    r.updated_at,
    r.archived,
    r.archived_at,
    r.dealname,
    trim_scale(r.amount) AS amount,
    r.dealstage,
    r.pipeline,
    r.closedate,
    r.createdate,
    r.hs_createdate,
    r.hs_lastmodifieddate,
    r.hubspot_owner_id,
    r.hubspot_owner_assigneddate,
    r.hubspot_team_id,
    r.dealtype,
    r.description,
    r.deal_currency_code,
    trim_scale(r.amount_in_home_currency) AS amount_in_home_currency,
    r.hs_priority,
    r.hs_next_step,
    trim_scale(r.hs_acv) AS hs_acv,
    trim_scale(r.hs_arr) AS hs_arr,
    trim_scale(r.hs_mrr) AS hs_mrr,
    trim_scale(r.hs_tcv) AS hs_tcv,
    trim_scale(r.hs_closed_amount) AS hs_closed_amount,
    trim_scale(r.hs_closed_amount_in_home_currency) AS hs_closed_amount_in_home_currency,
    trim_scale(r.hs_projected_amount) AS hs_projected_amount,
    trim_scale(r.hs_projected_amount_in_home_currency) AS hs_projected_amount_in_home_currency,
    trim_scale(r.hs_forecast_amount) AS hs_forecast_amount,
    trim_scale(r.hs_forecast_probability) AS hs_forecast_probability,
    r.hs_manual_forecast_category,
    trim_scale(r.hs_deal_stage_probability) AS hs_deal_stage_probability,
    r.hs_is_closed,
    r.hs_is_closed_won,
    r.closed_lost_reason,
    r.closed_won_reason,
    trim_scale(r.days_to_close) AS days_to_close,
    trim_scale(r.num_associated_contacts) AS num_associated_contacts,
    trim_scale(r.num_notes) AS num_notes,
    r.notes_last_updated,
    r.notes_next_activity_date,
    r.hs_analytics_source,
    r.hs_merged_object_ids,
    r.properties
FROM hubspot_deals.latest_lookups l
JOIN hubspot_deals_extraction.deals r ON r.scan_id = l.scan_id AND l.packages ? r._dlt_load_id;

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
