"""Keys: where they are looked for, where they go, and that nothing shows them."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import re
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.errors import KeyringLocked

from brolly.cli import main
from brolly.commands import keys as command
from brolly.errors import KeyRefused, MissingExtra, OptionError
from brolly.remote import keys, parse
from brolly.remote.keys import Secret, key_of, no_key, origin_of, remove_key, set_key, sources, user_of
from brolly.remote.vendors import vendors

KEY = "sk-test-7Hq2-never-shown"


class Memory(KeyringBackend):
    """A keyring that a test throws away."""

    priority = 1.0
    name = "a test's keyring"

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture(autouse=True)
def no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for vendor in vendors().values():
        for name in (*vendor.keys, *vendor.bases):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    monkeypatch.setattr(keys, "_told", set())
    monkeypatch.setattr(keys, "_failed", [])


@pytest.fixture
def kept() -> Iterator[Memory]:
    before, memory = keyring.get_keyring(), Memory()
    keyring.set_keyring(memory)
    yield memory
    keyring.set_keyring(before)


@pytest.fixture
def nothing() -> Iterator[None]:
    before = keyring.get_keyring()
    keyring.set_keyring(NoKeyring())
    yield
    keyring.set_keyring(before)


# ---- a Secret


@dataclass
class Holder:
    secret: Secret


def test_nothing_shows_a_secret() -> None:
    secret = Secret(KEY, "OPENAI_API_KEY")
    said = [repr(secret), str(secret), f"{secret}", f"{secret!s:>60}", f"{secret!r}", f"{secret} {secret!r}"]
    said += [repr([secret]), repr({"key": secret}), repr(Holder(secret)), str(asdict(Holder(secret)))]
    said += [repr(copy.copy(secret)), repr(copy.deepcopy(secret)), repr(vars(Holder(secret)))]
    stream = io.StringIO()
    logging.getLogger("x").addHandler(handler := logging.StreamHandler(stream))
    logging.getLogger("x").warning("%s %r", secret, secret)
    logging.getLogger("x").removeHandler(handler)
    assert secret.reveal() == KEY
    for text in (*said, stream.getvalue()):
        assert KEY not in text and KEY[-4:] not in text and "OPENAI_API_KEY" in text


@pytest.mark.parametrize(
    "write", [pickle.dumps, json.dumps, lambda s: pickle.dumps({"a": [s]}), lambda s: s.__getstate__(), vars, hash]
)
def test_a_secret_is_written_nowhere(write: object) -> None:
    with pytest.raises(TypeError) as error:
        write(Secret(KEY, "X"))  # type: ignore[operator]
    assert KEY not in str(error.value)


def test_secrets_compare_and_do_not_change() -> None:
    secret = Secret(KEY, "X")
    assert secret == Secret(KEY, "Y") and secret != Secret("other", "X") and secret != KEY
    with pytest.raises(AttributeError) as error:
        secret.source = "elsewhere"  # type: ignore[misc]
    assert KEY not in str(error.value)


# ---- where they are looked for


def test_the_vendors_variables_come_first(monkeypatch: pytest.MonkeyPatch, kept: Memory) -> None:
    kept.set_password("brolly", "gemini", "from-the-ring")
    found = key_of(parse("gemini:g"))
    assert found is not None and (found.reveal(), found.source) == ("from-the-ring", "the keyring")
    monkeypatch.setenv("GOOGLE_API_KEY", "second")
    assert key_of(parse("gemini:g")) == Secret("second", "")
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    assert key_of(parse("gemini:g")) == Secret("first", "")
    monkeypatch.setenv("GEMINI_API_KEY", "")  # set to nothing is not set
    assert key_of(parse("gemini:g")) == Secret("second", "")


def test_a_vendor_may_share_anothers_key(kept: Memory) -> None:
    set_key("openai-responses", KEY)
    assert kept.kept == {("brolly", "openai"): KEY}
    assert key_of(parse("openai-responses:gpt-5")) == key_of(parse("openai:gpt-5")) == Secret(KEY, "")


def test_an_address_gets_its_own_key_alone(monkeypatch: pytest.MonkeyPatch, kept: Memory) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-of-openai")
    set_key("anthropic", "sk-test-of-anthropic")
    target = parse("https://vllm.example:8443/v1#m")
    assert key_of(target) is None
    assert key_of(parse("https://api.openai.com/v1#gpt-5")) is None  # a vendor's host, asked for by address
    set_key("https://VLLM.example:8443/v1#whatever", KEY)
    assert key_of(target) == Secret(KEY, "")
    assert key_of(parse("https://vllm.example/v1#m")) is None  # another port is another origin
    assert key_of(parse("https://vllm.example.evil:8443/v1#m")) is None
    monkeypatch.setenv(keys.VARIABLE, "http://127.0.0.1:1=a https://vllm.example:8443/=b=c")
    assert key_of(target) == Secret("b=c", "") and key_of(parse("http://127.0.0.1:1/v1#m")) == Secret("a", "")


@pytest.mark.parametrize("said", ["sk-test-x", "host=sk-test-x", "ftp://h=sk-test-x", "https://h=sk-test-x sk-test-y"])
def test_a_variable_that_cannot_be_read_is_told_without_it(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(keys.VARIABLE, said)
    with pytest.raises(OptionError, match=keys.VARIABLE) as error:
        key_of(parse("https://h/v1#m"))
    assert "sk-test" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("https://Host.Example/v1", "https://host.example"), ("https://h:443", "https://h"), ("http://h:80/x", "http://h"),
        ("https://h:80", "https://h:80"), ("http://[::1]:8000/v1", "http://[::1]:8000"), ("http://h:443", "http://h:443"),
    ],
)  # fmt: skip
def test_origins_are_those_of_browsers(address: str, origin: str) -> None:
    assert origin_of(address) == origin == origin_of(origin)


@pytest.mark.parametrize("address", ["", "h", "ftp://h", "https://", "https://h:x", "https://h:99999", "https://u:p@h"])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(OptionError) as error:
        origin_of(address)
    assert "u:p" not in str(error.value)


# ---- what is sent


@pytest.mark.parametrize("key", [f" {KEY}", f"{KEY}\n", f"{KEY}\r\n", "a b", "a\nb", "schlüssel", "a\x00b", "k" * 9000])
def test_a_key_that_cannot_be_sent_is_told_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, kept: Memory, key: str
) -> None:
    with pytest.raises(OptionError) as error:
        set_key("openai", key)
    assert not kept.kept and key.strip() not in str(error.value)
    if "\x00" not in key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(OptionError, match="OPENAI_API_KEY") as error:
            key_of(parse("openai:gpt-5"))
        assert key.strip() not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("http://10.0.0.5:8000/v1", True), ("http://vllm.lan/v1", True), ("http://127.0.0.1.evil.example/v1", True),
        ("http://localhost.evil.example/v1", True), ("http://0.0.0.0/v1", True),
        ("http://127.0.0.1:8000/v1", False), ("http://127.9.9.9/v1", False), ("http://localhost:1/v1", False),
        ("http://a.localhost/v1", False), ("http://[::1]/v1", False), ("https://vllm.lan/v1", False),
    ],
)  # fmt: skip
def test_a_key_over_plain_http_is_warned_of_once(monkeypatch: pytest.MonkeyPatch, base: str, told: bool) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        key_of(parse("openai:gpt-5"))  # no key, no warning
        assert not caught
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        for _ in range(3):
            key_of(parse("openai:gpt-5"))
    assert len(caught) == told and KEY not in "".join(str(w.message) for w in caught)


# ---- keyrings


def test_a_key_is_kept_listed_and_removed(kept: Memory) -> None:
    assert set_key("mistral:", KEY) == "a test's keyring"
    set_key("https://h:1/v1", KEY)
    set_key("https://h:2/v1", KEY)
    where = {one.name: one.where for one in sources() if one.where}
    assert where == {"mistral": "the keyring", "https://h:1": "the keyring", "https://h:2": "the keyring"}
    assert KEY not in repr(sources())
    assert remove_key("mistral") and remove_key("https://h:1") and not remove_key("https://h:1")
    assert [one.name for one in sources() if one.where] == ["https://h:2"]


def test_a_machine_without_a_keyring_says_which_variable_to_set(nothing: None) -> None:
    for name, variable in (("anthropic", "ANTHROPIC_API_KEY"), ("https://h/v1", "BROLLY_KEYS=https://h=KEY")):
        with pytest.raises(KeyRefused, match=variable) as error:
            set_key(name, KEY)
        assert KEY not in str(error.value)
    assert key_of(parse("anthropic:c")) is None
    assert "ANTHROPIC_API_KEY" in no_key(parse("anthropic:c")) and "keys set anthropic" in no_key(parse("anthropic:c"))


def test_without_the_package_the_environment_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "keyring", None)
    assert key_of(parse("openai:gpt-5")) is None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert key_of(parse("openai:gpt-5")) == Secret(KEY, "")
    with pytest.raises(MissingExtra, match=r"OPENAI_API_KEY.*brolly\[keys\]"):
        set_key("openai", KEY)


def test_a_keyring_that_fails_is_told_once(kept: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def locked(*_: str) -> str:
        tries.append("")
        raise KeyringLocked("the collection is locked\nand more")

    monkeypatch.setattr(kept, "get_password", locked)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert key_of(parse("openai:gpt-5")) is key_of(parse("openai:gpt-5")) is None
        sources()
    assert len(caught) == 1 and "locked" in str(caught[0].message)
    assert len(tries) == 1  # each may ask its user
    monkeypatch.setattr(keys, "PAUSE", 0.0)
    key_of(parse("openai:gpt-5"))
    assert len(tries) == 2
    with pytest.raises(KeyRefused, match="OPENAI_API_KEY"):
        remove_key("openai")


def test_a_keyring_that_forgets_is_told(kept: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "set_password", lambda *_: None)  # what keyring's null backend does
    with pytest.raises(KeyRefused, match="OPENAI_API_KEY"):
        set_key("openai", KEY)


@pytest.mark.parametrize("said", ["[", '{"a": 1}', "[1, 2]", '["x"' + ", 1" * 9 + "]"])
def test_a_spoilt_list_of_addresses_does_no_harm(kept: Memory, said: str) -> None:
    kept.set_password("brolly", "addresses", said)
    assert all(isinstance(one.name, str) for one in sources())


@pytest.mark.parametrize("name", ["nobody", "", "compatible", "open ai"])
def test_who_is_no_vendor_is_told(name: str) -> None:
    with pytest.raises(OptionError, match="openai"):
        user_of(name)


# ---- the command


def test_keys_come_from_standard_input_and_never_from_the_command_line(
    kept: Memory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "set"])
    assert "required: name; see brolly keys set --help" in capsys.readouterr().err
    assert main(["keys", "set", "openai", KEY]) == 2
    out = capsys.readouterr()
    assert "history" in out.err and KEY not in out.out + out.err and not kept.kept
    monkeypatch.setattr("sys.stdin", io.StringIO(KEY + "\n"))
    assert main(["keys", "set", "openai"]) == 0
    assert kept.kept == {("brolly", "openai"): KEY}
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    monkeypatch.setattr("sys.stdin", io.StringIO(KEY))
    assert main(["keys", "set", "openai"]) == 0 and "OPENAI_API_KEY is set, too" in capsys.readouterr().err
    for bad in ("", "\n", f" {KEY}", f"{KEY}\nmore", "k" * 9000, KEY.encode() + b"\xff"):
        stdin = io.StringIO(bad) if isinstance(bad, str) else io.TextIOWrapper(io.BytesIO(bad), "utf-8")
        monkeypatch.setattr("sys.stdin", stdin)
        assert main(["keys", "set", "groq"]) == 2
        out = capsys.readouterr()
        assert KEY not in out.out + out.err
    assert ("brolly", "groq") not in kept.kept


def test_a_person_types_without_being_shown(kept: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    asked: list[str] = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or KEY)
    assert main(["keys", "set", "https://h/v1"]) == 0
    assert kept.kept["brolly", "https://h"] == KEY and "not shown" in asked[0]


def test_lists_show_places_and_no_keys(
    kept: Memory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_key("anthropic", KEY)
    set_key("https://h/v1", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert main(["keys", "list"]) == 0
    page = capsys.readouterr().out
    assert main(["keys", "list", "--json"]) == 0
    data = json.loads(text := capsys.readouterr().out)
    for said in (page, text):
        assert KEY not in said and KEY[-4:] not in said
        assert all(word in said for word in ("OPENAI_API_KEY", "the keyring", "https://h"))
    assert {row["name"]: row["where"] for row in data if row["where"]} == {
        "openai": "OPENAI_API_KEY", "anthropic": "the keyring", "https://h": "the keyring",
    }  # fmt: skip
    assert main(["keys", "remove", "anthropic"]) == 0 and main(["keys", "remove", "anthropic"]) == 2
    assert "no key of anthropic" in capsys.readouterr().err


def test_testing_tells_which_keys_are_taken(
    monkeypatch: pytest.MonkeyPatch, kept: Memory, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    from tests.remote.fakes.openai import FakeOpenAI

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["keys", "test"]) == 2 and "no key to test" in capsys.readouterr().err
    with FakeOpenAI() as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{fake.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", fake.key)
        assert main(["keys", "test"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("openai  ok") and fake.key not in out
        monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key-of-somebody")
        monkeypatch.setenv("MISTRAL_BASE_URL", "http://127.0.0.1:9/v1")
        monkeypatch.setenv("MISTRAL_API_KEY", "sk-test")
        assert main(["keys", "test", "--json"]) == command.FAILED
        said = capsys.readouterr().out
    assert {row["name"]: row["outcome"] for row in json.loads(said)} == {"openai": "refused", "mistral": "unreachable"}
    assert "sk-wrong" not in said


def test_one_key_that_is_wrong_spoils_no_list(
    kept: Memory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}")
    monkeypatch.setenv("GROQ_API_KEY", "sk-test")
    monkeypatch.setenv(keys.VARIABLE, f"{KEY}")
    assert main(["keys", "list"]) == 0
    out = capsys.readouterr()
    assert (
        re.search("^openai +wrong", out.out, re.MULTILINE)
        and "GROQ_API_KEY" in out.out
        and "OPENAI_API_KEY has a blank" in out.err
    )
    assert keys.VARIABLE in out.err and KEY not in out.out + out.err
    monkeypatch.delenv("GROQ_API_KEY")
    assert main(["keys", "test", "--json"]) == command.FAILED
    out = capsys.readouterr()
    assert {row["outcome"] for row in json.loads(out.out)} == {"failed"} and KEY not in out.out + out.err
    assert main(["keys", "test", "openai", "--json"]) == command.FAILED
    out = capsys.readouterr()
    assert json.loads(out.out)[0]["outcome"] == "failed" and KEY not in out.out + out.err


@pytest.mark.parametrize(
    "said", ["localhost:1234", "ftp://h/v1", "https://", "https://u:p@h/v1", "https://h/v1?k=1", "https://h /v1"]
)
def test_an_address_of_the_environment_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", said)
    with pytest.raises(OptionError, match="OPENAI_BASE_URL") as error:
        parse("openai:gpt-5")
    assert "u:p" not in str(error.value) and "k=1" not in str(error.value)


def test_a_keyring_whose_backend_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: str) -> None:
        raise ModuleNotFoundError("No module named 'no'")

    monkeypatch.setattr(keyring, "set_password", missing)
    with pytest.raises(KeyRefused, match="OPENAI_API_KEY"):
        keys.set_key("openai", "sk-test-0123456789abcdef")
