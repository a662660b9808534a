-- How rows are found, and what analysts read. The tables themselves are dlt's.

CREATE INDEX users_by_row ON hubspot_deals_extraction.users (scan_id, row_no);
CREATE INDEX deals_by_row ON hubspot_deals_extraction.deals (scan_id, row_no);
CREATE INDEX deals_by_id ON hubspot_deals_extraction.deals (scan_id, id);
CREATE INDEX pipelines_by_row ON hubspot_deals_extraction.pipelines (scan_id, row_no);
CREATE INDEX pipeline_stages_by_row ON hubspot_deals_extraction.pipeline_stages (scan_id, row_no);
CREATE INDEX deal_properties_by_row ON hubspot_deals_extraction.deal_properties (scan_id, row_no);

-- The packages that count: of each completed scan, the chunks of the generation being served.
CREATE VIEW hubspot_deals.served_chunks AS
SELECT s.scan_id, s.organization_id, c.table_name, c.load_id
FROM hubspot_deals.scans s
JOIN hubspot_deals.scan_chunks c ON c.scan_id = s.scan_id AND c.generation = s.generation
WHERE s.outcome = 'completed';

-- One row for each of a completed scan's users.
CREATE VIEW hubspot_deals.users AS
SELECT c.organization_id, r.scan_id, r.row_no,
    r.id,
    r.email,
    r.first_name,
    r.last_name,
    r.type,
    r.user_id,
    r.archived,
    r.created_at,
    r.updated_at,
    r.teams
FROM hubspot_deals.served_chunks c
JOIN hubspot_deals_extraction.users r
    ON r.scan_id = c.scan_id AND r._dlt_load_id = c.load_id AND c.table_name = 'users';

-- One row for each of a completed scan's deals.
CREATE VIEW hubspot_deals.deals AS
SELECT c.organization_id, r.scan_id, r.row_no,
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
FROM hubspot_deals.served_chunks c
JOIN hubspot_deals_extraction.deals r
    ON r.scan_id = c.scan_id AND r._dlt_load_id = c.load_id AND c.table_name = 'deals';

-- One row for each of a completed scan's pipelines.
CREATE VIEW hubspot_deals.pipelines AS
SELECT c.organization_id, r.scan_id, r.row_no,
    r.id,
    r.label,
    r.display_order,
    r.archived,
    r.created_at,
    r.updated_at
FROM hubspot_deals.served_chunks c
JOIN hubspot_deals_extraction.pipelines r
    ON r.scan_id = c.scan_id AND r._dlt_load_id = c.load_id AND c.table_name = 'pipelines';

-- One row for each of a completed scan's pipeline stages.
CREATE VIEW hubspot_deals.pipeline_stages AS
SELECT c.organization_id, r.scan_id, r.row_no,
    r.id,
    r.pipeline_id,
    r.label,
    r.display_order,
    r.is_closed,
    trim_scale(r.probability) AS probability,
    r.archived,
    r.created_at,
    r.updated_at,
    r.metadata
FROM hubspot_deals.served_chunks c
JOIN hubspot_deals_extraction.pipeline_stages r
    ON r.scan_id = c.scan_id AND r._dlt_load_id = c.load_id AND c.table_name = 'pipeline_stages';

-- One row for each of a completed scan's deal properties.
CREATE VIEW hubspot_deals.deal_properties AS
SELECT c.organization_id, r.scan_id, r.row_no,
    r.name,
    r.label,
    r.type,
    r.field_type,
    r.group_name,
    r.description,
    r.calculated,
    r.hubspot_defined,
    r.options
FROM hubspot_deals.served_chunks c
JOIN hubspot_deals_extraction.deal_properties r
    ON r.scan_id = c.scan_id AND r._dlt_load_id = c.load_id AND c.table_name = 'deal_properties';
