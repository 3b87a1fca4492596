"""Models that are asked for verdicts: one that runs here, or one behind an address."""
