from types import SimpleNamespace

from nbt.report.table import Cell, Column, row, table, table_of
from nbt.report.templating import environment


def render(kind: str, **names: object) -> str:
    source = '{% import "macros.' + kind + '.j2" as m %}{{ m.table(t)' + (" | verbatim" if kind == "md" else "") + " }}"
    return environment(kind).from_string(source).render(**names)


def test_both_formats_have_all_cells() -> None:
    shown = table(
        "Things", ("a|b", Column("n", "n")), [row("x", 1), row(Cell("<y>", ("best",), "why"), 2, chosen=True)]
    )
    html = render("html", t=shown)
    assert '<th scope="col" class="n">n</th>' in html
    assert (
        '<th scope="row">&lt;y&gt; <span class="badge best">best</span><br><span class="remark">why</span></th>' in html
    )
    assert '<tr class="chosen">' in html and '<caption class="hidden">Things</caption>' in html
    lines = [line for line in render("md", t=shown).splitlines() if line]
    assert lines == ["| a\\|b | n |", "| :--- | ---: |", "| x | 1 |", "| **\\<y\\>** (best) (why) | 2 |"]


def test_rows_beyond_a_number_are_folded() -> None:
    items = [SimpleNamespace(name=f"item {i}", size=i) for i in range(5)]
    shown = table_of("Items", items, n_shown=3, name="name", size=Column("size", "n"))
    for kind in ("html", "md"):
        before, _, after = render(kind, t=shown).partition("<summary>2 more</summary>")
        assert "item 2" in before and "item 3" not in before and "item 4" in after
    assert "more" not in render("html", t=table_of("Items", items, name="name"))
