"""What makes a kernel compile again, and what can go wrong when it does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npbert.cuda import emulator
from npbert.cuda.emulator import compile
from npbert.cuda.emulator.compile import HOST, build_executable, build_library, build_tracer, compiler

SOURCE = """
extern "C" __global__ void fill(float *x) {
    x[threadIdx.x] = VALUE;
}
"""
PROGRAM = emulator.Program(SOURCE, (("VALUE", "1"),), "fill.cu")
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Werror")


@pytest.fixture(scope="module")
def empty_cache(tmp_path_factory):
    """A cache of this file's own, empty at first."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield emulator.cache_folder()


@pytest.fixture
def commands(monkeypatch):
    """What the compiler is called with."""
    made = []
    run = compile._run

    def counted(command):
        made.append(tuple(command))
        return run(command)

    monkeypatch.setattr(compile, "_run", counted)
    return made


def filled(program):
    x = np.zeros(4, np.float32)
    emulator.run(program, "fill", (1,), (4,), (x,))
    assert np.all(x == x[0])
    return x[0]


def test_four_processes_at_once_on_an_empty_cache(emulated, empty_cache):
    program = f"""
import numpy as np
from npbert.cuda import emulator
x = np.zeros(4, np.float32)
emulator.compile_kernel({SOURCE!r}, "fill", {{"VALUE": 1}}, file="fill.cu")((1,), (4,), (x,))
print(*x)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [process.communicate()[0] for process in processes] == ["1.0 1.0 1.0 1.0\n"] * 4
    assert sorted(path.name.split("-")[0] for path in empty_cache.iterdir()) == ["fill", "host"]


def test_what_compiles_again_and_what_does_not(emulated, empty_cache, commands):
    assert filled(PROGRAM) == 1
    commands.clear()
    assert filled(PROGRAM) == 1
    assert filled(emulator.Program(SOURCE, (("VALUE", "1"),), "fill.cu")) == 1
    assert commands == []
    assert filled(PROGRAM._replace(defines=(("VALUE", "2"),))) == 2
    assert len(commands) == 2  # compile, link: the emulator itself is there
    assert filled(PROGRAM._replace(source=SOURCE.replace("VALUE", "VALUE + 1"))) == 2
    assert len(commands) == 4
    assert len({build_library(PROGRAM), build_tracer(PROGRAM), build_executable(PROGRAM, "address")}) == 3


def test_the_key(emulated, empty_cache, monkeypatch):
    """Sources, macros, names, flags, the compiler and the emulator's own files."""

    def key(program=PROGRAM, kind=compile.LIBRARY, by="compiler 1"):
        compile._name.cache_clear()
        return compile._name(program, kind, by)

    keys = [
        key(),
        key(PROGRAM._replace(source=SOURCE + " ")),
        key(PROGRAM._replace(defines=(("VALUE", "2"),))),
        key(PROGRAM._replace(defines=(*PROGRAM.defines, ("OTHER", "2")))),
        key(PROGRAM._replace(name="other.cu")),
        key(kind=compile.EXECUTABLES["address"]),
        key(kind=compile.EXECUTABLES["thread"]),
        key(kind=compile.LIBRARY._replace(host_flags=("-DEMULATOR_UCONTEXT",))),
        key(by="compiler 2"),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(compile, "BASE_FLAGS", ("-O1",))
        keys.append(key())
    with monkeypatch.context() as patch:
        patch.setattr(compile, "_processor_flags", lambda: ("-mfma", "-mother"))
        keys.append(key())
    with monkeypatch.context() as patch:
        patch.setattr(compile, "_host_texts", lambda: ("another emulator",))
        keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def test_a_deleted_library_after_its_use(emulated, empty_cache, commands):
    assert filled(PROGRAM) == 1
    commands.clear()
    for path in empty_cache.iterdir():
        path.unlink()
    assert filled(PROGRAM) == 1
    assert len(commands) == 3  # the emulator, the kernel, the link


@pytest.mark.parametrize("sanitizer", ["address"])
def test_a_deleted_or_cut_program_after_its_use(emulated, empty_cache, sanitizer):
    with emulator.options(sanitizer=sanitizer):
        assert filled(PROGRAM) == 1
        path = build_executable(PROGRAM, sanitizer)
        path.unlink()
        assert filled(PROGRAM) == 1
        path.write_bytes(path.read_bytes()[:1000])
        assert filled(PROGRAM) == 1


def test_a_cache_that_cannot_be_written_to(emulated, monkeypatch, tmp_path):
    (tmp_path / "npbert").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x = np.zeros(4, np.float32)
    with pytest.raises(emulator.EmulatorError, match=f"the cache folder {tmp_path}/npbert/kernels cannot"):
        emulator.run(PROGRAM._replace(source=SOURCE + "//"), "fill", (1,), (4,), (x,))
    assert not x.any()


def test_an_interrupted_compilation_leaves_nothing(emulated, empty_cache, monkeypatch):
    filled(PROGRAM)
    before = sorted(empty_cache.iterdir())

    def interrupted(command):
        Path(command[command.index("-o") + 1]).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(compile, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_library(PROGRAM._replace(defines=(("VALUE", "77"),)))
    assert sorted(empty_cache.iterdir()) == before


# --- the compiler ---------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Nothing on the PATH; what is found is found anew, before and after."""
    compiler.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    yield monkeypatch
    compiler.cache_clear()


def program_called(folder, name, text="#!/bin/sh\nexit 1\n"):
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_no_compiler(environment):
    expected = (
        r"needs a C\+\+ compiler, and none of c\+\+, g\+\+, clang\+\+ is on the PATH: install .*, or set CXX"
    )
    x = np.zeros(4, np.float32)
    with pytest.raises(emulator.EmulatorError, match=expected):
        emulator.compiler()
    with pytest.raises(emulator.EmulatorError, match=expected):
        emulator.run(PROGRAM, "fill", (1,), (4,), (x,))
    with pytest.raises(emulator.EmulatorError, match=expected):
        emulator.compile_kernel(SOURCE, "fill", {"VALUE": 1})


def test_which_compiler(environment, tmp_path):
    clang = program_called(tmp_path, "clang++")
    assert compiler() == clang
    compiler.cache_clear()
    gcc = program_called(tmp_path, "g++")
    assert compiler() == gcc
    compiler.cache_clear()
    own = program_called(tmp_path, "own-compiler")
    environment.setenv("CXX", "own-compiler -m64 -DWITH='a space'")
    assert compiler() == own
    assert compile._command() == (str(own), "-m64", "-DWITH=a space")


def test_a_cxx_that_is_not_there(environment, tmp_path):
    program_called(tmp_path, "g++")
    environment.setenv("CXX", "no-such-compiler")
    with pytest.raises(emulator.EmulatorError, match="CXX is 'no-such-compiler', which is not on the PATH"):
        compiler()


def test_a_compiler_that_cannot_be_run(environment, tmp_path):
    program_called(tmp_path, "c++", "#!/no/such/interpreter\n")
    with pytest.raises(
        emulator.EmulatorError, match=r"the C\+\+ compiler .*/c\+\+ cannot be run: No such file"
    ):
        emulator.run(PROGRAM, "fill", (1,), (4,), (np.zeros(4, np.float32),))


def test_a_compiler_that_fails_without_a_word(environment, tmp_path, monkeypatch):
    program_called(tmp_path, "c++", "#!/bin/sh\nexit 3\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(emulator.EmulatorError, match=r"the emulator does not compile .*: exit code 3"):
        build_library(PROGRAM)


def test_a_source_that_does_not_compile(emulated):
    source = SOURCE.replace("x[threadIdx.x]", "y[threadIdx.x]")
    with pytest.raises(emulator.EmulatorError) as caught:
        emulator.compile_kernel(source, "fill", {"VALUE": 1}, file="wrong.cu")
    message = str(caught.value)
    assert message.startswith("wrong.cu does not compile for the emulator: wrong.cu:3:")
    assert "y" in message.rsplit("error:", 1)[1]
    assert "\n" not in message


def test_a_source_that_calls_what_is_not_there(emulated):
    source = "__device__ float elsewhere(float);" + SOURCE.replace("VALUE", "elsewhere(1)")
    with pytest.raises(emulator.EmulatorError, match=r"wrong.cu does not compile .*undefined .*elsewhere"):
        emulator.compile_kernel(source, "fill", file="wrong.cu")


@pytest.mark.parametrize("flags", [(), ("-DEMULATOR_UCONTEXT",)], ids=["assembly", "ucontext"])
def test_the_emulator_compiles_without_warnings(emulated, flags, tmp_path):
    for path in sorted(HOST.glob("*.cpp")):
        done = subprocess.run(
            [compiler(), "-std=c++17", "-O2", *WARNINGS, *flags, "-fsyntax-only", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_the_header_compiles_without_warnings(emulated, tmp_path):
    unit = tmp_path / "unit.cpp"
    unit.write_text('#include "emulator.h"\n#include <cuda_fp16.h>\n#include "tensor_core.h"\n')
    done = subprocess.run(
        [compiler(), "-std=c++17", *WARNINGS, f"-I{HOST}", "-fsyntax-only", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
