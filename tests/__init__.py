"""Tests state promises; their folders are their tiers."""
