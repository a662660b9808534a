-- The next free slot of each request budget, shared by all workers that draw on it. Not logged: what
-- a crash of the server forgets is no older than a few seconds.
CREATE UNLOGGED TABLE hubspot_deals.request_paces (
    key     text PRIMARY KEY,
    next_at timestamptz NOT NULL
);
