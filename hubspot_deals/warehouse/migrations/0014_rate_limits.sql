-- How many requests each caller has sent in the window that is open for it, counted by all API
-- processes together. Not logged: what a crash of the server forgets is one window at most.
CREATE UNLOGGED TABLE hubspot_deals.rate_limits (
    key       text PRIMARY KEY,
    used      bigint NOT NULL,
    resets_at timestamptz NOT NULL
) WITH (fillfactor = 50);
