"""Delta tables: the current view of a landing, with every version kept."""
