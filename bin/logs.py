"""Where log lines go, and how they look."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

__all__ = ["logger", "setup_logging"]


def setup_logging(level: str) -> None:
    """Log lines go to stderr; standard output is for what was asked for. For people on a terminal, else as JSON."""
    import structlog  # takes as long to load as a short command takes to run: only for who logs

    renderer: Any = structlog.processors.JSONRenderer()
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def logger() -> Any:
    """The program's own."""
    import structlog

    return structlog.get_logger("orlop")
