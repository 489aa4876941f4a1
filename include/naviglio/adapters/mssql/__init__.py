"""SQL Server: source and target."""
