"""From an evaluation to a report: means, medians, intervals, Markdown, JSON, figures."""

from unet_lib.report.comparison import Comparison, compare, write_comparison
from unet_lib.report.summary import Summary, summarise
from unet_lib.report.writing import write_report

__all__ = ["Comparison", "Summary", "compare", "summarise", "write_comparison", "write_report"]
