"""From a connection id or URL to an adapter; the one registry of adapters."""
