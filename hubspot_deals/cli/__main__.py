"""Runs the command as `python -m hubspot_deals.cli`."""

from hubspot_deals.cli.main import main

main()
