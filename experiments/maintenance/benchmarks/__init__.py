"""Measurements, as ratios within one run on the same work; never part of the tests."""
