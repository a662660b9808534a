"""Plans of scans and checks of tokens: what HubSpot would say, before anything runs."""
