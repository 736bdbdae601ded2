"""minillm.bench.offload: three ways to run one model give one text."""

from minillm.bench import offload as bench


def test_all_write_the_same_text_and_two_blocks_are_twice_one(capsys):
    figures = bench.run(quick=True)
    assert list(figures) == ["whole", "read ahead", "no read-ahead"]
    assert all(row["same_text"] and row["ms_a_token"] > 0 for row in figures.values())
    assert figures["whole"]["share"] == 1 and figures["read ahead"]["share"] < 0.25
    two, one = (figures[name]["resident_bytes"] for name in ("read ahead", "no read-ahead"))
    block = (figures["whole"]["resident_bytes"] - (one - (two - one))) / 12
    assert two - one == block
    assert capsys.readouterr().out.count("the same text") == 3
