"""The embedded stack of `make demo` and `make up`: PostgreSQL from a wheel and a supervisor."""
