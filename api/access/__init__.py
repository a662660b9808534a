"""Who may call what, and the log of who did."""
