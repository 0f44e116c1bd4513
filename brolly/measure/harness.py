"""Our models offered to lm-evaluation-harness, whose tasks, few-shot prompts and measures are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brolly.engine.engine import write_all
from brolly.errors import BrollyError, MissingExtra, OptionError
from brolly.measure.likelihood import Likelihood, Part
from brolly.measure.report import columns, number
from brolly.verbs import gather

MAX_TOKENS = 256  # written where a task does not tell, as the harness has it
MAX_STOPS = 256


def offered(model: Any, options: Mapping[str, Any] | None = None) -> Any:
    """A model as an `lm_eval.api.model.LM`. Raises MissingExtra, UnsupportedTask."""
    if hasattr(model, "target"):
        model.score()  # which no vendor tells, and it says so
    try:
        from lm_eval.api.model import TemplateLM
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    except ImportError:
        raise MissingExtra("speaking lm-evaluation-harness", "harness") from None
    likelihood, given = Likelihood(model), dict(options or {})

    def fitting(before: Sequence[int], after: Sequence[int]) -> Part:
        """What does not fit is cut from the left, as the harness has it."""
        ids = [*before, *after][-likelihood.context :]
        return Part(ids, max(1, len(ids) - len(after)))

    class Offered(TemplateLM):
        """Scores and writes by a brolly Model."""

        tokenizer_name = str(model.card.header.path)

        @property
        def eot_token_id(self) -> int:
            return int(model.tokenizer.eos_id if model.tokenizer.eos_id is not None else min(model.stop_ids))

        @property
        def prefix_token_id(self) -> int:
            return int(likelihood.start[0] if likelihood.start else self.eot_token_id)

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            if add_special_tokens is False:
                found: list[int] = model.tokenizer.encode(string, special=False)
                return found
            return list(model.prompt_ids(string, None))

        def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            told = likelihood.told([fitting(before, after) for _, before, after in requests])
            return [(one.logprob, one.greedy) for one in told]

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            out = []
            for request in requests:
                windows = get_rolling_token_windows(
                    self.tok_encode(request.args[0]), self.prefix_token_id, likelihood.context - 1, 1
                )
                told = likelihood.told([fitting(*make_disjoint_window(pair)) for pair in windows])
                out.append(sum(one.logprob for one in told))
            return out

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            jobs = [self._job(*request.args) for request in requests]
            return [gather(pieces, False).text for pieces in write_all(model.engine, jobs)]

        def _job(self, context: str, asked: Mapping[str, Any]) -> Any:
            most = int(asked.get("max_gen_toks") or asked.get("max_tokens") or given.get("max_tokens") or MAX_TOKENS)
            most = min(most, likelihood.context - 1)
            until = asked.get("until") or ()
            stop = [until] if isinstance(until, str) else list(until)
            sampled = {key: asked[key] for key in ("temperature", "top_p", "top_k") if key in asked}
            if not asked.get("do_sample"):
                sampled = {"temperature": 0.0}
            ids = self.tok_encode(context)[-(likelihood.context - most) :] or [self.prefix_token_id]
            how = {"repetition_penalty": 1.0, **sampled, **given, "max_tokens": most}
            return model.prepare(ids, stop=[one for one in stop if one][:MAX_STOPS], **how)

        def apply_chat_template(self, chat_history: Sequence[Any], add_generation_prompt: bool = True) -> str:
            return str(model.tokenizer.prompt(chat_history, add_generation_prompt=add_generation_prompt))

        def chat_template(self, chat_template: bool | str = False) -> str:
            template = model.tokenizer.template
            return template.source if chat_template and template else ""

    return Offered()


def run_tasks(
    model: Any, names: Sequence[str], *, limit: int | None = None, options: Mapping[str, Any] | None = None,
    chat: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The harness's results, by task: names that it knows, or YAML files of its own kind, which may name Python.

    `chat` puts prompts into the model's chat template. Raises MissingExtra, OptionError, BrollyError.
    """
    lm = offered(model, options)
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    own = [Path(name) for name in names if name.endswith((".yaml", ".yml"))]
    if missing := [path for path in own if not path.is_file()]:
        raise OptionError(f"there is no task file {str(missing[0])!r:.200}.")
    folders = sorted({str(path.parent) for path in own})
    manager = TaskManager(include_path=folders or None, include_defaults=len(own) < len(names))
    tasks = [_name_of(Path(name)) if Path(name) in own else name for name in names]
    known = set(manager.all_tasks)
    if unknown := [name for name in tasks if name not in known and "*" not in name]:
        raise OptionError(f"lm-evaluation-harness knows no task {unknown[0]!r:.80}; it has {len(known):,}.")
    try:
        found = simple_evaluate(
            lm, tasks=list(tasks), limit=limit, task_manager=manager, apply_chat_template=chat, log_samples=False
        )
    except (ConnectionError, FileNotFoundError) as error:
        raise BrollyError(f"the harness cannot have the data of its tasks ({str(error)[:200]}).") from None
    return {key: found[key] for key in ("results", "versions", "n-samples", "n-shot") if found and key in found}


def _name_of(path: Path) -> str:
    """What a task file calls its task."""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("task:"):
            return line.partition(":")[2].strip().strip("'\"")
    raise OptionError(f"{path} names no task; expected a line like task: mine.")


def told(found: Mapping[str, Any]) -> str:
    """The harness's results as a table; its ± is one standard error."""
    rows = [("task", "measure", "filter", "value", "± one standard error")]
    for task, measures in sorted(found.get("results", {}).items()):
        for key, value in measures.items():
            name, _, kind = key.partition(",")
            if isinstance(value, float) and not name.endswith("_stderr"):
                error = measures.get(f"{name}_stderr,{kind}")
                rows.append((task, name, kind, number(value), number(error) if isinstance(error, float) else ""))
    return "\n".join(["", *columns(rows), ""])
