-- Scans that have ended and are started anew under their id, beside the result that they serve.

-- When it was last started anew.
ALTER TABLE hubspot_deals.scans ADD COLUMN restarted_at timestamptz;

-- Requests that a later start of their scan took the place of: each still gets its first answer.
CREATE TABLE hubspot_deals.earlier_requests (
    organization_id text NOT NULL,
    idempotency_key text NOT NULL,
    scan_id         text NOT NULL REFERENCES hubspot_deals.scans ON DELETE CASCADE,
    request_hash    text NOT NULL,
    accepted_at     timestamptz NOT NULL,
    PRIMARY KEY (organization_id, idempotency_key)
);
CREATE INDEX earlier_requests_by_scan ON hubspot_deals.earlier_requests (scan_id);

-- A result is served until another one takes its place, whatever becomes of the next attempt.
CREATE OR REPLACE VIEW hubspot_deals.served_chunks AS
SELECT s.scan_id, s.organization_id, c.table_name, c.load_id
FROM hubspot_deals.scans s
JOIN hubspot_deals.scan_chunks c ON c.scan_id = s.scan_id AND c.generation = s.generation
WHERE s.generation > 0 AND s.results_removed_at IS NULL;
