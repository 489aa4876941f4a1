"""From the lake into staging, then one merge a target, in one transaction with its ledger."""
