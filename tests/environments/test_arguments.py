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


def test_lists_are_made_anew():
    first, second = parse(["x=[1]"])["x"], parse(["x=[1]"])["x"]
    assert first == second
    assert first is not second


@pytest.mark.parametrize("words", [("g=1", "g=1"), ("g=1", "m=2", "g=3")])
def test_name_that_is_given_twice_is_refused(words):
    with pytest.raises(ValueError, match=r"env_args has g twice, but must name each argument once"):
        parse(words)


@pytest.mark.parametrize("word", ["g", "=1", ""])
def test_words_of_another_form_are_refused(word):
    with pytest.raises(ValueError, match=r"env_args has '.*', but must have words of the form NAME=VALUE"):
        parse([word])


def test_text_for_a_boolean_is_refused():
    assert parse(["flag=false"], {"flag": True}) == {"flag": False}
    assert parse(["flag=0"], {"flag": True}) == {"flag": 0}
    for text in ("no", "falsch", "'false'", "''"):
        with pytest.raises(ValueError, match=r"env_args has flag=.*, but must have true or false for flag"):
            parse([f"flag={text}"], {"flag": True})


def test_whole_float_is_an_int_where_the_default_is_one():
    values = parse(["n=1e3", "x=1e3", "m=1.5"], {"n": 1, "x": 1.0, "m": 1})
    assert [(type(value), value) for value in values.values()] == [(int, 1000), (float, 1000.0), (float, 1.5)]


def test_defaults_are_those_of_the_signature():
    assert defaults_of(lambda a, flag=True, *, n=1: None) | {"a": 0} == {"a": 0, "flag": True, "n": 1}
    assert defaults_of(dict) == {}


def test_errors_become_one_line():
    message = r"^env_id is 'x' with env_args g=1, but must be good: KeyError: first$"
    with pytest.raises(ValueError, match=message), refusing("x", ["g=1"], "good"):
        raise KeyError("first\nsecond")
    with (
        pytest.raises(ValueError, match=r"^env_id is 'x', but must be good: OSError: first$"),
        refusing("x", (), "good"),
    ):
        raise OSError("first\nsecond")
