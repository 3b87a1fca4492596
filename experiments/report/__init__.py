"""The report of a study: one HTML file, its tables as files, and the verdict table for a terminal."""

from experiments.report.files import write_tables
from experiments.report.page import render, write_report
from experiments.report.tables import verdict_table

__all__ = ["render", "verdict_table", "write_report", "write_tables"]
