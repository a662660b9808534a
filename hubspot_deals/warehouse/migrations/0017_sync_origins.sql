-- Which request wished for the sync that is due: its run carries the request's id and trace.

ALTER TABLE hubspot_deals.connections
    ADD COLUMN sync_request_id text,
    ADD COLUMN sync_trace_parent text;
