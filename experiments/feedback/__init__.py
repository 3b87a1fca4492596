"""Preferences, reward models, judges against labels, and pass rates."""
