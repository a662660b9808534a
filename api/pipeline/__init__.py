"""What the dlt pipeline behind the service is and whether it can work."""
