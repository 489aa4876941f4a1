"""One package a vendor: source and destination behind the ports."""
