"""From lake table to target: what a target lacks, staged and merged in its own transaction."""
