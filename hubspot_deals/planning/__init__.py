"""Says what a scan would take before it is run, in a process of its own."""
