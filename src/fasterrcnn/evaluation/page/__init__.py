"""A report as one page that needs nothing but a browser: no network, no file beside it."""

from fasterrcnn.evaluation.page.write import write_page

__all__ = ["write_page"]
