"""Rows to and from PostgreSQL. All SQL of the product lives in this folder."""
