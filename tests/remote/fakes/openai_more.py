"""OpenAI's other routes, from the parameters of its own SDK: embeddings, images, audio, models, files, fine-tuning.

`More().answer(request)` is the reply, or None of a route that is not here; `FakeMore` is a server of these alone.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import struct
import wave
from collections.abc import Callable
from typing import Any

from openai.types import EmbeddingCreateParams, FileCreateParams, ImageEditParams, ImageGenerateParams
from openai.types.audio import SpeechCreateParams, TranscriptionCreateParams, TranslationCreateParams
from openai.types.fine_tuning import JobCreateParams

from tests.remote.fakes.server import Fake, Reply, Request
from tests.remote.fakes.typed import complaint

KEY = "sk-test-openai-more"
NOW = 1_795_000_000
MODELS = ("gpt-6", "text-embedding-3-small", "gpt-image-2", "whisper-1", "gpt-4o-mini-tts")
NUMBERS = ("n", "output_compression", "temperature")  # of forms, where all is text
HYPERPARAMETERS = ("batch_size", "learning_rate_multiplier", "n_epochs")
# a sound's segments, and the words of each
HEARD = ((0.0, 1.5, "The quick brown fox."), (1.5, 3.0, "It jumps."))
SOUNDS = {
    "mp3": b"ID3\x04\x00\x00", "opus": b"OggS\x00\x02", "aac": b"\xff\xf1\x50\x80", "flac": b"fLaC\x00\x00",
    "pcm": b"\x00\x01\x00\x02",
}  # fmt: skip


def refused(status: int, message: str, code: str | None = None, param: str | None = None) -> Reply:
    """OpenAI's envelope of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return Reply(status, {"x-request-id": "req_0123456789abcdef"}, {"error": error})


def checked(kind: Any, given: dict[str, Any]) -> Reply | None:
    """What the vendor says of parameters that it does not take."""
    if why := complaint(kind, given):
        param = why.partition(":")[0]
        if "Extra inputs" in why:
            return refused(400, f"Unknown parameter: '{param}'.", "unknown_parameter", param)
        return refused(400, f"Invalid value for {why}.", "invalid_value", param)
    if given.get("model") == "missing":
        return refused(404, "The model `missing` does not exist or you do not have access to it.", "model_not_found")
    return None


def form(request: Request) -> dict[str, Any]:
    """The fields of a form as parameters: names that end in [] are lists, files are their bytes."""
    found: dict[str, Any] = {}
    for part in request.parts:
        value: Any = part.data if part.filename is not None else part.data.decode()
        if part.name in NUMBERS:
            value = json.loads(value)
        if part.name.endswith("[]"):
            found.setdefault(part.name[:-2], []).append(value)
        else:
            found[part.name] = value
    return found


def picture(prompt: str, size: str, format: str, at: int) -> bytes:
    """A picture of one colour, by the prompt."""
    from PIL import Image

    width, _, height = size.partition("x")
    colour = tuple(hashlib.sha256(f"{prompt} {at}".encode()).digest()[:3])
    made = io.BytesIO()
    Image.new("RGB", (int(width), int(height)), colour).save(made, format.upper())
    return made.getvalue()


def vector(text: str, dim: int) -> list[float]:
    """A text's vector, of length 1."""
    numbers = [b - 127.5 for b in hashlib.shake_256(text.encode()).digest(dim)]
    length = sum(x * x for x in numbers) ** 0.5
    return [x / length for x in numbers]


class More:
    """The routes, the files that were uploaded, and the jobs that run: each step of one is a look at its events."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.told: dict[str, list[dict[str, Any]]] = {}
        self.steps = 4  # of a job; None of its looks shows more than two

    def answer(self, request: Request) -> Reply | None:
        path = request.path.removeprefix("/v1")
        for method, pattern, route in ROUTES:
            if method == request.method and (match := re.fullmatch(pattern, path)):
                return route(self, request, *match.groups())
        return None

    def embeddings(self, request: Request) -> Reply:
        body = request.json
        if (no := checked(EmbeddingCreateParams, body)) is not None:
            return no
        inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not inputs or len(inputs) > 2048 or "" in inputs:
            return refused(400, "'$.input' is invalid. Please check the API reference.", None, None)
        if any("toolong" in text for text in inputs):
            message = "This model's maximum context length is 8192 tokens, however you requested 9000 tokens."
            return refused(400, message)
        if "dimensions" in body and body["model"] == "text-embedding-ada-002":
            return refused(400, "This model does not support specifying dimensions.")
        found = []
        for at, text in enumerate(inputs):
            numbers: Any = vector(text, body.get("dimensions", 8))
            if body.get("encoding_format") == "base64":
                numbers = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
            found.append({"object": "embedding", "index": at, "embedding": numbers})
        n = sum(len(text.split()) for text in inputs)
        usage = {"prompt_tokens": n, "total_tokens": n}
        return Reply(body={"object": "list", "data": found, "model": body["model"], "usage": usage})

    def draw(self, request: Request) -> Reply:
        return self._drawn(request.json, ImageGenerateParams, 0)

    def edit(self, request: Request) -> Reply:
        body = form(request)
        n = len(body["image"]) if isinstance(body.get("image"), list) else 1
        return self._drawn(body, ImageEditParams, n)

    def _drawn(self, body: dict[str, Any], kind: Any, given: int) -> Reply:
        if (no := checked(kind, body)) is not None:
            return no
        if "response_format" in body:
            return refused(400, "Unknown parameter: 'response_format'.", "unknown_parameter", "response_format")
        if "forbidden" in body["prompt"]:
            return refused(400, "Your request was rejected by the safety system.", "moderation_blocked")
        n, format = int(body.get("n") or 1), body.get("output_format") or "png"
        size = body.get("size") if "x" in str(body.get("size")) else "64x64"
        rows = [
            {"b64_json": base64.b64encode(picture(f"{body['prompt']} {given}", size, format, at)).decode()}
            for at in range(n)
        ]
        read = len(body["prompt"].split()) + 100 * given
        details = {"text_tokens": read - 100 * given, "image_tokens": 100 * given}
        usage = {
            "input_tokens": read, "output_tokens": 200 * n, "total_tokens": read + 200 * n,
            "input_tokens_details": details,
        }  # fmt: skip
        return Reply(body={
            "created": NOW, "data": rows, "background": "opaque", "output_format": format, "quality": "low",
            "size": size, "usage": usage,
        })  # fmt: skip

    def transcribe(self, request: Request) -> Reply:
        return self._heard(form(request), TranscriptionCreateParams, "transcribe")

    def translate(self, request: Request) -> Reply:
        return self._heard(form(request), TranslationCreateParams, "translate")

    def _heard(self, body: dict[str, Any], kind: Any, task: str) -> Reply:
        if (no := checked(kind, body)) is not None:
            return no
        if not isinstance(body["file"], bytes) or not body["file"]:
            return refused(400, "Invalid file format.", None, "file")
        model, format = body["model"], body.get("response_format", "json")
        timed = model == "whisper-1"
        if task == "translate" and not timed:
            return refused(400, f"Translation is not supported by {model}.", "unsupported_model")
        if format not in (("json", "text", "srt", "verbose_json", "vtt") if timed else ("json", "text")):
            message = f"response_format '{format}' is not compatible with model '{model}'."
            return refused(400, message, "unsupported_value", "response_format")
        if "keywords" in body and model != "gpt-transcribe":
            return refused(400, f"keywords is not supported with {model}.", "unsupported_value", "keywords")
        text = " ".join(row[2] for row in HEARD)
        duration = HEARD[-1][1]
        if not timed:
            usage = {"type": "tokens", "input_tokens": 30, "output_tokens": 8, "total_tokens": 38}
            named = {"languages": [{"code": "en"}]} if model == "gpt-transcribe" else {}
            return Reply(body={"text": text, "usage": usage, **named})
        seconds = {"type": "duration", "seconds": duration}
        if format == "json":
            return Reply(body={"text": text, "usage": seconds})
        asked = body.get("timestamp_granularities") or ["segment"]
        answer: dict[str, Any] = {"task": task, "language": "english", "duration": duration, "text": text}
        if "segment" in asked:
            answer["segments"] = [
                {
                    "id": at, "seek": 0, "start": start, "end": end, "text": f" {said}", "tokens": [50364, 440],
                    "temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 1.1, "no_speech_prob": 0.01,
                }
                for at, (start, end, said) in enumerate(HEARD)
            ]  # fmt: skip
        if "word" in asked:
            answer["words"] = [
                {"word": word.strip("."), "start": start + at * step, "end": start + (at + 1) * step}
                for start, end, said in HEARD
                for step in [(end - start) / len(said.split())]
                for at, word in enumerate(said.split())
            ]
        return Reply(body=answer | {"usage": seconds} if task == "transcribe" else answer)

    def speak(self, request: Request) -> Reply:
        body = request.json
        if (no := checked(SpeechCreateParams, body)) is not None:
            return no
        if len(body["input"]) > 4096:
            return refused(
                400, "string too long. Expected a string with maximum length 4096.", "string_above_max_length"
            )
        format = body.get("response_format", "mp3")
        sound = SOUNDS.get(format, b"") + body["input"].encode()
        if format == "wav":
            made = io.BytesIO()
            with wave.open(made, "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(24_000)
                file.writeframes(b"\x00\x01" * 100)
            sound = made.getvalue()
        return Reply(headers={"content-type": f"audio/{'mpeg' if format == 'mp3' else format}"}, body=sound)

    def models(self, request: Request) -> Reply:
        rows = [{"id": id, "object": "model", "created": NOW, "owned_by": "openai"} for id in MODELS]
        return Reply(body={"object": "list", "data": rows})

    def upload(self, request: Request) -> Reply:
        body = form(request)
        if (no := checked(FileCreateParams, body)) is not None:
            return no
        id = f"file-{len(self.files):024d}"
        self.files[id] = body["file"]
        name = next(part.filename for part in request.parts if part.name == "file")
        return Reply(body={
            "id": id, "object": "file", "bytes": len(body["file"]), "created_at": NOW, "filename": name,
            "purpose": body["purpose"], "status": "processed",
        })  # fmt: skip

    def tune(self, request: Request) -> Reply:
        body = request.json
        if (no := checked(JobCreateParams, body)) is not None:
            return no
        for field in ("training_file", "validation_file"):
            if field in body and body[field] not in self.files:
                return refused(400, f"invalid {field}: {body[field]}", "invalid_file", field)
        method = body.get("method", {"type": "supervised"})
        given = method.get(method["type"], {}).get("hyperparameters", {})
        id = f"ftjob-{len(self.jobs):08d}"
        self.jobs[id] = {
            "object": "fine_tuning.job", "id": id, "model": body["model"], "created_at": NOW, "finished_at": None,
            "fine_tuned_model": None, "organization_id": "org-test", "result_files": [], "status": "validating_files",
            "validation_file": body.get("validation_file"), "training_file": body["training_file"],
            "hyperparameters": {name: given.get(name, "auto") for name in HYPERPARAMETERS}, "trained_tokens": None,
            "error": None, "seed": body.get("seed", 42), "estimated_finish": None, "integrations": [],
            "method": {"type": method["type"], method["type"]: {"hyperparameters": given}}, "metadata": None,
            "user_provided_suffix": body.get("suffix"),
        }  # fmt: skip
        self.told[id] = []
        self._say(id, f"Created fine-tuning job: {id}")
        try:
            rows = [json.loads(line) for line in self.files[body["training_file"]].splitlines()]
            wanted = {"input", "preferred_output", "non_preferred_output"} if method["type"] == "dpo" else {"messages"}
            assert all(wanted <= row.keys() for row in rows)
        except (ValueError, AssertionError):
            message = "The job failed due to an invalid training file. Invalid file format."
            self._end(id, "failed", {"code": "invalid_training_file", "message": message, "param": "training_file"})
        return Reply(body=self.jobs[id])

    def job(self, request: Request, id: str) -> Reply:
        return Reply(body=self.jobs[id]) if id in self.jobs else _no_job(id)

    def events(self, request: Request, id: str) -> Reply:
        """The newest first, 20 a page; looking lets the job go on by two steps."""
        if id not in self.jobs:
            return _no_job(id)
        job, told = self.jobs[id], self.told[id]
        rows = list(reversed(told))
        if (after := request.query.get("after")) is not None:
            rows = rows[next(i for i, row in enumerate(rows) if row["id"] == after) + 1 :]
        elif job["status"] in ("validating_files", "running"):
            job["status"] = "running"
            done = sum(row["type"] == "metrics" for row in told)
            for step in range(done + 1, min(done + 2, self.steps) + 1):
                loss = round(2 / step, 4)
                data = {"step": step, "total_steps": self.steps, "train_loss": loss, "train_mean_token_accuracy": 0.5}
                self._say(id, f"Step {step}/{self.steps}: training loss={loss}", data=data)
            if done + 2 >= self.steps:
                job["fine_tuned_model"] = f"ft:{job['model']}:org-test:{job['user_provided_suffix'] or ''}:abc123"
                self._end(id, "succeeded", None)
            rows = list(reversed(told))
        limit = int(request.query.get("limit", 20))
        return Reply(body={"object": "list", "data": rows[:limit], "has_more": len(rows) > limit})

    def cancel(self, request: Request, id: str) -> Reply:
        if id not in self.jobs:
            return _no_job(id)
        if self.jobs[id]["status"] in ("succeeded", "failed", "cancelled"):
            return refused(400, f"Job has already {self.jobs[id]['status']}.")
        self._end(id, "cancelled", None)
        return Reply(body=self.jobs[id])

    def _say(self, id: str, message: str, level: str = "info", data: dict[str, Any] | None = None) -> None:
        rows = self.told[id]
        rows.append({
            "object": "fine_tuning.job.event", "id": f"ftevent-{id}-{len(rows)}", "created_at": NOW + len(rows),
            "level": level, "message": message, "data": data or {}, "type": "metrics" if data else "message",
        })  # fmt: skip

    def _end(self, id: str, status: str, error: dict[str, Any] | None) -> None:
        self.jobs[id] |= {"status": status, "error": error, "finished_at": NOW + 100}
        message = (
            error["message"]
            if error
            else f"The job has {'successfully completed' if status == 'succeeded' else status}"
        )
        self._say(id, message, "error" if error else "info")


def _no_job(id: str) -> Reply:
    return refused(404, f"Could not find fine tune: {id}", "fine_tune_not_found", "fine_tune_id")


JOB = "/fine_tuning/jobs/([^/]+)"
# method, the path behind /v1, and who answers it
ROUTES: tuple[tuple[str, str, Callable[..., Reply]], ...] = (
    ("POST", "/embeddings", More.embeddings),
    ("POST", "/images/generations", More.draw),
    ("POST", "/images/edits", More.edit),
    ("POST", "/audio/transcriptions", More.transcribe),
    ("POST", "/audio/translations", More.translate),
    ("POST", "/audio/speech", More.speak),
    ("GET", "/models", More.models),
    ("POST", "/files", More.upload),
    ("POST", "/fine_tuning/jobs", More.tune),
    ("GET", JOB, More.job),
    ("GET", f"{JOB}/events", More.events),
    ("POST", f"{JOB}/cancel", More.cancel),
)


class FakeMore(Fake):
    """A server of these routes alone, for one key."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.more = More()

    def answer(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return refused(
                401, "Incorrect API key provided: sk-t***. You can find your API key at …", "invalid_api_key"
            )
        return self.more.answer(request) or super().answer(request)
