"""The report: one HTML file, readable offline, that says what changed, in which layer, and how sure."""

from store.report.page import keep_report, live_page, write_report

__all__ = ["keep_report", "live_page", "write_report"]
