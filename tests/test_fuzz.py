"""Damaged inputs, the same in every run; `make fuzz` (FUZZ=20000) gives others."""

import os

import fuzzing
import pytest


@pytest.fixture(scope="module")
def parsers(tmp_path_factory):
    return fuzzing.parsers(tmp_path_factory.mktemp("fuzz"))


MANY = int(os.environ.get("FUZZ", "2200"))


@pytest.mark.parametrize("count", [300, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", fuzzing.SHARES)
def test_damaged_input_gives_a_documented_error(parsers, name, count):
    same = "FUZZ" not in os.environ
    fuzzing.run(name, parsers[name], int(count * fuzzing.SHARES[name]), derandomize=same)


def test_an_undocumented_error_or_a_slow_parser_fails(parsers, monkeypatch):
    """The harness itself: what it has to catch, it catches."""
    strategy, _, documented = parsers["split"]

    def wrong(content):
        raise KeyError("undocumented")

    with pytest.raises(KeyError):
        fuzzing.run("split", (strategy, wrong, documented), 5, derandomize=True)
    monkeypatch.setattr(fuzzing, "SECONDS", -1.0)
    with pytest.raises(AssertionError, match=r"\d s"):
        fuzzing.run("split", (strategy, len, documented), 5, derandomize=True)
