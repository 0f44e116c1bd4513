"""How hard it thinks and how much it writes → `thinking`, `output_config.effort`, `max_tokens`, by a model's traits.

traits.thinking   an effort word                    a number of tokens         none
adaptive          effort, and adaptive thinking     left out, with a hint      thinking disabled, or the least effort
effort            effort alone                      left out, with a hint      thinking disabled, or the least effort
budget            a budget of tokens by BUDGETS     that budget                nothing: it thinks if it is asked to
"" (unknown)      as adaptive                       as budget                  thinking disabled
none              left out, with a hint
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from brolly.remote.ask import Ask, Message
from brolly.remote.dialects.anthropic.turns import FAMILY, FIRST
from brolly.remote.target import Target
from brolly.remote.traits import EFFORTS, nearest, traits_of

MOST = 16_000  # tokens of an answer, thoughts among them, where nobody says max_tokens and the model can write so many
LEAST = 1024  # tokens of thinking, below which the API takes no budget
BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 49152}
WORDS = ("low", "medium", "high", "xhigh", "max")  # of output_config.effort


class Plan(NamedTuple):
    """`thinking` and `effort` as they are sent, None where they are not."""

    max_tokens: int
    thinking: dict[str, Any] | None = None
    effort: str | None = None
    lacks: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def planned(ask: Ask, target: Target) -> Plan:
    """What is asked of the model's thinking, and what of it has no word there."""
    options, traits = ask.options, traits_of(target)
    plan = Plan(options.max_tokens or min(traits.max_output or MOST, MOST))
    effort, kind = options.effort, "none" if "effort" in traits.lacks else traits.thinking
    if effort is None and not options.thoughts:
        return plan
    if effort is not None and effort not in EFFORTS and not effort.isdecimal():
        wanted = f"{', '.join(EFFORTS)} or a number of tokens"
        return plan._replace(lacks=(f"{target} has no effort {effort!r:.30} (expected {wanted})",))
    if kind == "none":
        return plan._replace(hints=() if effort == "none" else (f"{target} does not think and has no effort",))
    number = int(effort) if effort is not None and effort.isdecimal() else None
    if effort == "none" or number == 0:
        return _without(plan, kind, traits.efforts, target)
    if kind == "budget" or (number is not None and not kind):
        plan = _budget(plan, ask, target, number)
    else:
        plan = _adaptive(plan, ask, target, number)
    if plan.thinking is None:
        return plan
    if options.thoughts and kind != "budget":  # those tell them by themselves
        plan = plan._replace(thinking={**plan.thinking, "display": "summarized"})
    return plan._replace(lacks=plan.lacks + tuple(_at_odds(ask, target)))


def _without(plan: Plan, kind: str, efforts: tuple[str, ...], target: Target) -> Plan:
    if kind == "budget":
        return plan
    if efforts and "none" not in efforts:
        word = nearest("none", efforts)
        return plan._replace(effort=word, hints=(f"{target} always thinks and has no effort 'none' ({word} is sent)",))
    return plan._replace(thinking={"type": "disabled"})


def _adaptive(plan: Plan, ask: Ask, target: Target, number: int | None) -> Plan:
    traits, effort = traits_of(target), ask.options.effort
    word, hints = effort, plan.hints
    known = [w for w in traits.efforts if w in WORDS] or list(WORDS)
    if number is not None:
        word, hints = None, (f"{target} takes no number of tokens to think with (say {', '.join(known)})",)
    elif effort is not None and effort not in known:
        word = nearest(effort, known)
        hints = (f"{target} has no effort {effort!r} ({word} is sent in its place)",)
    adaptive = traits.thinking in ("", "adaptive") and (word or ask.options.thoughts)
    wanted = adaptive or ask.options.thoughts
    return plan._replace(thinking={"type": "adaptive"} if wanted else None, effort=word, hints=hints)


def _budget(plan: Plan, ask: Ask, target: Target, number: int | None) -> Plan:
    """A budget of tokens within max_tokens, which makes room for it where nobody said it."""
    options, traits = ask.options, traits_of(target)
    effort = options.effort if options.effort in traits.efforts and options.effort in WORDS else None
    most = options.max_tokens or traits.max_output
    if _forced(ask):
        return plan._replace(hints=(f"{target} cannot think when a tool is forced, so it has no effort here",))
    if _interrupted(ask.messages):
        missing = f"{target} cannot think on after a call whose thoughts are not given back, so it has no effort here"
        return plan._replace(hints=(missing,))
    if number is not None:
        if number < LEAST:
            return plan._replace(lacks=(f"{target} thinks with {LEAST} tokens or more, not {number}",))
        if most is not None and number >= most:
            return plan._replace(lacks=(f"{target} writes {most} tokens at most, thoughts among them, not {number}",))
        budget = number
    else:
        budget = BUDGETS[options.effort or "medium"]
        budget = budget if most is None else min(budget, max(most - most // 4, LEAST))
        if most is not None and budget >= most:
            hint = f"{target} thinks with {LEAST} tokens or more, and max_tokens has no room for them and its effort"
            return plan._replace(hints=(hint,))
    top = options.max_tokens or min(traits.max_output or budget + MOST, budget + MOST)
    return plan._replace(max_tokens=top, thinking={"type": "enabled", "budget_tokens": budget}, effort=effort)


def _forced(ask: Ask) -> bool:
    return bool(ask.tools) and ask.choice not in ("auto", "none")


def _interrupted(messages: tuple[Message, ...]) -> bool:
    """Whether the answer goes on after tools' results, and the turn that called them has no thoughts with it."""
    rest = [message for message in messages if message["role"] not in FIRST]
    last = next((at for at in range(len(rest) - 1, -1, -1) if rest[at]["role"] == "user"), -1)
    said = [message for message in rest[last + 1 :] if message["role"] == "assistant"]
    return bool(said) and not _thoughts(said[0])


def _thoughts(message: Message) -> bool:
    return any(isinstance(row, Mapping) and row.get("vendor") == FAMILY for row in message.get("opaque") or ())


def _at_odds(ask: Ask, target: Target) -> list[str]:
    """What the API refuses beside thinking."""
    options = ask.options
    yours = ["assistant's unfinished message"] if ask.messages[-1]["role"] == "assistant" else []
    yours += ["temperature"] if options.temperature not in (None, 1) else []
    yours += ["top_k"] if options.top_k else []
    yours += ["top_p below 0.95"] if options.top_p is not None and options.top_p < 0.95 else []
    return [f"{target} takes no {one} where it thinks" for one in yours]
