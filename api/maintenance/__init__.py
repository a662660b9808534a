"""Maintenance: remove old results, find scans whose workers are gone."""
