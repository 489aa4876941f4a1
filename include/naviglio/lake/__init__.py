"""Delta tables: the current view of a landing, with every version kept."""

import os

# delta-rs brings an allocator of its own, which reads this when deltalake is imported and otherwise
# keeps freed memory for ten seconds: a MERGE of 500,000 into 6 million rows holds 60 MB less.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")
