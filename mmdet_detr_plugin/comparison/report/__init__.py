"""The report of a comparison: one HTML file that opens offline, and the same as Markdown, both from results.json and picture files."""

from .write import write_report

__all__ = ['write_report']
