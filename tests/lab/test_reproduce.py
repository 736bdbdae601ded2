import nbformat
import pytest

from minillm.lab.claims import load
from minillm.lab.reproduce import notebook_of, reproduce


def test_a_claim_is_measured_again_in_a_fresh_kernel():
    where, *lines = reproduce("cpm-live-grid")
    assert "labs/00_claims.ipynb" in where
    assert lines == [
        "✔ sizes of the grid within 10 % of 12LD²: 8 (exactly 8)",
        "✔ largest miss on the grid, per cent: 20.8 (between 20 and 21)",
    ]


def test_a_claim_that_rests_on_reading_says_that_there_is_nothing_to_run():
    (claim, *_) = [c for c in load() if notebook_of(c.id) is None]
    with pytest.raises(ValueError, match="no notebook measures it"):
        reproduce(claim.id)


def test_an_unknown_claim_is_told_which_exist():
    with pytest.raises(ValueError, match=r"no claim 'kv'.*kv-cache-576"):
        reproduce("kv")


def test_a_number_that_misses_its_band_here_is_a_sentence(tmp_path, monkeypatch):
    source = (
        "from minillm.lab.expect import expect\n"
        'expect("notes, GiB", 19, equals=18, claim="kv-cache-576")'
    )
    path = tmp_path / "00_planted.ipynb"
    cell = nbformat.v4.new_code_cell(source)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    monkeypatch.setattr("minillm.lab.reproduce.notebook_of", lambda claim_id: path)
    with pytest.raises(ValueError, match=r"stopped on this .*expected exactly 18, measured 19"):
        reproduce("kv-cache-576")


def test_only_the_claims_own_lines_come_of_a_cell_that_settles_several():
    _, *lines = reproduce("gpt4-rumour")
    assert [line.split(":")[0] for line in lines] == [
        "✔ rumoured GPT-4, total, billions",
        "✔ rumoured GPT-4, active if top 2",
    ]
