# ruff: noqa: E501 - a template stands on its line whole
"""Chat templates: equal to transformers on published ones, and hostile ones are stopped."""

from __future__ import annotations

import re
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import TemplateError
from brolly.media.text import ChatTemplate

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather <b>now</b> & é",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "City"},
                    "unit": {"enum": ["c", "f"], "type": "string"},
                },
                "required": ["city"],
            },
            "return": {"type": "string"},
        },
    }
]
USER = {"role": "user", "content": "Hi  there "}
ASSISTANT = {"role": "assistant", "content": "Hello <you> & é 🦙"}
SYSTEM = {"role": "system", "content": "Be brief."}


def called(content: Any, arguments: Any) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": arguments}
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"id": "abcdefghi", "type": "function", "function": function}],
    }


RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "22"}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "user": [USER],
    "system": [SYSTEM, USER],
    "turns": [SYSTEM, USER, ASSISTANT, USER],
    "two users": [USER, USER],
    "assistant first": [ASSISTANT],
    "tool": [USER, called(None, {"city": "Paris"}), RESULT],
    "tool, text arguments": [SYSTEM, USER, called("", '{"city": "Paris"}'), RESULT, ASSISTANT, USER],
    "thoughts": [USER, {"role": "assistant", "content": "<think>hm</think>4", "reasoning_content": "hm"}, USER],
    "none": [],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
HI = [{"role": "user", "content": "hi"}]


def test_published_templates_equal_transformers(shared: Path) -> None:
    jinja2 = pytest.importorskip("jinja2")
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    paths = sorted((shared / "data" / "templates").glob("*.jinja"))
    assert paths
    for path in paths:
        source = path.read_text()
        mine = ChatTemplate(source, SPECIAL)
        for name, messages in CONVERSATIONS.items():
            for tools, asked, more in [
                (None, True, {}),
                (None, False, {}),
                (TOOLS, True, {}),
                (TOOLS, False, {"documents": [{"title": "T", "text": "x"}]}),
            ]:
                where = f"{path.name}, {name}, {asked}"
                options = {"tools": tools, "add_generation_prompt": asked, **more}
                try:
                    want = utils.render_jinja_template([messages], chat_template=source, **options, **SPECIAL)[0][0]
                except Exception as error:
                    with pytest.raises(TemplateError) as told:
                        mine.render(messages, **options)
                    if isinstance(error, jinja2.TemplateError):
                        assert str(error) in str(told.value), where
                    continue
                assert mine.render(messages, **options) == want, where


def render(source: str, **values: Any) -> str:
    return ChatTemplate(source, SPECIAL).render(HI, **values)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "023"),
        ("{% generation %}a{% set x = 1 %}{% endgeneration %}b", "ab"),
        ("{{ {'é': '<a>'} | tojson }}", '{"é": "<a>"}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true, separators=(',', ':')) }}", '{"a":"\\u00e9","b":1}'),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{% macro f(x) %}[{{ x }}{{ caller() }}]{% endmacro %}{% call f(1) %}in{% endcall %}", "[1in]"),
        ("{{ messages | map(attribute='role') | join(', ') }}{{ messages[0:1] | length }}", "user1"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages[::-1][0].content }}", "1hi"),
        ("{{ 'a,b'.split(',')[-1].strip() }}{{ '%s-%03d' % ('x', 7) }}{{ '{:>3}'.format(1) }}", "bx-007  1"),
        ("{{ bos_token ~ 1 ~ none ~ [1] }}", "<s>1None[1]"),
        ("{% set x %}{{ messages[0].role }}!{% endset %}{{ x | upper | replace('U', 'V') }}", "VSER!"),
        ("{{ tools is none }}{{ documents is defined }}{{ missing is defined }}{{ enable_thinking }}", "TrueTrueFalseFalse"),
        ("{{ dict(a=1).items() | list }}{{ 'abc'[1:] }}{{ (1, 2) }}", "[('a', 1)]bc(1, 2)"),
        ("{{ strftime_now('%Y') | length }}", "4"),
    ],
)  # fmt: skip
def test_what_templates_use_works(source: str, text: str) -> None:
    assert render(source, enable_thinking=False) == text


def test_a_refusal_keeps_the_templates_words() -> None:
    with pytest.raises(TemplateError, match="Only user and model, please"):
        render("{{ raise_exception('Only user and model, please') }}")


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ messages.nothing.here }}", "{{ 1 / 0 }}", "{% include 'x' %}", "{{ 1 + 'a' }}"]
)
def test_a_wrong_template_is_a_template_error(source: str) -> None:
    with pytest.raises(TemplateError, match="The chat template"):
        render(source)


def test_no_template_names_the_ones_there_are() -> None:
    with pytest.raises(TemplateError, match="rag, tool_use"):
        ChatTemplate("", named={"tool_use": "x", "rag": "y"}).render(HI)


def test_messages_must_be_objects_and_are_seen_as_plain_data() -> None:
    class Sly(str):
        def leak(self) -> str:
            return "leaked"

    with pytest.raises(TemplateError, match="expected a list of objects"):
        ChatTemplate("x").render(["hi"])  # type: ignore[list-item]
    sly = [{"role": "user", "content": Sly("hi"), "image": object()}]
    assert (
        ChatTemplate("{{ messages[0].content.leak is defined }}{{ messages[0].image }}").render(sly) == "False<object>"
    )
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TemplateError, match="64 levels"):
        ChatTemplate("x").render([{"role": "user", "content": deep}])


GROW = "{% set ns = namespace(v=START) %}{% for i in range(64) %}{% set ns.v = STEP %}{% endfor %}{{ ns.v }}"


def grown(start: str, step: str) -> str:
    return GROW.replace("START", start).replace("STEP", step)


MANY = "{% for a in range(99999) %}{% for b in range(99999) %}BODY{% endfor %}{% endfor %}"
SLOW = {
    "loops": MANY.replace("BODY", ""),
    "loops that take nothing": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "calls in loops": "{% set c = cycler(1) %}" + MANY.replace("BODY", "{{ c.next() }}"),
    "two macros each": "{% macro f(n) %}{% if n > 0 %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(100) }}",
    "two callers each": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}" + "{% call m() %}" * 60 + "{% endcall %}" * 60,
    "a list searched often": "{% set s = range(99999)|list %}{% for i in range(9999) %}{% if -1 in s %}{% endif %}{% endfor %}",
    "lists sorted often": "{% set s = range(99999)|list %}" + "{% set t = s|sort %}" * 1000,
}  # fmt: skip
BIG = {
    "times": "{{ 'a' * 10**12 }}",
    "list times": "{{ [1] * 10**9 }}",
    "center": "{{ 'a'|center(10**9) }}",
    "center method": "{{ 'a'.center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "range": "{{ range(10**9)|list }}",
    "join": "{{ range(99999)|map('string')|join('a'*100000) }}",
    "join method": "{{ ('a'*100000).join(range(99999)|map('string')|list) }}",
    "doubled by ~": grown("'a'", "ns.v ~ ns.v"),
    "doubled by +": grown("'a'", "ns.v + ns.v"),
    "doubled list": grown("[1]", "ns.v + ns.v"),
    "list twice in a list": grown("[1]", "[ns.v, ns.v]"),
    "tuple twice in a tuple": grown("(1,)", "(ns.v, ns.v)"),
    "dict twice in a dict": grown("{}", "dict(a=ns.v, b=ns.v)"),
    "batches of batches": grown("[1, 2]", "(ns.v + ns.v)|batch(1)|list"),
    "doubled block": "{% set ns = namespace(s='a') %}{% for i in range(64) %}{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}{% endfor %}",
    "format": "{{ '{:1000000000}'.format('a') }}",
    "format by argument": "{{ '{:{}}'.format('a', 10**9) }}",
    "format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "format filter": "{{ '%1000000000d'|format(1) }}",
    "percent": "{{ '%*d' % (10**9, 1) }}",
    "many widths": "{{ ('%9999d'*9000) % ((1,)*9000) }}",
    "replace": "{{ ('a'*100000).replace('a', 'b'*100000) }}",
    "replace filter": "{{ ('a'*100000)|replace('a', 'b'*100000) }}",
    "replace nothing": "{{ ('a'*1000000).replace('', 'b'*1000000) }}",
    "translate": "{{ ('a'*1000000).translate({97: 'b'*1000000}) }}",
    "squares": grown("3", "ns.v * ns.v"),
    "power": "{{ 9**(9**9) }}",
    "round": "{{ 1.5|round(10**9, 'ceil') }}",
    "indent": "{{ ('a\n'*100000)|indent('b'*100000) }}",
    "tojson indent": "{{ [1, [2]]|tojson(indent=10**9) }}",
    "batch": "{{ [1]|batch(10**9, 1)|list }}",
    "slice": "{{ [1]|slice(10**9)|list }}",
    "bytes of a number": "{{ (5).to_bytes(10**9, 'big') }}",
    "sum": "{{ ([[1]*1000]*1000)|sum(start=[]) }}",
    "split": "{{ ('a '*1000000).split() }}",
    "text in a loop": "{% for i in range(99999) %}" + "b" * 100_000 + "{% endfor %}",
    "text captured in a loop": "{% set x %}{% for i in range(99999) %}{% if 1 %}" + "b" * 100_000 + "{% endif %}{% endfor %}{% endset %}",
    "slices": "{% set s = 'a'*1000000 %}" + "".join(f"{{% set b{i} = s[1:] %}}" for i in range(900)),
    "filter block": "{% filter center(10**9) %}a{% endfilter %}",
    "date": "{{ strftime_now('%Y'*1000000) }}",
    "arguments": "{% macro m() %}{{ varargs }}{% endmacro %}{% for i in range(99999) %}{{ m(*range(99999)) }}{% endfor %}",
    "too much Jinja": "{{ " + "a," * 40_000 + " }}",
    "too long": "a" * (1 << 20),
}  # fmt: skip
DEEP = {
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "block": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "ifs": "{% if 1 %}" * 1000 + "{% endif %}" * 1000,
}
FORBIDDEN = {
    "class": "{{ ''.__class__ }}",
    "class, unused": "{{ ''|attr('__class__') }}",
    "class by subscript": "{{ ''['__class__'] }}",
    "mro": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "map": "{{ ['']|map(attribute='__class__')|list }}",
    "format": "{{ '{0.__class__}'.format('a') }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "globals of a class": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "template": "{{ self.__init__.__globals__ }}",
    "context": "{{ self._TemplateReference__context.environment }}",
    "loop": "{% for i in [1] %}{{ loop.__class__ }}{% endfor %}",
    "namespace": "{{ namespace(__class__=1) }}",
    "macro": "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "append": "{{ messages.append(1) }}",
    "encode": "{{ 'a'.encode() }}",
}


@pytest.mark.parametrize("source", [*BIG.values(), *DEEP.values()], ids=[*BIG, *DEEP])
def test_a_template_that_would_fill_the_memory_is_stopped(source: str) -> None:
    compiled = ChatTemplate(source)
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError):
            compiled.render(HI)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("source", SLOW.values(), ids=SLOW)
def test_a_template_that_would_run_for_ever_is_stopped(source: str) -> None:
    with pytest.raises(TemplateError, match="was stopped"):
        render(source)


@pytest.mark.parametrize("source", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_template_that_reaches_for_pythons_insides_is_stopped(source: str) -> None:
    with pytest.raises(TemplateError, match="reaches for what it may not"):
        render(source)


def test_hostile_and_honest_templates_render_beside_each_other_in_threads() -> None:
    found: list[str] = []

    def run() -> None:
        for _ in range(3):
            with pytest.raises(TemplateError):
                render(BIG["doubled by ~"])
            found.append(render("{% for i in range(1000) %}{{ i % 10 }}{% endfor %}"))

    before = threading.active_count()
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["0123456789" * 100] * 12
    assert threading.active_count() == before


def test_a_long_conversation_is_no_attack() -> None:
    source = "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' + m['content'] | trim }}{{ m | tojson }}{% endfor %}"
    messages = [{"role": "user", "content": f"{i} " + "word é " * 1000} for i in range(300)]
    text = ChatTemplate(source).render(messages)
    assert len(text) > 4_000_000
    assert len(re.findall(r"<\|user\|>", text)) == 300


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A stopped template leaves nothing behind for the next one."""
    yield
    assert render("{{ messages[0].content }}") == "hi"
