from dataclasses import replace

from minillm.recipes import recipe, run
from minillm.recipes.shakespeare import RECIPE

SONG = "Full fathom five thy father lies; of his bones are coral made.\n"  # 63 letters


def test_it_is_found_by_its_name():
    assert recipe.find("shakespeare") is RECIPE
    assert RECIPE.name == "shakespeare"


def test_it_means_karpathys_file_whole_and_its_last_tenth_is_held_out():
    data = RECIPE.data
    assert data.url.endswith("/karpathy/char-rnn/master/data/tinyshakespeare/input.txt")
    assert data.sha256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert (data.files, data.ends, data.held_out) == ((), "file", 0.1)


def test_it_reads_bytes_in_the_order_of_the_text(tmp_path):
    (tmp_path / "song.txt").write_text(SONG * 40, encoding="utf-8")
    tokenizer, training, held_out = run.corpus(recipe.reading(RECIPE, tmp_path / "song.txt"))
    n_train = 63 * 36
    assert (tokenizer.vocab_size, RECIPE.model.vocab_size) == (257, 257)
    assert training.stream.tolist() == [256, *(SONG * 36).encode(), 256]
    assert len(held_out.stream) == 63 * 40 - n_train + 2
    # a row lies in one document, so that no mask is needed
    assert training.batch_at(0).context().mask is None


def test_its_model_has_less_than_a_million_numbers_and_starts_silent():
    model = run.begin(replace(RECIPE, seed=1)).model
    assert sum(p.numel() for p in model.parameters()) == 492_768
    assert not model.blocks[0].mixer.output.weight.any()
    assert model.head is not None
