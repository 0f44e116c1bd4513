"""The sandbox in which chat templates run: Jinja's, with bounds on time and size."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from brolly.errors import TemplateError


def render(source: str, values: dict[str, Any]) -> str:
    """Render a template; whatever goes wrong in it is a TemplateError."""
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def fail(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = fail
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source).render(values)
    except jinja2.TemplateError as error:
        raise TemplateError(f"The chat template refuses: {error}") from error
