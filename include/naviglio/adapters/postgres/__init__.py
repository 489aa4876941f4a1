"""PostgreSQL: source, destination and the embedded server."""
