"""Diffs: what changed between two completed scans of one organization."""
