"""Results of other trainers, from tables of scores."""
