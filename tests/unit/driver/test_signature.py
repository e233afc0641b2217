"""Whether one signature accepts every call that another one allows."""

import inspect
import itertools
from inspect import Parameter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.driver.signature import Signature, incompatibilities


def of(function):
    return Signature(list(inspect.signature(function).parameters.values()))


@pytest.mark.parametrize(
    "offered",
    [
        lambda lamp, on: 0,
        lambda lamp, on=True: 0,
        lambda lamp, on, extra=1: 0,
        lambda lamp, on, *more: 0,
        lambda lamp, on, *, extra=1: 0,
        lambda *args, **kwargs: 0,
        lambda lamp, *args, **kwargs: 0,
    ],
)
def test_what_accepts_every_call_fits(offered):
    assert incompatibilities(of(lambda lamp, on: 0), of(offered)) == []


@pytest.mark.parametrize(
    ("wanted", "offered", "said"),
    [
        (lambda a, b: 0, lambda a: 0, "it does not accept `b`"),
        (lambda a, b: 0, lambda b, a: 0, "`b` is at the position of `a`"),
        (lambda a, b: 0, lambda a, c: 0, "`c` is at the position of `b`"),
        (lambda a, b: 0, lambda a, b, c: 0, "it requires `c`, which callers do not pass"),
        (lambda a, b: 0, lambda a, b, *, c: 0, "it requires `c`, which callers do not pass"),
        (lambda a, b: 0, lambda a, *, b: 0, "it does not accept `b` as a positional argument"),
        (lambda a: 0, lambda a, /: 0, "it does not accept `a` as a keyword argument"),
        (lambda a=1: 0, lambda a: 0, "`a` needs a default"),
        (lambda *, k: 0, lambda: 0, "it does not accept `k` as a keyword-only argument"),
        (lambda *, k=1: 0, lambda *, k: 0, "`k` needs a default"),
        (lambda *args: 0, lambda: 0, "it does not accept `*args`"),
        (lambda **kwargs: 0, lambda: 0, "it does not accept `**kwargs`"),
        (lambda a: 0, lambda *args: 0, "it does not accept `a`"),
        (lambda b, /, a: 0, lambda a, *args, **kwargs: 0, "it does not accept `a` at its position"),
        (lambda a, *, b: 0, lambda a, b, /, **kwargs: 0, "it requires `b`, which callers do not pass"),
        (lambda a: 0, lambda **kwargs: 0, "it does not accept `a`"),
    ],
)
def test_each_misfit_is_said(wanted, offered, said):
    assert said in incompatibilities(of(wanted), of(offered))


def test_positional_only_names_do_not_matter():
    assert incompatibilities(of(lambda a, b, /: 0), of(lambda x, y: 0)) == []
    assert incompatibilities(of(lambda a, b, /: 0), of(lambda *args: 0)) == []


def test_a_keyword_may_be_taken_by_position_as_well():
    assert incompatibilities(of(lambda a, *, k: 0), of(lambda a, k: 0)) == []


class Body:
    def plain(self, a): ...

    @classmethod
    def of_class(cls, a): ...

    @staticmethod
    def free(a): ...


@pytest.mark.parametrize("name", ["plain", "of_class", "free"])
def test_self_and_cls_are_not_seen_by_callers(name):
    assert str(Signature.from_method(inspect.getattr_static(Body, name))) == "(a)"


def test_annotations_are_left_out_of_the_text():
    def method(self, a: int, *, b: str = "x") -> None: ...

    assert str(Signature.from_method(method)) == "(a, *, b='x')"


KINDS = [
    Parameter.POSITIONAL_ONLY,
    Parameter.POSITIONAL_OR_KEYWORD,
    Parameter.VAR_POSITIONAL,
    Parameter.KEYWORD_ONLY,
    Parameter.VAR_KEYWORD,
]


@st.composite
def parameters(draw):
    names = draw(st.permutations("abc"))[: draw(st.integers(0, 3))]
    kinds = sorted(draw(st.lists(st.sampled_from([KINDS[0], KINDS[1], KINDS[3]]), min_size=len(names), max_size=3)))
    made, defaulted = [], False
    for name, kind in zip(names, kinds, strict=False):
        default = draw(st.booleans()) or (defaulted and kind is not Parameter.KEYWORD_ONLY)
        defaulted = defaulted or (default and kind is not Parameter.KEYWORD_ONLY)
        made.append(Parameter(name, kind, default=1 if default else Parameter.empty))
    if draw(st.booleans()):
        made.append(Parameter("args", Parameter.VAR_POSITIONAL))
    if draw(st.booleans()):
        made.append(Parameter("kwargs", Parameter.VAR_KEYWORD))
    return sorted(made, key=lambda parameter: parameter.kind)


def accepts(function, count, names):
    try:
        function(*range(count), **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def made(listed):
    """A real function: `inspect`'s own binding is wrong for positional-only names beside `**kwargs`."""
    space = {}
    exec(f"def function{inspect.Signature(listed)}: pass", space)
    return space["function"]


@given(parameters(), parameters())
def test_without_a_misfit_every_call_that_is_allowed_is_accepted(wanted, offered):
    if incompatibilities(Signature(wanted), Signature(offered)):
        return
    known = [p.name for p in wanted if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for count in range(5):
        for size in range(len(known) + 1):
            for names in itertools.combinations([*known, "d"], size):
                if accepts(made(wanted), count, names):
                    assert accepts(made(offered), count, names), (count, names)


@given(parameters())
def test_a_signature_fits_itself(listed):
    assert incompatibilities(Signature(listed), Signature(listed)) == []
