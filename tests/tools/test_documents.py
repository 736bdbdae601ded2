import pytest

from tools import documents
from tools.documents import BLOCKS, PAGES, ROOT, current, out_of_date, with_block


def test_this_checkout_is_up_to_date():
    assert out_of_date(ROOT) == []


def test_a_table_is_put_between_its_marks_and_nowhere_else():
    readme = "before\n<!-- parts -->\nold\n<!-- /parts -->\nafter\n"
    new = with_block(readme, "parts", "new\n")
    assert new == "before\n<!-- parts -->\nnew\n<!-- /parts -->\nafter\n"
    assert current(new, "parts") == "new\n"
    with pytest.raises(ValueError, match="<!-- claims -->"):
        with_block(readme, "claims", "new\n")


def test_the_library_page_lists_modules_by_part_with_links(tmp_path):
    part = tmp_path / "minillm" / "text"
    part.mkdir(parents=True)
    (part / "__init__.py").write_text('"""Text. More.\n\nEven more."""\n', encoding="utf-8")
    (part / "bpe.py").write_text('"""Learn merges. All.\n\nChapter: 01\n"""\n', encoding="utf-8")
    (tmp_path / "minillm" / "cli.py").write_text(
        '"""Words.\n\nChapter: app\n"""\n', encoding="utf-8"
    )
    page = documents.library_page(tmp_path)
    assert "## text/\n\nText\n\n" in page
    assert "| [bpe](../minillm/text/bpe.py) | 01 | Learn merges |\n" in page
    assert page.endswith("| [cli](../minillm/cli.py) | app | Words |\n")
    assert documents.part_table(tmp_path).endswith("| `text/` | Text |\n")


def test_the_pages_tell_of_every_claim_and_term():
    page = documents.claims_page()
    assert page.count("\n- Id: `") == len(documents.claims.load())
    assert page.index("`kv-cache-576`") < page.index("`moe-4-7x`")
    rows = documents.glossary_page().splitlines()
    terms = [row.split(" | ")[0][2:] for row in rows if row.startswith("| ")][1:]
    assert terms == sorted(terms, key=str.lower)
    assert len(terms) == len(documents.glossary.load())


def test_the_verdicts_that_are_counted_are_all_there_are():
    counts = [int(line.split()[1]) for line in documents.count_of_verdicts()]
    assert sum(counts) == len(documents.claims.load())


def test_readme_lists_finished_chapters_and_three_of_those_to_come():
    table = documents.chapter_table()
    assert "| 01 | [Tokenizers](course/01_tokenizer.ipynb) |" in table
    coming = [chapter for chapter in documents.syllabus() if not chapter.finished]
    assert f"and {len(coming) - 3} more up to {coming[-1].number}" in table.splitlines()[-1]


def test_old_pages_and_tables_are_found_and_then_written(tmp_path):
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "glossary.toml").write_text("", encoding="utf-8")
    (tmp_path / "minillm").mkdir()
    marks = "".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\n" for name in BLOCKS)
    (tmp_path / "README.md").write_text(marks, encoding="utf-8")
    found = out_of_date(tmp_path)
    assert found[0] == "course/LIBRARY.md is missing"
    assert "README.md <!-- chapters --> is out of date" in found[len(PAGES)]
    documents.write(tmp_path)
    assert out_of_date(tmp_path) == []
