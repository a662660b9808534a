-- What was read, kept apart from what was stored, so that one can be held against the other.

-- SHA-256 of the chunk's keys as they were read: sorted by bytes, each followed by a line break.
ALTER TABLE hubspot_deals.scan_chunks ADD COLUMN key_hash text;
-- The ids of its deals, as a Roaring bitmap of 64 bits: they name what is gone.
ALTER TABLE hubspot_deals.scan_chunks ADD COLUMN ids bytea;

-- What a scan completed with, as it was proved then.
CREATE TABLE hubspot_deals.certificates (
    scan_id    text NOT NULL REFERENCES hubspot_deals.scans ON DELETE CASCADE,
    generation integer NOT NULL,
    document   jsonb NOT NULL,
    PRIMARY KEY (scan_id, generation)
);
