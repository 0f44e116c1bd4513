"""Verbs as data: options, their ranges and defaults, results, and the errors that travel to every surface."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields
from typing import Any, get_type_hints

import pytest

from brolly import errors
from brolly.errors import OptionError
from brolly.families import families
from brolly.model import Model, Options
from brolly.verbs import TASKS, GenerateOptions, Generation, Piece, Score, TranscribeOptions, Usage

RANGED = [f for f in fields(GenerateOptions) if f.metadata["low"] is not None]


@pytest.mark.parametrize("option", RANGED, ids=lambda f: f.name)
def test_the_ends_of_a_range_belong_to_it(option: Any) -> None:
    low, high = option.metadata["low"], option.metadata["high"]
    for value in (low, high):
        if value is not None:
            assert getattr(GenerateOptions(**{option.name: value}), option.name) == value
    for value in (low - 1, None if high is None else high + 1):
        if value is not None:
            with pytest.raises(OptionError, match=f"{option.name} is {value}"):
                GenerateOptions(**{option.name: value})


@pytest.mark.parametrize("value", ["1", True, float("nan"), [1], b"1", 1j], ids=repr)
@pytest.mark.parametrize("option", RANGED, ids=lambda f: f.name)
def test_what_is_no_number_is_told(option: Any, value: object) -> None:
    with pytest.raises(OptionError, match=option.name):
        GenerateOptions(**{option.name: value})


def test_every_option_explains_itself_and_has_a_default() -> None:
    for option in fields(GenerateOptions):
        assert len(option.metadata["help"]) > 10
    assert GenerateOptions() == GenerateOptions()


@pytest.mark.parametrize(
    ("given", "kept"), [("end", ("end",)), (["a", "b"], ("a", "b")), ((), ()), (None, ()), (("a",), ("a",))]
)
def test_stop_is_one_text_or_several(given: Any, kept: tuple[str, ...]) -> None:
    assert GenerateOptions(stop=given).stop == kept


@pytest.mark.parametrize("given", ["", [""], ["a", ""]], ids=repr)
def test_an_empty_stop_is_told(given: Any) -> None:
    with pytest.raises(OptionError, match="empty string"):
        GenerateOptions(stop=given)


def test_options_cannot_change_under_way() -> None:
    with pytest.raises(FrozenInstanceError):
        GenerateOptions().temperature = 1.0  # type: ignore[misc]


def test_keyword_arguments_of_model_are_the_options() -> None:
    assert list(get_type_hints(Options)) == [f.name for f in fields(GenerateOptions)]


def test_results_read_as_their_text() -> None:
    assert str(Generation("abc", [1], "stop", Usage(2, 1))) == str(Piece("abc")) == "abc"
    assert Usage(2, 3).total_tokens == 5
    assert Score([1, 2, 3], ["a", "b", "c"], [None, -1.0, -0.5]).total == -1.5


def test_every_verb_is_a_method_and_every_family_keeps_to_verbs() -> None:
    for name in TASKS:
        assert callable(getattr(Model, name))
    for family in families():
        assert family.tasks and set(family.tasks) <= set(TASKS), family.name


def test_every_error_is_drawn_and_derives_from_the_root() -> None:
    drawn = (errors.__doc__ or "").split("\n\n")[1]
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if k.__module__ == errors.__name__]
    assert len(kinds) > 10
    for kind in kinds:
        assert issubclass(kind, errors.BrollyError)
        line = next(line for line in drawn.splitlines() if f" {kind.__name__} " in f" {line.strip()} ")
        depth = len(kind.__mro__) - len(errors.BrollyError.__mro__)
        assert (line.index(kind.__name__) - 4) // 4 == depth, f"{kind.__name__} is drawn in another place"


@pytest.mark.parametrize(
    ("name", "value"), [("max_tokens", 2.5), ("top_k", 2.5), ("seed", "x"), ("logprobs", 1.5), ("logit_bias", [1])]
)
def test_a_model_refuses_options_of_the_wrong_kind(model: Model, name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        model.options(**{name: value})


def test_a_model_takes_null_for_unset(model: Model) -> None:
    assert model.options(**dict.fromkeys(Options.__annotations__)) == model.options()


def test_transcribing_side_by_side_cannot_move_the_next_window() -> None:
    TranscribeOptions(batch_size=8)
    TranscribeOptions(hallucination_silence_threshold=2.0)
    with pytest.raises(OptionError, match="leave one of them out"):
        TranscribeOptions(batch_size=8, hallucination_silence_threshold=2.0)
