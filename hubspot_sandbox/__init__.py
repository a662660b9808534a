"""A faithful HubSpot CRM API on localhost, so that the extractor meets HubSpot's real habits."""
