"""The verb-first paths: the same scans in the words of the family's generic scan interface."""
