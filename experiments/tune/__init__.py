"""Equal tuning: every arm's learning rate, on seeds and questions that the comparison never sees."""
