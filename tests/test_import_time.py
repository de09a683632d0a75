"""What `import edgellm` and the light commands pull in. Counts modules, not milliseconds."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    *("numpy", "jinja2", "typer", "click", "rich", "platformdirs", "torch", "textual", "asyncio"),
    *("filelock", "huggingface_hub", "starlette", "uvicorn", "anyio", "llguidance", "pydantic"),
)
ROOT = Path(__file__).parents[1]


def modules_after(code: str, cwd: object) -> set[str]:
    script = f"import sys\n{code}\nsys.stderr.write(' '.join(sys.modules))"
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, cwd=str(cwd), capture_output=True, text=True, check=True)
    return set(run.stderr.split())


def test_importing_the_package_loads_nothing_heavy(tmp_path):
    loaded = modules_after("import edgellm", tmp_path)
    assert not loaded & {*HEAVY, "edgellm._native", "edgellm.cli"}


def test_importing_the_native_module_does_not_import_numpy(tmp_path):
    loaded = modules_after("import edgellm._native", tmp_path)
    assert "edgellm._native" in loaded
    assert "numpy" not in loaded


def loaded_by_command(cwd, *arguments):
    code = f"sys.argv = {['edgellm', *arguments]}\nfrom edgellm.__main__ import main\n"
    code += "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code"
    return modules_after(code, cwd)


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_version_and_help_load_next_to_nothing(flag, tmp_path):
    loaded = loaded_by_command(tmp_path, flag)
    assert not loaded & set(HEAVY)
    ours = {name for name in loaded if name.startswith("edgellm")}
    cli = {"edgellm.cli", "edgellm.cli.exits", "edgellm.cli.output", "edgellm.sanitize"}
    least = {"edgellm", "edgellm.__main__", "edgellm.errors"}
    assert ours == (least if flag == "--version" else least | cli)


def test_a_text_is_continued_without_what_others_need(tmp_path):
    """A start is mostly imports: each of these would be seen in the time to the first token."""
    loaded = loaded_by_command(tmp_path, "run", "demo", "Once", "--max-tokens", "1")
    assert not loaded & ({*HEAVY} - {"typer", "click"})
    ours = {name.removeprefix("edgellm.") for name in loaded if name.startswith("edgellm.")}
    assert not ours & {"chat", "chat_template", "governor", "planner", "store.store", "cascade"}
    assert len(loaded) <= 300, sorted(loaded)


def imports_of(source):
    """Names by module that type checkers see, and names that are there at once."""
    checked, at_once = {}, set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.If):
            for one in node.body:
                checked[one.module] = {alias.name for alias in one.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            at_once |= {alias.name for alias in node.names}
    return checked, at_once


def test_what_is_loaded_when_it_is_used_is_what_type_checkers_see():
    import edgellm

    path = ROOT / "edgellm" / "__init__.py"
    checked, at_once = imports_of(path.read_text(encoding="utf-8"))
    assert checked == {place: {*names} for place, names in edgellm._PLACES.items()}
    lazy = set().union(*checked.values())
    assert {*edgellm.__all__} == lazy | at_once | {"__version__"}
    assert all(getattr(edgellm, name).__name__ == name for name in lazy)
    assert {*edgellm.__all__} <= {*dir(edgellm)}
    with pytest.raises(AttributeError, match="has no attribute 'Modle'"):
        edgellm.Modle  # noqa: B018


def test_every_public_module_can_be_the_first(tmp_path):
    code = """
import importlib
import edgellm
for place in edgellm._PLACES:
    for name in [name for name in sys.modules if name.startswith("edgellm")]:
        del sys.modules[name]
    importlib.import_module(f"edgellm.{place}")
"""
    assert "edgellm.watching" in modules_after(code, tmp_path)


def test_only_one_verb_is_imported(tmp_path):
    code = "from edgellm.cli import run_command_line\nrun_command_line(['inspect', 'missing'])"
    loaded = modules_after(code, tmp_path)
    verbs = {name for name in loaded if name.startswith("edgellm.cli.")}
    light = {"edgellm.cli.exits", "edgellm.cli.flags", "edgellm.cli.output"}
    assert verbs == light | {"edgellm.cli.inspect"}
