-- What stands for an access token, so that the runs of one account can be limited.
ALTER TABLE hubspot_deals.credentials ADD COLUMN account text;
