import os
import re
import subprocess
import sys

import pytest

from minillm.lab.program import program
from minillm.lab.project import root

PROGRAMS = [
    path.relative_to(root()).as_posix()
    for folder in ("minillm", "tools")
    for path in sorted((root() / folder).rglob("*.py"))
    if '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8")
]


def ended(words, **environment):
    """Exit status and errors of a program whose reader leaves before it has said a word."""
    command, environment = [sys.executable, *words], os.environ | environment
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=root(), env=environment, **streams) as child:
        child.stdout.close()
        errors = child.stderr.read().decode()
    return child.returncode, errors


@pytest.mark.parametrize("path", PROGRAMS)
def test_every_program_ends_in_one_way(path):
    own = (root() / path).read_text(encoding="utf-8")
    if path == "minillm/lab/answers.py":  # the child process, whose output nobody reads
        assert "stdout=subprocess.DEVNULL" in own
    elif path == "minillm/agents/confine.py":  # a child process too: its output goes into files
        assert "tempfile.TemporaryFile() as output" in (
            root() / "minillm/agents/sandbox.py"
        ).read_text(encoding="utf-8")
    else:
        assert "from minillm.cli import main" in own or re.search(r"with (jobs\.)?program\(", own)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "minillm", "--help"],
        ["-m", "minillm", "map"],
        ["-m", "minillm", "check", "0.1"],
        ["-m", "tools.jobs", "help"],
        ["-m", "tools.stubs", "--check"],
        ["tools/bootstrap.py", "help"],
    ],
)
def test_a_reader_may_leave(words, unbuffered):
    assert ended(words, PYTHONUNBUFFERED=unbuffered) == (141, "")


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as end, program("plums"):
        (tmp_path / "no" / "folder").touch()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("plums: [Errno 2] No such file or directory: ")
