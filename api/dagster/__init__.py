"""The only code that speaks GraphQL to Dagster."""
