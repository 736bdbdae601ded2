from minillm.lab.project import syllabus
from minillm.lab.tour import STRETCHES, draw_course


def test_every_chapter_has_its_tile_once():
    covered = [c.number for _, a, b in STRETCHES for c in syllabus() if a <= c.number <= b]
    assert covered == [c.number for c in syllabus()]


def test_the_figure_lists_the_chapters_in_words(capsys):
    draw_course()
    out = capsys.readouterr().out
    assert "00 Count before you believe; 01 Tokenizers" in out
    assert "30 A town of agents" in out
