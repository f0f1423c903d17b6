"""Single-dash long options, the way OpenVINO's tools spell them: ``-hint``, ``-niter``."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

__all__ = ["LongFlagCommand"]

_LONG_FLAG = re.compile(r"-[A-Za-z_]{2}")


class LongFlagCommand(TyperCommand):
    """A command that takes ``-data_shape`` for one unknown option, not for ``-d ata_shape``."""

    # Newer typers bring a click of their own, so the context's class has no name that always fits.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse single-dash words that are no option, then parse as usual."""
        known = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        for argument in args:
            name = argument.partition("=")[0]
            if argument == "--":
                break
            if _LONG_FLAG.match(name) and name not in known:
                close = [word for word in sorted(known) if word.startswith(name[:3])]
                hint = f" (there are {', '.join(close)})" if close else ""
                ctx.fail(f"No such option: {name}{hint}")
        return super().parse_args(ctx, args)
