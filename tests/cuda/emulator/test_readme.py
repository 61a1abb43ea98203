"""kernels/README.md: its example runs and prints what it says; its table has every file."""

import re

import pytest

from npbert.cuda.source import kernel_folder

README = kernel_folder() / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_the_example_does_what_it_says(emulated, capfd):
    assert len(BLOCKS) == TEXT.count("```python") >= 4
    names = {"__name__": "__main__"}
    for code, expected in BLOCKS:
        exec(compile(code, str(README), "exec"), names)
        printed = capfd.readouterr().out
        assert printed == expected


@pytest.mark.parametrize("pattern", ["*.cu", "*.cuh"])
def test_every_file_is_in_the_table(pattern):
    files = sorted(path.name for path in kernel_folder().glob(pattern))
    assert files
    listed = re.findall(r"^\| `(\w+\.cuh?)` \| .* \|$", TEXT, flags=re.MULTILINE)
    assert [name for name in files if name not in listed] == []
    assert [name for name in listed if not (kernel_folder() / name).exists()] == []
    if pattern == "*.cu":
        assert all(listed.count(name) == 2 for name in files), "the second table: what is known of it"
