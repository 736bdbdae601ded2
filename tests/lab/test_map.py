from minillm.lab.map import code_lines, modules, table


def test_modules_come_in_reading_order_with_their_chapter_and_clause():
    found = modules()
    names = [(m.part, m.name) for m in found]
    assert names.index(("lab", "setup")) < names.index(("text", "bpe"))
    bpe = next(m for m in found if m.name == "bpe" and m.part == "text")
    assert bpe.chapter == "01"
    assert bpe.clause
    assert not bpe.clause.endswith(".")


def test_a_planted_library_is_read_without_importing_it(tmp_path):
    part = tmp_path / "minillm" / "text"
    part.mkdir(parents=True)
    (part / "__init__.py").write_text('"""Text."""\n', encoding="utf-8")
    (part / "late.py").write_text('"""Later.\n\nChapter: 09\n"""\n1 / 0\n', encoding="utf-8")
    (part / "early.py").write_text(
        '"""Two\nlines.\n\nMore.\n\nChapter: 01\n"""\n', encoding="utf-8"
    )
    (part / "lost.py").write_text("x = 1\n", encoding="utf-8")
    found = [(m.name, m.chapter, m.clause, m.lines) for m in modules(tmp_path)]
    assert found == [
        ("early", "01", "Two lines", 0), ("late", "09", "Later", 1), ("lost", "?", "", 1),
    ]  # fmt: skip


def test_only_lines_of_code_are_counted():
    source = (
        '"""Doc."""\n\n# why\nx = [\n    1,\n]\n\n\n'
        'def f():\n    """Doc\n    more."""\n    return """\n    text"""\n'
    )
    assert code_lines(source) == 6


def test_the_table_ends_with_the_sum():
    assert table().splitlines()[-1].endswith("lines of code")
