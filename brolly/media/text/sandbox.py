"""The sandbox in which chat templates run: Jinja's own, where every step and every value is counted.

Jinja's sandbox keeps a template from Python's insides, but not from looping for ever or filling the memory. Here the
syntax tree is rewritten so that loops, macros, comparisons and new lists report to a Budget; operators, methods and
filters are asked before they run. All in the caller's thread: nothing is left over when a template is stopped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from brolly.errors import TemplateError
from brolly.media.text.budget import Budget, Forbidden, Refusal, Spent, check_method, spend_from, spending
from brolly.media.text.counted import (
    Dict,
    Hook,
    asked,
    check_name,
    concat,
    counted,
    finalize,
    refuse,
    strftime_now,
    tojson,
)

MAX_SOURCE = 128 << 10  # characters; published templates have up to 30 000
MAX_WORDS = 12_000  # of Jinja; published templates have up to 3 000


@functools.lru_cache(maxsize=1)
def environment() -> Any:
    """Jinja's environment with the counting in it; Jinja is imported here, when the first template is rendered."""
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
    from jinja2.utils import Namespace
    from jinja2.visitor import NodeTransformer

    class _Names(Namespace):
        """namespace(): no underscores, and a repr that does not grow with what it holds."""

        def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: N805 - a template may say namespace(self=...)
            for name in dict(*args[1:], **kwargs):
                check_name(name)
            Namespace.__init__(*args, **kwargs)

        def __setitem__(self, name: str, value: Any) -> None:
            check_name(name)
            super().__setitem__(name, value)

        def __repr__(self) -> str:
            return "<Namespace>"

    class _Generation(Extension):
        """{% generation %}: what the assistant wrote, between the marks of who renders; mostly they are empty."""

        tags = {"generation"}

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope([self._mark("hook_open", line), *body, self._mark("hook_close", line)], lineno=line)

        def _mark(self, hook: str, line: int) -> nodes.Node:
            call = nodes.Call(nodes.EnvironmentAttribute(hook), [], [], None, None)
            return nodes.Output([call.set_lineno(line)]).set_lineno(line).set_environment(self.environment)

    class _Formatter(SandboxedFormatter):
        def format_field(self, value: Any, format_spec: str) -> str:
            spending().spec(format_spec)
            spending().spend(6 * spending().weigh(value))
            return super().format_field(value, format_spec)

    class _Counted(NodeTransformer):
        """Puts the hooks in: a tick where a body begins, a weighing where a value is made."""

        def __init__(self, environment: _Sandbox) -> None:
            self._environment = environment

        def _call(self, hook: str, *args: Any) -> nodes.Expr:
            line = args[0].lineno or 1
            call = nodes.Call(nodes.EnvironmentAttribute(hook), list(args), [], None, None)
            return call.set_environment(self._environment).set_lineno(line)  # type: ignore[return-value]

        def _body(self, body: list[nodes.Node], line: int) -> list[nodes.Node]:
            parts = [part for node in body if isinstance(node, nodes.Output) for part in node.nodes]
            size = sum(len(part.data) for part in parts if isinstance(part, nodes.TemplateData))
            tick = nodes.ExprStmt(self._call("hook_tick", nodes.Const(size).set_lineno(line)))
            return [tick.set_environment(self._environment).set_lineno(line), *body]

        def _block(self, node: Any) -> nodes.Node:
            self.generic_visit(node)
            node.body = self._body(node.body, node.lineno)
            return node

        visit_Macro = visit_CallBlock = visit_Block = visit_FilterBlock = visit_AssignBlock = visit_Scope = _block

        def visit_For(self, node: nodes.For) -> nodes.Node:
            self._block(node)
            if node.test is not None:
                node.test = self._call("hook_pass", node.test)
            return node

        def visit_If(self, node: nodes.If) -> nodes.Node:
            self._block(node)
            if node.else_:
                node.else_ = self._body(node.else_, node.lineno)
            return node

        def _made(self, node: Any) -> nodes.Node:
            self.generic_visit(node)
            return node if getattr(node, "ctx", "load") != "load" else self._call("hook_made", node)

        visit_List = visit_Dict = visit_Tuple = _made

        def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
            self.generic_visit(node)
            return self._call("hook_made", node) if isinstance(node.arg, nodes.Slice) else node

        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
            self.generic_visit(node)
            return self._call("hook_concat", *node.nodes)

        def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
            self.generic_visit(node)
            node.expr = self._call("hook_pass", node.expr)
            return node

        def visit_Test(self, node: nodes.Test) -> nodes.Node:
            # `is defined` looks at the name itself
            self.generic_visit(node)
            if node.name not in ("defined", "undefined"):
                node.node = self._call("hook_pass", node.node)
            return node

    class _Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("+", "*", "**", "%"))

        def __init__(self) -> None:
            super().__init__(
                trim_blocks=True,
                lstrip_blocks=True,
                extensions=[loopcontrols, _Generation],
                finalize=finalize,
                cache_size=0,
            )
            self.filters = {name: asked(name, filter) for name, filter in self.filters.items()} | {"tojson": tojson}
            self.globals = {
                "range": self.globals["range"],
                "cycler": self.globals["cycler"],
                "joiner": self.globals["joiner"],
                "dict": Dict(),
                "namespace": _Names,
                "raise_exception": refuse,
                "strftime_now": strftime_now,
            }
            self.hook_tick = Hook(lambda size: spending().tick(size))
            self.hook_pass = Hook(counted)
            self.hook_made = Hook(lambda value: spending().made(value))
            self.hook_concat = Hook(concat)
            self.hook_open = Hook(lambda: spending().marks[0])
            self.hook_close = Hook(lambda: spending().marks[1])

        def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
            tree = super()._parse(source, name, filename)
            return _Counted(self).visit(tree)

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
            if type(__obj) is Hook:
                return __obj.run(*args)
            budget = spending()
            budget.tick()
            own = {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars", "caller")}
            check_method(budget, __obj, args, own)
            return budget.made(super().call(__context, __obj, *args, **kwargs))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            budget = spending()
            budget.tick()
            {"+": budget.plus, "*": budget.times, "**": budget.power, "%": budget.percent}[operator](left, right)
            return budget.made(super().call_binop(context, operator, left, right))

        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            # Jinja would let it pass as undefined until it is used
            raise Forbidden(f"{attribute} of a {type(obj).__name__}")

        def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
            if super().wrap_str_format(value) is None:
                return None
            text, by_map = str(value.__self__), value.__name__ == "format_map"

            def run(*args: Any, **kwargs: Any) -> str:
                return _Formatter(self).vformat(text, () if by_map else args, args[0] if by_map else kwargs)

            return run

    return _Sandbox()


def plain(value: Any, depth: int = 0) -> Any:
    """A value as plain JSON types: a template sees no object with methods of its own."""
    if depth > 64:
        raise TemplateError("The conversation is nested more than 64 levels deep; expected messages and JSON schemas.")
    if value is None or type(value) in (str, int, float, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else kind(value)
    if isinstance(value, Mapping):
        return {plain(k, depth + 1): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, depth + 1) for v in value]
    return f"<{type(value).__name__}>"


def compile_template(source: str) -> Any:
    """A template ready to render; one that is not Jinja is a TemplateError."""
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"The chat template has {len(source):,} characters; brolly reads up to {MAX_SOURCE:,}.")

    def compiled() -> Any:
        words = sum(1 for _, kind, _ in environment().lex(source) if kind != "whitespace")
        if words > MAX_WORDS:
            raise Spent(f"it has {words:,} words of Jinja, and brolly reads up to {MAX_WORDS:,}")
        return environment().from_string(source)

    return _guarded(Budget(), compiled)


def render(template: Any, values: dict[str, Any], marks: tuple[str, str] = ("", "")) -> str:
    """The template's text, with `marks` around what it says the assistant wrote; what goes wrong is a TemplateError."""
    values = {k: plain(v) for k, v in values.items()}
    # the size of what was handed in is no fault of the template
    budget = Budget(len(repr(values)))
    budget.marks = marks
    return _guarded(budget, lambda: template.render(values))


def _guarded(budget: Budget, run: Callable[[], Any]) -> Any:
    from jinja2 import TemplateSyntaxError
    from jinja2.exceptions import SecurityError

    try:
        with spend_from(budget):
            return run()
    except Refusal as error:
        raise TemplateError(f"The chat template refuses this conversation: {error}") from error
    except Spent as error:
        raise TemplateError(f"The chat template was stopped: {error}.") from error
    except (Forbidden, SecurityError) as error:
        raise TemplateError(f"The chat template reaches for what it may not: {error}.") from error
    except TemplateSyntaxError as error:
        raise TemplateError(f"The chat template is not Jinja, line {error.lineno}: {error.message}") from error
    except Exception as error:
        raise TemplateError(f"The chat template failed: {type(error).__name__}: {error}") from error
