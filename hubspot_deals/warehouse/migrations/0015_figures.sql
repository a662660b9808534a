-- What shows an operator how the service does: figures of runs that are over, signs of life of the
-- parts that nobody can ask, and where a scan was asked for.

-- Sums over all runs that ever ended, for a worker is gone before anybody could ask it. They only
-- grow: nothing that is removed is taken off.
CREATE TABLE hubspot_deals.run_figures (
    name  text NOT NULL,
    label text NOT NULL DEFAULT '',
    value double precision NOT NULL,
    PRIMARY KEY (name, label)
);

-- Written by each part itself, or by whoever can reach it.
CREATE TABLE hubspot_deals.parts (
    name    text PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now(),
    -- Why it does not work; NULL when it does.
    fault   text
);

-- The request that last started the scan, and the trace that it is part of (W3C traceparent).
ALTER TABLE hubspot_deals.scans ADD COLUMN request_id text;
ALTER TABLE hubspot_deals.scans ADD COLUMN trace_parent text;
