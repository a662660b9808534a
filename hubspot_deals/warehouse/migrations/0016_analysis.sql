-- What the tables of connections add up to. Plain views: never older than the last sync.

CREATE SCHEMA IF NOT EXISTS hubspot_deals_analysis;

CREATE VIEW hubspot_deals_analysis.deals AS
SELECT d.organization_id, d.connection_id, d.id,
    d.pipeline AS pipeline_id, p.label AS pipeline, d.dealstage AS stage_id, s.label AS stage,
    d.hubspot_owner_id AS owner_id,
    coalesce(nullif(concat_ws(' ', o.first_name, o.last_name), ''), o.email) AS owner,
    -- By the calendar of the account's people. A deal without a close date has no month.
    date_trunc('month', d.closedate AT TIME ZONE (c.settings ->> 'timeZone'))::date AS month,
    -- By the stage first: what HubSpot calculates moves no timestamp, and may be a cycle behind.
    coalesce(s.is_closed, d.hs_is_closed, false) AS is_closed,
    coalesce(s.is_closed AND s.probability = 1, d.hs_is_closed_won, false) AS is_won,
    coalesce(d.amount_in_home_currency, d.amount, 0) AS value,
    coalesce(d.hs_deal_stage_probability, s.probability, 0) AS probability
FROM hubspot_deals_current.deals_current d
JOIN hubspot_deals.connections c
    ON c.organization_id = d.organization_id AND c.connection_id = d.connection_id
LEFT JOIN hubspot_deals_current.pipelines p
    ON p.organization_id = d.organization_id AND p.connection_id = d.connection_id
    AND p.id = d.pipeline
LEFT JOIN hubspot_deals_current.pipeline_stages s
    ON s.organization_id = d.organization_id AND s.connection_id = d.connection_id
    AND s.pipeline_id = d.pipeline AND s.id = d.dealstage
LEFT JOIN hubspot_deals_current.owners o
    ON o.organization_id = d.organization_id AND o.connection_id = d.connection_id
    AND o.id = d.hubspot_owner_id;
COMMENT ON VIEW hubspot_deals_analysis.deals IS
    'Live deals as the views beside it count them. Values are in the account''s home currency where'
    ' HubSpot gives it, else as entered.';

CREATE VIEW hubspot_deals_analysis.won_lost AS
SELECT organization_id, connection_id, month, owner_id, owner, pipeline_id, pipeline,
    count(*) FILTER (WHERE is_won) AS won,
    count(*) FILTER (WHERE NOT is_won) AS lost,
    coalesce(sum(value) FILTER (WHERE is_won), 0) AS won_value,
    coalesce(sum(value) FILTER (WHERE NOT is_won), 0) AS lost_value,
    round(avg(is_won::integer), 4) AS win_rate
FROM hubspot_deals_analysis.deals
WHERE is_closed
GROUP BY organization_id, connection_id, month, owner_id, owner, pipeline_id, pipeline;
COMMENT ON VIEW hubspot_deals_analysis.won_lost IS
    'Closed deals by the month of their close date, owner and pipeline. win_rate is won of all.';

CREATE VIEW hubspot_deals_analysis.time_in_stage AS
SELECT h.organization_id, h.connection_id, h.pipeline_id, p.label AS pipeline,
    h.stage_id, s.label AS stage, s.display_order,
    count(*) FILTER (WHERE h.left_at IS NOT NULL) AS stays,
    count(*) FILTER (WHERE h.left_at IS NULL) AS still_there,
    (percentile_cont(0.5) WITHIN GROUP (ORDER BY h.seconds) / 86400)::numeric(12, 3) AS median_days,
    (avg(h.seconds) / 86400)::numeric(12, 3) AS mean_days,
    (percentile_cont(0.9) WITHIN GROUP (ORDER BY h.seconds) / 86400)::numeric(12, 3) AS p90_days
FROM hubspot_deals_current.deal_stage_history h
LEFT JOIN hubspot_deals_current.pipelines p
    ON p.organization_id = h.organization_id AND p.connection_id = h.connection_id
    AND p.id = h.pipeline_id
LEFT JOIN hubspot_deals_current.pipeline_stages s
    ON s.organization_id = h.organization_id AND s.connection_id = h.connection_id
    AND s.pipeline_id = h.pipeline_id AND s.id = h.stage_id
GROUP BY h.organization_id, h.connection_id, h.pipeline_id, p.label, h.stage_id, s.label,
    s.display_order;
COMMENT ON VIEW hubspot_deals_analysis.time_in_stage IS
    'How long deals stood in each stage. Days are of stays that have ended; still_there counts the'
    ' others.';

CREATE VIEW hubspot_deals_analysis.pipeline_value_by_month AS
SELECT organization_id, connection_id, month, pipeline_id, pipeline,
    count(*) AS deals, sum(value) AS value, sum(value * probability) AS weighted_value
FROM hubspot_deals_analysis.deals
WHERE NOT is_closed
GROUP BY organization_id, connection_id, month, pipeline_id, pipeline;
COMMENT ON VIEW hubspot_deals_analysis.pipeline_value_by_month IS
    'Open deals by the month in which they are expected to close. weighted_value counts each with'
    ' its probability.';

-- What the launching sensor asks every ten seconds, however many years of runs there are.
CREATE INDEX sync_runs_by_window ON hubspot_deals.sync_runs (connection_id, window_end)
    INCLUDE (window_start) WHERE outcome = 'completed';
CREATE INDEX sync_runs_at_work ON hubspot_deals.sync_runs (connection_id) WHERE outcome IS NULL;
