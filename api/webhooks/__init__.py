"""Webhooks: tell the URLs that an organization names what becomes of its scans."""
