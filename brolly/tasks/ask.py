"""A conversation as a job: the prompt by the model's own template, how the answer is kept in shape and taken apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from brolly.engine.guide import After, guide_for, guide_of_grammar, json_rule
from brolly.engine.job import Guide, Job
from brolly.errors import OptionError
from brolly.media.text import Tokenizer
from brolly.media.text.answers import AnswerFormat, check_tools, chosen_tools, function_of, render_chat
from brolly.verbs import GenerateOptions

Tools = Sequence[Mapping[str, Any]]


def ask(
    tokenizer: Tokenizer, answers: AnswerFormat, messages: Sequence[Mapping[str, Any]], options: GenerateOptions, *,
    tools: Tools, choice: str | Mapping[str, Any], parallel: bool, extra: Mapping[str, Any] | None, vocab_size: int,
    stop_ids: Collection[int], context: int,
) -> Job:  # fmt: skip
    """A job that answers a conversation. Raises ContextTooLong, OptionError, TemplateError, UnsupportedTask."""
    assert tokenizer.template
    if not messages:
        raise OptionError('a conversation has no message; expected at least {"role": "user", "content": …}.')
    given = check_tools(tools)
    chosen_tools(given, choice)
    if choice == "none":
        given = []
    extra = {**effort_words(options.effort), **(extra or {})}
    prompt = render_chat(tokenizer.template, answers, messages, tools=given, extra=extra)

    def guided(grammar: str) -> Callable[[], Guide]:
        return guide_of_grammar(grammar, tokenizer, vocab_size, stop_ids)

    guide = guide_for(options, tokenizer, vocab_size, stop_ids)
    if (called := _calls(answers, given, choice, parallel, prompt, guided)) and guide:
        raise OptionError(
            "a grammar or a JSON Schema, and a tool_choice or a strict function, both say what may be written; leave "
            "one of them out."
        )
    closing = tokenizer.token_id(answers.thoughts[1]) if answers.thoughts else None
    if guide and closing is not None and answers.thoughts and answers.begun(prompt) == answers.thoughts[0]:
        guide = partial(After, guide, closing, stop_ids)
    apart = answers.needs_split(bool(given))
    return Job(
        tokenizer.encode(prompt, special=False, most=context),
        options,
        guide=called or guide,
        split=partial(answers.split, given, parallel=parallel, prompt=prompt[-256:]) if apart else None,
        keep_special=apart and answers.keep_special(bool(given)),
    )


def effort_words(effort: str | None) -> dict[str, Any]:
    """How hard to think, by the names that families' templates read. Raises OptionError at a number of tokens."""
    if effort is None:
        return {}
    if effort.isdecimal():
        raise OptionError(f"effort is {effort} tokens, which a chat template does not count; say none, low, high …")
    return {"reasoning_effort": effort, "enable_thinking": effort != "none", "thinking": effort != "none"}


def _calls(
    answers: AnswerFormat, tools: Tools, choice: str | Mapping[str, Any], parallel: bool, prompt: str,
    guided: Callable[[str], Callable[[], Guide]],
) -> Callable[[], Guide] | None:  # fmt: skip
    """What keeps an answer to calls that must be made, or to the schemas of strict functions.

    A schema that cannot be enforced is an error of a strict function; any JSON object will do for another.
    """
    strict = any(function_of(tool).get("strict") for tool in tools)
    if not tools or (choice == "auto" and not strict):
        return None
    try:
        grammar = answers.grammar(tools, choice, parallel, prompt=prompt, rule=json_rule)
        return guided(grammar) if grammar else None
    except OptionError:
        if strict:
            raise
        grammar = answers.grammar(tools, choice, parallel, prompt=prompt, rule=None)
        return guided(grammar) if grammar else None
