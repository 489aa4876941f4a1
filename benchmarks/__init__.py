"""Speed and memory of the real line against the best that the same server can do."""
