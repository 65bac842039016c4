"""Tests what words NAME=VALUE stand for, and which are refused."""

import pytest

from ddpg_jax.environments.arguments import defaults_of, parse, refusing


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("NONE", None), ("null", None),
        ("1", 1), ("-2", -2), ("1e-3", 0.001), (".5", 0.5), ("[1,2]", [1, 2]), ("(1, 2)", (1, 2)),
        ("[true, null]", [True, None]), ("{'a': 1}", {"a": 1}), ("'true'", "true"),
        ("mjx", "mjx"), ("a=b", "a=b"), ("", ""), ("[1,", "[1,"), ("2**3", "2**3"),
    ],
)  # fmt: skip
def test_words_stand_for_what_they_look_like(text, value):
    (found,) = parse([f"name={text}"]).values()
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["g=1", "m=2", "g=1"], "env_args has 'g=1', but must have each argument once, as NAME=VALUE"),
        (["g"], "env_args has 'g', but must have each argument once"),
        (["=1"], "env_args has '=1', but must"),
        (["flag=no"], "env_args has flag=no, but must have true or false for flag"),
        (["flag='false'"], "but must have true or false for flag"),
    ],
)
def test_words_that_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse(words, {"flag": True})


def test_values_fit_the_defaults_of_the_signature():
    defaults = defaults_of(lambda a, flag=True, *, n=1, m=1, x=1.0: None)
    values = parse(["n=1e3", "x=1e3", "m=1.5", "flag=false", "a=1e3"], defaults)
    assert list(map(repr, values.values())) == ["1000", "1000.0", "1.5", "False", "1000.0"]
    assert defaults_of(dict) == {}  # written in C


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["g=1"], KeyError("first\nsecond"), r"^env_id is 'x' with env_args g=1, but must be good: KeyError: first$"),
        ((), OSError("first\nsecond"), r"^env_id is 'x', but must be good: OSError: first$"),
        ((), OSError(), r"^env_id is 'x', but must be good: OSError$"),
    ],
)
def test_errors_become_one_line(words, error, message):
    with pytest.raises(ValueError, match=message), refusing("x", words, "good"):
        raise error
