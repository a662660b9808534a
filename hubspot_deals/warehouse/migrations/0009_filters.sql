-- What result pages are filtered and sorted by, without touching the rows themselves: one narrow
-- entry a row, in the order in which rows arrive, so that it hardly costs anything while loading.
-- An entry holds 2,704 bytes at most. Rows whose texts are longer than any id have the second
-- index, which is empty as a rule, rather than fail their load.
CREATE INDEX deals_to_filter ON hubspot_deals_extraction.deals (scan_id, row_no)
    INCLUDE (_dlt_load_id, dealstage, pipeline, hubspot_owner_id, archived, amount, closedate,
        createdate, hs_lastmodifieddate)
    WHERE coalesce(octet_length(dealstage), 0) + coalesce(octet_length(pipeline), 0)
        + coalesce(octet_length(hubspot_owner_id), 0) + octet_length(_dlt_load_id) <= 1000;

CREATE INDEX deals_too_long_to_filter ON hubspot_deals_extraction.deals (scan_id, row_no)
    WHERE NOT coalesce(octet_length(dealstage), 0) + coalesce(octet_length(pipeline), 0)
        + coalesce(octet_length(hubspot_owner_id), 0) + octet_length(_dlt_load_id) <= 1000;
