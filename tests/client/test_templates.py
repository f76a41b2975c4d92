from __future__ import annotations

from typing import Any

import pytest

from marketplace.client import templates
from marketplace.protocol.errors import BadRequest

VALUES: dict[str, Any] = {
    "text": "a cat",
    "many": ["a", "b"],
    "step": {"label": "good", "scores": [{"label": "good"}]},
    "n": 3,
    "a.b": "whole",
    "Full Name": "Ada",
}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("Say {text}!", "Say a cat!"),
        ("{many}", ["a", "b"]),
        ("{n}", 3),
        ("{n} times", "3 times"),
        ("Texts:\n{many}", "Texts:\na\nb"),
        ("{step.label}", "good"),
        ("of {step.scores}", 'of [{"label": "good"}]'),
        ("{a.b}", "whole"),
        ("{Full Name}", "Ada"),
        ("{{text}}", "{text}"),
        (["{text}", {"x": "{n}"}, 5], ["a cat", {"x": 3}, 5]),
        ("", ""),
    ],
)
def test_names_are_filled_in(template: Any, filled: Any) -> None:
    assert templates.fill(template, VALUES) == filled


@pytest.mark.parametrize(
    "template", ["{", "}", "{text!r}", "{text:>9}", "{}", "{text.}", "{many[0]}", '{"a": 1}']
)
def test_what_is_no_template_is_refused_with_the_remedy(template: str) -> None:
    with pytest.raises(BadRequest, match="cannot be filled in") as caught:
        templates.fill(template, VALUES)
    assert "{{" in str(caught.value.values["hint"])


@pytest.mark.parametrize("name", ["none", "text.more", "step.none"])
def test_name_that_stands_for_nothing_is_named(name: str) -> None:
    with pytest.raises(templates.Missing) as caught:
        templates.fill(f"x {{{name}}}", VALUES)
    assert caught.value.name == name


def test_every_name_is_found() -> None:
    assert list(templates.names(["{a} {b.c}", {"x": ("{d}", 1)}])) == ["a", "b.c", "d"]
