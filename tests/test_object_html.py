from __future__ import annotations

from nbt.object_html import short_repr, table_html


def test_all_texts_are_escaped() -> None:
    html = table_html("<b>", [("<script>", 1, "a & b")], "<i>")
    assert html.count("<") == html.count(">")
    assert "<script>" not in html and "<b>" not in html and "<i>" not in html
    assert "&lt;script&gt;" in html and "a &amp; b" in html


def test_a_short_repr_names_what_is_left_out() -> None:
    assert short_repr("Task", ["a", "b"]) == "Task(a, b)"
    assert short_repr("Task", []) == "Task()"
    text = short_repr("Task", ["x" * 50] * 20)
    assert len(text) < 300
    assert text.endswith(", and 15 more)")
