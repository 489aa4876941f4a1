"""Named, versioned contracts by which other systems ask for work."""
