"""The command line as a person meets it."""

import io
import json
import math
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest

from minillm.cli import main
from minillm.zoo.checkpoints import prompt_ids

COMMANDS = [
    "map", "glossary", "doctor", "check", "hint", "solution", "progress", "start", "claims",
    "reproduce", "train", "tokenize", "sample", "chat", "serve", "quantize", "export", "bench",
]  # fmt: skip


@pytest.fixture
def minillm(tmp_path, monkeypatch, capsys):
    """Run the command line in this process, with a learner's folder of its own."""
    monkeypatch.setenv("MINILLM_MY", str(tmp_path / "my"))
    monkeypatch.delenv("MINILLM_BUILD", raising=False)

    def run(*words, stdin=b""):
        monkeypatch.setattr("sys.argv", ["minillm", *words])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        return SimpleNamespace(returncode=status, **capsys.readouterr()._asdict())

    return run


def test_it_runs_as_a_program_of_its_own():
    command = [sys.executable, "-m", "minillm", "check", "9.9"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stderr.startswith("minillm: there is no task '9.9'")


def test_help_names_every_command_with_a_sentence(minillm):
    text = minillm("--help").out
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    for command in COMMANDS:
        assert command in lines, command
        assert len(lines[command].split()) > 3, command
        assert lines[command].endswith("."), f"{command}: cut off"


def test_every_option_of_every_command_is_explained():
    from typer.main import get_command

    from minillm.cli import app

    def walk(command, name):
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name}"
        for child_name, child in getattr(command, "commands", {}).items():
            walk(child, f"{name} {child_name}")

    walk(get_command(app), "minillm")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["check", "9.9"], "0.1, 0.2"),
        (["check", "77"], "00, 01"),
        (["check", "30"], "chapter 30 has no tasks yet"),
        (["hint", "one"], "0.1, 0.2"),
        (["hint", "0.1", "--level", "7"], "levels 1, 2 and 3"),
        (["solution", "1.99"], "1.1, 1.2"),
        (["start", "--at", "1.77"], "1.1, 1.2"),
        (["claims", "nonsense"], "kv-cache-576"),
        (["claims", "nonsense", "--json"], "kv-cache-576"),
        (["reproduce", "nonsense"], "kv-cache-576"),
        (["bench", "nonsense"], "bpe"),
        (["bench", "bpe", "--text", "a.txt"], "--text is not for `minillm bench bpe`, which"),
        (["bench", "train", "--quick", "--text", "no/such/file.txt"], "no/such/file.txt"),
        (["bench", "bpe", "--quick", "--record", "."], "--record must name a file"),
        (["train", "tokenizer", "no/such/file.txt"], "no/such/file.txt"),
        (["tokenize", "a", "--tokenizer", "no/such/folder"], "minillm train tokenizer"),
        (["sample", "a", "--model", "no/such/folder"], "no config.json in no/such/folder"),
        (["sample", "a"], "--model"),
        (["sample", "a", "--model", ".", "--top-p", "0"], "top_p must be above 0"),
        (["sample", "a", "--model", ".", "--greedy", "--temperature", "1"], "leave one of the two"),
        (["tokenizze", "a"], "tokenizze"),
        (["train"], "tokenizer"),
    ],
)
def test_a_slip_is_answered_with_what_is_right_and_status_2(minillm, words, named):
    done = minillm(*words)
    assert done.returncode == 2, done.err
    assert named in done.err + done.out
    assert "Traceback" not in done.err


def test_the_map_lists_every_part(minillm):
    done = minillm("map")
    assert done.returncode == 0
    for words in ("minillm/lab/", "minillm/text/", "bpe", "lines of code"):
        assert words in done.out


def test_a_banned_word_leads_to_the_standard_one_and_a_slip_to_what_looks_alike(minillm):
    assert minillm("glossary", "n_vocab").out.startswith("Not 'n_vocab' but vocab_size:")
    assert minillm("glossary").out.endswith(" terms\n")
    slip = minillm("glossary", "vocabulry")
    assert slip.returncode == 2
    assert "Did you mean vocabulary size?" in slip.err


def test_the_doctor_looks_around(minillm, monkeypatch):
    monkeypatch.setattr("minillm.lab.doctor.measure_gflops", lambda seconds: 60.0)
    monkeypatch.setattr("minillm.lab.doctor.busy_cores", lambda seconds: 1.9)
    done = minillm("doctor")
    assert done.returncode == 0
    assert "60 GFLOP/s" in done.out
    assert "sandbox  time" in done.out


def test_an_unsolved_task_has_status_1_and_a_solved_one_0(minillm, tmp_path):
    assert minillm("start").returncode == 0
    assert minillm("check", "0.1").returncode == 1
    path = tmp_path / "my" / "exercises" / "ch00_claims.py"
    stub = path.read_text(encoding="utf-8")
    path.write_text(
        stub.replace("raise NotImplementedError", "return 'batch of 32 -> 576 GiB'", 1),
        encoding="utf-8",
    )
    done = minillm("check", "0.1")
    assert (done.returncode, done.out) == (0, "0.1 ✔\n")
    assert "1 of " in minillm("progress").out


@pytest.mark.parametrize("place", ["my", "my/exercises", "my/progress.json"])
@pytest.mark.parametrize(
    "words", ["start --at 0.2", "check 0.1", "progress", "hint 0.1", "solution 0.1"]
)
def test_a_file_or_folder_that_stands_in_the_way_gives_no_traceback(
    minillm, tmp_path, place, words
):
    in_the_way = tmp_path / place
    if in_the_way.suffix:
        in_the_way.mkdir(parents=True)
    else:
        in_the_way.parent.mkdir(exist_ok=True)
        in_the_way.write_text("a file stands here", encoding="utf-8")
    done = minillm(*words.split())  # a traceback would be an exception here
    assert str(in_the_way) in done.out + done.err or done.returncode < 2


def test_without_a_task_all_are_checked(minillm):
    done = minillm("check")
    assert done.returncode == 1
    assert "0.1 ☐ to do" in done.out
    assert "1.5 ☐ to do" in done.out


def test_a_workshop_begins_where_it_is_told(minillm):
    done = minillm("start", "--at", "0.3")
    assert done.returncode == 0
    assert "0.2: answered with the worked solution" in done.out
    assert minillm("check", "0.1", "0.2").returncode == 0
    assert minillm("check", "0.3").returncode == 1


def test_hints_and_the_solution_are_printed(minillm):
    assert minillm("hint", "1.1").out.startswith("Hint 1 of 3 for 1.1")
    assert "def merge_pair" in minillm("solution", "1.1").out


def test_the_ledger_is_printed_for_people_and_for_programs(minillm):
    assert "kv-cache-576" in minillm("claims").out
    assert "cannot show" in minillm("claims", "kv-cache-576").out
    entries = json.loads(minillm("claims", "--json").out)
    assert len(entries) >= 15
    assert {"id", "verdict", "measured"} <= entries[0].keys()


def test_text_can_come_from_standard_input(minillm):
    done = minillm("tokenize", "-", stdin=b"I live in the village")
    assert "21 characters, 21 bytes" in done.out


def test_standard_input_may_have_the_form_of_another_system(minillm):
    plain = minillm("tokenize", "-", stdin="村\nplums\n".encode()).out
    assert minillm("tokenize", "-", stdin="\ufeff村\r\nplums\r\n".encode()).out == plain
    done = minillm("tokenize", "-", stdin="plums".encode("utf-16"))
    assert (done.returncode, done.out) == (2, "")
    assert "standard input is UTF-16, not UTF-8" in done.err


def test_a_tokenizer_is_trained_and_used(minillm, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("plums and pears and plums and pears\n" * 50, encoding="utf-8")
    out = tmp_path / "made"
    done = minillm("train", "tokenizer", str(text), "--vocab", "270", "--out", str(out))
    assert done.returncode == 0, done.err
    assert "plums" in minillm("tokenize", "plums", "--tokenizer", str(out)).out.replace("|", "")


def test_the_benchmarks_are_listed(minillm):
    assert "minillm bench bpe" in minillm("bench").out


def test_the_figures_of_a_benchmark_are_kept(minillm, tmp_path, monkeypatch):
    from minillm.train.manifest import machine, versions

    figures = {"ratio": 1.5, "never": math.nan, "runs": [[0.1, math.inf, 3]], "which": "beta 2"}
    monkeypatch.setattr("minillm.bench.bpe.run", lambda *, quick: figures)
    record = tmp_path / "kept" / "bpe.json"
    done = minillm("bench", "bpe", "--record", str(record))
    assert f"the figures are in {record}" in done.out
    assert "no number came of never: it is nan\nno number came of runs.0.1: it is inf" in done.out
    # strictly JSON: what is no number is null
    assert json.loads(record.read_text(encoding="utf-8"), parse_constant=pytest.fail) == {
        "made by": "minillm bench bpe",
        "versions": versions(),
        "machine": machine(),
        "figures": {"ratio": 1.5, "never": None, "runs": [[0.1, None, 3]], "which": "beta 2"},
    }


def test_a_record_that_cannot_be_written_is_said_before_the_benchmark(
    minillm, tmp_path, monkeypatch
):
    monkeypatch.setattr("minillm.bench.bpe.run", lambda **_: pytest.fail("it ran"))
    (tmp_path / "kept").write_text("a file stands here", encoding="utf-8")
    done = minillm("bench", "bpe", "--record", str(tmp_path / "kept" / "bpe.json"))
    assert done.returncode == 2
    assert "kept" in done.err


def test_a_text_reaches_the_benchmark_that_learns_it(minillm, monkeypatch):
    asked = []

    def pretended(quick, text=None, recipe="shakespeare"):
        asked.append((quick, text, recipe))
        return {}

    monkeypatch.setattr("minillm.bench.train.run", pretended)
    minillm("bench", "train", "--quick", "--text", "letters.txt")
    minillm("bench", "train", "--recipe", "shakespeare-tokens")
    asked_for = [(True, Path("letters.txt"), "shakespeare"), (False, None, "shakespeare-tokens")]
    assert asked == asked_for


def test_output_that_knows_neither_ticks_nor_chinese_does_not_stop_it(tmp_path):
    environment = {**os.environ, "MINILLM_MY": str(tmp_path / "my"), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "minillm", "solution", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "\\u4e2d" in done.stdout


def test_a_stop_by_the_keyboard_says_so(minillm, monkeypatch):
    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setattr("minillm.lab.progress.table", stopped)
    done = minillm("progress")
    assert done.returncode == 130
    assert "minillm: stopped." in done.err
    assert "Traceback" not in done.err


def test_a_folder_that_cannot_be_made_is_said_before_the_training(minillm, tmp_path, monkeypatch):
    (tmp_path / "made").write_text("a file stands here", encoding="utf-8")
    (tmp_path / "text.txt").write_text("plums and pears\n", encoding="utf-8")
    monkeypatch.setattr("minillm.text.bpe.train", lambda *_, **__: pytest.fail("trained"))
    out = str(tmp_path / "made")
    done = minillm("train", "tokenizer", str(tmp_path / "text.txt"), "--out", out)
    assert done.returncode == 2
    assert "made" in done.err


def test_options_reach_what_they_are_for(minillm, tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("plums and pears\n" * 50, encoding="utf-8")
    out = str(tmp_path / "made")
    words = ["train", "tokenizer", str(tmp_path / "text.txt"), "--vocab", "262", "--out", out]
    assert "262 tokens wanted" in minillm(*words, "--special", "<|a|>", "--special", "<|b|>").out
    kept = (tmp_path / "made" / "tokenizer.json").read_text(encoding="utf-8")
    assert "<|a|>" in kept
    assert "<|b|>" in kept
    plain = minillm("tokenize", "plums", "--tokenizer", out).out
    assert len(minillm("tokenize", "plums", "--tokenizer", out, "--trace").out) > len(plain)
    assert minillm("hint", "1.1", "--level", "2").out.startswith("Hint 2 of 3")
    assert len(json.loads(minillm("claims", "kv-cache-576", "--json").out)) == 1
    asked = []
    monkeypatch.setattr("minillm.bench.bpe.run", lambda *, quick: asked.append(quick))
    minillm("bench", "bpe", "--quick")
    minillm("bench", "bpe")
    assert asked == [True, False]


def test_a_claim_is_reproduced_line_by_line(minillm, monkeypatch):
    monkeypatch.setattr("minillm.lab.reproduce.reproduce", lambda claim: [f"{claim}:", "✔ a"])
    assert minillm("reproduce", "kv").out == "kv:\n✔ a\n"


def test_a_chapter_stands_for_all_its_tasks(minillm):
    minillm("start", "--at", "0.5")
    done = minillm("check", "0")
    assert [line[:3] for line in done.out.splitlines() if line[0] != " "] == [
        "0.1", "0.2", "0.3", "0.4", "0.5",
    ]  # fmt: skip
    assert done.returncode == 1
    again = minillm("start").out
    assert again.startswith("my/ is up to date\n")
    assert again.rstrip().endswith("00_claims.ipynb")


END = "<|endoftext|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small model that was never trained, and its tokenizer, as files."""
    from minillm.formats.hf import save
    from minillm.model.config import tiny
    from minillm.text.tokenizer import Tokenizer

    tokenizer = Tokenizer(((104, 105), (32, 256)), (END, "<|mark|>"))
    made = tmp_path_factory.mktemp("model")
    save(tiny(tokenizer.vocab_size).build(seed=1), made, tokenizer, end_token=END)
    return made


def written(monkeypatch, text, then=None):
    """Let the model write these tokens, whatever it is asked; gives what it was asked."""
    asked = []

    def stream(model, prompt, config, **options):
        asked.append((prompt, config, options))

        def tokens():
            yield from text
            if then is not None:
                raise then

        return tokens()

    monkeypatch.setattr("minillm.serve.sample.stream", stream)
    return asked


def same_text(printed, decoded):
    """Whether this was printed for that text, but for half a character at its end."""
    shown = "".join(
        "�" if unicodedata.category(c) == "Cc" and c not in "\t\n\r" else c for c in decoded
    )
    return printed.removesuffix("\n").rstrip("�") == shown.rstrip("�")


def test_a_model_writes_on_what_its_seed_says(minillm, folder):
    from minillm.formats.hf import load, load_tokenizer
    from minillm.serve.sample import SampleConfig, stream

    done = minillm("sample", "hi hi", "--model", str(folder), "--tokens", "9", "--temperature", "2")
    assert done.returncode == 0, done.err
    config = SampleConfig(temperature=2, top_p=0.95)
    tokens = list(stream(load(folder), [256, 257], config, n_tokens=9, stop_ids=[258]))
    assert same_text(done.out, "hi hi" + load_tokenizer(folder).decode(tokens))
    words = ["sample", "hi hi", "--model", str(folder), "--tokens", "9"]
    assert minillm(*words).out == minillm(*words).out != minillm(*words, "--seed", "1").out


def test_a_mixtral_folder_is_opened_too(minillm, tmp_path):
    from dataclasses import replace

    from minillm.experts.moe import MoEConfig
    from minillm.formats.hf_mixtral import save
    from minillm.model.config import tiny
    from minillm.text.tokenizer import Tokenizer

    tokenizer = Tokenizer(((104, 105), (32, 256)), (END, "<|mark|>"))
    config = replace(tiny(tokenizer.vocab_size), ffn=MoEConfig(n_experts=4, d_expert=16))
    save(config.build(seed=1), tmp_path / "m", tokenizer, end_token=END)
    done = minillm("sample", "hi hi", "--model", str(tmp_path / "m"), "--tokens", "5")
    assert done.returncode == 0, done.err
    assert done.out.startswith("hi hi") and len(done.out) > len("hi hi\n")


def test_what_one_says_of_the_choice_reaches_it(minillm, folder, monkeypatch):
    asked = written(monkeypatch, b"")
    words = ["sample", "hi", "--model", str(folder)]
    minillm(*words)
    minillm(*words, "--greedy")
    minillm(*words, "--temperature", "0", "--tokens", "3", "--seed", "4")
    filters = ["--top-k", "7", "--top-p", "0.5", "--min-p", "0.1"]
    minillm(*words, "--temperature", "1.5", *filters)
    configs = [config for _, config, _ in asked]
    assert [(c.temperature, c.top_k, c.top_p, c.min_p) for c in configs] == [
        (0.8, None, 0.95, 0.0),
        (0.0, None, 0.95, 0.0),
        (0.0, None, 0.95, 0.0),
        (1.5, 7, 0.5, 0.1),
    ]
    assert [prompt for prompt, _, _ in asked] == [[256]] * 4
    # a context of 128 tokens, one of them the prompt's; 258 is the end token
    assert asked[0][2] == {"n_tokens": 127, "stop_ids": (258,), "seed": 0}
    assert asked[2][2] == {"n_tokens": 3, "stop_ids": (258,), "seed": 4}


def test_without_a_word_on_the_end_any_special_token_ends_the_text(minillm, folder, monkeypatch):
    asked = written(monkeypatch, b"")
    monkeypatch.setattr("minillm.formats.hf.end_ids", lambda directory: ())
    minillm("sample", "hi", "--model", str(folder))
    assert asked[0][2]["stop_ids"] == (258, 259)


def test_special_tokens_of_a_prompt_are_read_where_one_says_so(minillm, folder, monkeypatch):
    asked = written(monkeypatch, b"")
    minillm("sample", f"{END}hi<|mark|>", "--model", str(folder), "--special")
    assert asked[0][0] == [258, 256, 259]
    begun = SimpleNamespace(begin_ids=(258,), special_ids={END: 258}, encode=lambda *_: [258, 7])
    assert prompt_ids(END, begun, special=True) == [258, 7]  # not twice
    begun = SimpleNamespace(begin_ids=(258,), special_ids={}, encode=lambda *_: [7])
    assert prompt_ids("hi", begun) == [258, 7]


def test_a_stop_string_ends_the_text_before_it(minillm, folder, monkeypatch):
    written(monkeypatch, b" there. Who is it?")
    words = ["sample", "hi", "--model", str(folder), "--stop", "Who", "--stop", "nobody"]
    assert minillm(*words).out == "hi there. \n"


def test_a_model_cannot_command_the_terminal(minillm, folder, monkeypatch):
    written(monkeypatch, "\x1b[2J\x07\ta\nb\x7f\x9b红".encode())
    assert minillm("sample", "hi", "--model", str(folder)).out == "hi�[2J�\ta\nb��红\n"


def test_words_are_shown_as_they_come_and_stay_when_the_keyboard_stops_them(
    minillm, folder, monkeypatch
):
    written(monkeypatch, b" there", then=KeyboardInterrupt())
    done = minillm("sample", "hi", "--model", str(folder))
    assert done.returncode == 130
    assert done.out == "hi there\n"
    assert "minillm: stopped." in done.err
    assert "Traceback" not in done.err


def test_each_piece_is_flushed(minillm, folder, monkeypatch):
    seen = []
    written(monkeypatch, b"ab")
    monkeypatch.setattr(
        "builtins.print", lambda *words, end="\n", flush=False: seen.append((*words, end, flush))
    )
    minillm("sample", "hi", "--model", str(folder))
    assert seen == [("hi", "", True), ("a", "", True), ("b", "", True), ("\n", False)]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([""], "the prompt is empty"),
        ([f"hi{END}"], f"the prompt spells {END}, a special token of this model; say --special"),
        (["hi", "--tokens", "128"], "at most 127 may still be generated"),
        (["hi" * 128], "the prompt has 128 tokens"),
        (["hi", "--tokens", "0"], "n_tokens must be at least 1"),
        (["hi", "--seed", "-1"], "got seed -1"),
        (["hi", "--stop", ""], "a stop string must have at least one character"),
        (["hi", "--temperature", "-1"], "temperature must be a finite number of at least 0"),
    ],
)
def test_a_sample_that_cannot_be_is_refused_before_a_word_is_shown(minillm, folder, words, named):
    done = minillm("sample", *words, "--model", str(folder))
    assert (done.returncode, done.out) == (2, "")
    assert named in done.err


def test_a_folder_that_transformers_wrote_is_sampled(minillm, tmp_path):
    import tokenizers
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from minillm.text.fast import to_tokenizers_json
    from minillm.text.tokenizer import Tokenizer

    ours = Tokenizer(((104, 105), (32, 256)), (END,))
    theirs = tokenizers.Tokenizer.from_str(to_tokenizers_json(ours))
    PreTrainedTokenizerFast(tokenizer_object=theirs, eos_token=END).save_pretrained(tmp_path)
    config = LlamaConfig(
        vocab_size=259, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, bos_token_id=None, eos_token_id=258,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    done = minillm("sample", "hi hi", "--model", str(tmp_path), "--greedy", "--tokens", "6")
    assert done.returncode == 0, done.err
    prompt = torch.tensor([[256, 257]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 258}
    tokens = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)[0].tolist()
    expected = ours.decode([token for token in tokens if token != 258])
    assert same_text(done.out, expected)


def test_a_folder_of_llamas_form_begins_with_its_token_and_never_draws_padding(minillm, tmp_path):
    import tokenizers
    import torch
    from tokenizers import decoders, models, normalizers, processors
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", "▁", "h", "i", "a", "▁h", "▁hi", "村", ".", "▁a"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    merges = [("▁", "h"), ("▁h", "i"), ("▁", "a")]
    theirs = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    theirs.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    theirs.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    theirs.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=theirs, **names).save_pretrained(tmp_path)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        for parameter in model.parameters():
            parameter.data.normal_(std=0.3)  # so that another beginning gives another text
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    prompt = tokenizer("hi a", return_tensors="pt")
    assert prompt["input_ids"].tolist() == [[1, 8, 11]]
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 2}
    free = model.generate(**prompt, **options)[0]
    assert free.max() >= len(pieces)  # a token that nobody can write
    padding = list(range(len(pieces), 64))
    tokens = model.generate(**prompt, **options, suppress_tokens=padding)[0].tolist()
    expected = tokenizer.decode([token for token in tokens if token not in (1, 2)])
    done = minillm("sample", "hi a", "--model", str(tmp_path), "--greedy", "--tokens", "12")
    assert done.returncode == 0, done.err
    assert done.out == expected + "\n"
    for seed in range(5):
        words = ["sample", "hi", "--model", str(tmp_path), "--seed", str(seed)]
        assert minillm(*words, "--temperature", "9", "--top-p", "1").returncode == 0


FAMILIES = {
    "Llama": ("Llama 3", "LlamaConfig", {}),
    "Llama 2": ("Llama 2", "LlamaConfig", {}),
    "Mistral": ("Mistral", "MistralConfig", {"sliding_window": 8}),
    "Mixtral": ("Mistral", "MixtralConfig", {"num_local_experts": 4}),
    "Qwen 3": ("Qwen", "Qwen3Config", {"head_dim": 8}),
}
BESIDE = {  # as the tokenizer_config.json of each family says
    "Llama 3": {"clean_up_tokenization_spaces": True, "eos_token": "<|end|>"},
    "Llama 2": {"add_bos_token": True, "add_eos_token": False, "sp_model_kwargs": {}},
    "Mistral": {"add_bos_token": True, "legacy": False, "use_default_system_prompt": False},
    "Qwen": {"add_bos_token": False, "add_prefix_space": False, "split_special_tokens": False},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_text_of_each_family_is_that_of_transformers_up_to_any_of_its_end_tokens(
    minillm, tmp_path, family
):
    import torch
    import transformers

    from minillm.formats.tokenizer_json import read
    from tests.formats.test_tokenizer_json import THEIRS

    kind, config, more = FAMILIES[family]
    theirs, prompt = THEIRS[kind], "the hen 里<think>"
    vocab_size = 64 * (theirs.get_vocab_size() // 64 + 1)  # padded, as theirs are
    config = getattr(transformers, config)(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, **more,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data.normal_(std=0.3)
    ids = theirs.encode(prompt).ids
    padding = list(range(theirs.get_vocab_size(), vocab_size))
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    row = torch.tensor([ids])
    free = model.generate(row, suppress_tokens=padding, **options)[0, len(ids) :].tolist()
    end = next(token for place, token in enumerate(free) if place > 3 and token not in free[:place])
    model.generation_config.eos_token_id = [2, end]
    model.save_pretrained(tmp_path)
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(BESIDE[kind]), encoding="utf-8")
    written = free[: min(free.index(token) for token in {2, end} & set(free))]
    assert len(written) > 3
    done = minillm("sample", prompt, "--model", str(tmp_path), "--greedy", "--tokens", "20")
    assert done.returncode == 0, done.err
    ours = read(tmp_path / "tokenizer.json")
    assert same_text(done.out, prompt + ours.decode_bytes(written).decode("utf-8", "replace"))
