"""The `hubspot-deals` command: the embedded stack, and a client of the REST API."""
