"""What `import edgellm` and the light commands pull in. Counts modules, not milliseconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    *("numpy", "jinja2", "typer", "click", "rich", "platformdirs", "torch", "textual", "asyncio"),
    *("filelock", "huggingface_hub", "starlette", "uvicorn", "anyio", "llguidance"),
)


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


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_version_and_help_do_not_load_the_command_line_parser(flag, tmp_path):
    code = f"sys.argv = ['edgellm', '{flag}']\nfrom edgellm.__main__ import main\n"
    code += "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code"
    assert "numpy" not in modules_after(code, tmp_path)
    if flag == "--version":
        assert not modules_after(code, tmp_path) & set(HEAVY)


def test_only_one_verb_is_imported(tmp_path):
    code = "from edgellm.cli import run_command_line\nrun_command_line(['inspect', 'missing'])"
    loaded = modules_after(code, tmp_path)
    verbs = {name for name in loaded if name.startswith("edgellm.cli.")}
    assert verbs == {"edgellm.cli.exits", "edgellm.cli.inspect", "edgellm.cli.output"}
