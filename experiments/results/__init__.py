"""A study as found on disk, and anybody's tables."""
