"""Who may see whom. C++: a directory includes lower numbers only. Python: by import (ast)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SRC = ROOT / "native" / "src"

# Lower numbers only; equal numbers (runtime and tokenizer, tensor and speculation) do not see each
# other.
LAYERS = {
    "base": 1,
    "tensor": 2,
    "speculation": 2,
    "format": 3,
    "quant": 4,
    "kernels": 5,
    "backends": 6,
    "model": 7,
    "runtime": 8,
    "tokenizer": 8,
    "api": 9,
}
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
_LINK = re.compile(r"^edge_layer\((\w+)((?: \w+)*)\)", re.MULTILINE)

# Third-party packages that only one place may import.
CONFINED = {
    "torch": ("converters", "tests", "benchmarks"),
    "transformers": ("converters", "tests", "benchmarks"),
    "textual": ("apps", "tests"),
}
# Packages of the SDK that alone may import what listens.
SERVER_DOOR = Path("server/run.py")
SERVER_ONLY = {"starlette", "uvicorn", "anyio", "h11"}
HUB_DOOR = Path("store/hub.py")  # these two files of the SDK alone may open a connection
FLEET_DOOR = Path("fleet/remote.py")
NETWORK = {"aiohttp", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "urllib3"}
NETWORK |= {"httpx2", "huggingface_hub"}
CONVERTERS_MAY_SEE = {
    "edgellm.edgefile",
    "edgellm.edgeheader",
    "edgellm.errors",
    "edgellm.chat_template",
    "edgellm.durable",  # as small_files: how small files are written and read
    "edgellm.edgechunks",
    "edgellm.fleet",  # what a build writes and a device reads
    "edgellm.planner",
    "edgellm.profiles",
    "edgellm.small_files",
    "edgellm.npu",  # the other half of what a bundle of graphs is
    "edgellm._native",
}


def cxx_violations(layer: str, text: str) -> list[str]:
    """Includes of `text`, a file of `layer`, that go up or sideways."""
    found = []
    for include in _INCLUDE.findall(text):
        other = include.split("/")[0]
        if other in LAYERS and other != layer and LAYERS[other] >= LAYERS[layer]:
            found.append(include)
        if ".." in include.split("/"):
            found.append(include)
    return found


def python_imports(path: Path, package: str) -> Iterator[str]:
    """Absolute names of everything `path` imports, at any depth; `package` is where it is
    installed. `from a import b` gives a.b, since b may be a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def modules(folder: str, installed_as: str) -> Iterator[tuple[Path, str]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        parents = path.relative_to(ROOT / folder).parent.parts
        yield path, ".".join([installed_as, *parents])


def is_under(name: str, allowed: set[str]) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


def test_native_directories_include_only_lower_layers():
    files = [p for p in SRC.rglob("*") if p.suffix in (".h", ".cc", ".cu", ".inc", ".metal", ".mm")]
    assert len(files) > 20
    bad = {
        str(path.relative_to(ROOT)): found
        for path in files
        if (found := cxx_violations(path.relative_to(SRC).parts[0], path.read_text("utf-8")))
    }
    assert bad == {}


def test_every_native_directory_has_a_layer():
    assert {p.name for p in SRC.iterdir() if p.is_dir()} <= set(LAYERS)


def test_cmake_links_each_layer_to_lower_ones_only():
    links = _LINK.findall((ROOT / "native" / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert {name for name, _ in links} == set(LAYERS)
    # edge_spec is the part of model/ that knows files but no kernels.
    number = {**LAYERS, "backend_cpu": LAYERS["backends"], "spec": LAYERS["format"]}
    bad = [
        (name, dep) for name, deps in links for dep in deps.split() if number[dep] >= LAYERS[name]
    ]
    assert bad == []


def test_the_public_header_includes_nothing_internal():
    for path in (ROOT / "native" / "include").rglob("*.h"):
        includes = _INCLUDE.findall(path.read_text(encoding="utf-8"))
        assert all(name.startswith("edgellm/") for name in includes), path


def test_torch_and_textual_stay_where_they_belong():
    bad = [
        (str(path.relative_to(ROOT)), name)
        for folder in ("edgellm", "converters", "apps", "examples")
        for path, package in modules(folder, folder)
        for name in python_imports(path, package)
        for library, homes in CONFINED.items()
        if is_under(name, {library}) and folder not in homes
    ]
    assert bad == []


def test_the_sdk_imports_no_network_library():
    bad = [
        (str(path.relative_to(ROOT)), name)
        for path, package in modules("edgellm", "edgellm")
        for name in python_imports(path, package)
        if name.split(".")[0] in NETWORK or is_under(name, {"urllib.request"})
        if not (path == ROOT / "edgellm" / HUB_DOOR and is_under(name, {"huggingface_hub"}))
        if not (path == ROOT / "edgellm" / FLEET_DOOR and is_under(name, {"http.client"}))
        if not (path == ROOT / "edgellm" / SERVER_DOOR and is_under(name, {"socket"}))
    ]
    assert bad == []


def test_only_the_server_listens_and_it_never_connects():
    server = ROOT / "edgellm" / "server"
    bad = [
        (str(path.relative_to(ROOT)), name)
        for path, package in modules("edgellm", "edgellm")
        for name in python_imports(path, package)
        if name.split(".")[0] in SERVER_ONLY and server not in path.parents
    ]
    assert bad == []
    text = "".join(path.read_text(encoding="utf-8") for path in server.rglob("*.py"))
    assert ".listen(" in text
    assert re.findall(r"create_connection|open_connection|\.connect(?:_ex)?\(", text) == []


def test_the_server_is_reached_from_its_verb_alone():
    bad = [
        (str(path.relative_to(ROOT)), name)
        for path, package in modules("edgellm", "edgellm")
        for name in python_imports(path, package)
        if is_under(name, {"edgellm.server"}) and ROOT / "edgellm" / "server" not in path.parents
        if path != ROOT / "edgellm" / "cli" / "serve.py"
    ]
    assert bad == []


def test_the_sdk_reaches_converters_and_apps_only_from_their_doors():
    doors = {
        "convert.py": "edgellm.converters",
        "export.py": "edgellm.converters",
        "train.py": "edgellm.converters",
        "compress.py": "edgellm.converters",
        "chat.py": "edgellm.tui",
    }
    # A PEFT directory is converted when it is loaded, and so is a checkpoint.
    lazy = {
        ("adapter.py", "edgellm.converters.adapter.convert_adapter"),
        ("pretrained.py", "edgellm.converters.convert"),
    }
    bad = [
        (str(path.relative_to(ROOT)), name)
        for path, package in modules("edgellm", "edgellm")
        for name in python_imports(path, package)
        if is_under(name, {"edgellm.converters", "edgellm.tui"})
        and not (path.parent.name == "cli" and is_under(name, {doors.get(path.name, "none")}))
        and (path.name, name) not in lazy
    ]
    assert bad == []


def test_converters_see_only_the_file_format_the_errors_and_the_native_module():
    bad = [
        (str(path.relative_to(ROOT)), name)
        for path, package in modules("converters", "edgellm.converters")
        for name in python_imports(path, package)
        if is_under(name, {"edgellm"})
        and not is_under(name, {"edgellm.converters", *CONVERTERS_MAY_SEE})
    ]
    assert bad == []


def test_line_mode_and_engine_run_without_textual():
    """The screen is what needs it; the verb falls back to the rest."""
    tui = ROOT / "apps" / "tui"
    needs = {
        path.relative_to(tui).parts[0]
        for path, package in modules("apps/tui", "edgellm.tui")
        for name in python_imports(path, package)
        if is_under(name, {"textual", "rich", "markdown_it", "edgellm.tui.widgets"})
    }
    assert needs == {"app.py", "screens", "themes.py", "widgets"}


def test_nobody_imports_the_top_level_folders_by_their_repository_names():
    folders = {"converters", "apps", "hardware_profiles"}
    bad = [
        (str(path.relative_to(ROOT)), name)
        for folder in ("edgellm", "converters", "apps", "tests", "examples", "benchmarks")
        for path, package in modules(folder, "edgellm.x" if folder in folders else folder)
        for name in python_imports(path, package)
        if name.split(".")[0] in folders
    ]
    assert bad == []


def test_the_checks_themselves_find_violations(tmp_path):
    assert cxx_violations("kernels", '#include "model/spec.h"\n') == ["model/spec.h"]
    assert cxx_violations("runtime", '#include "tokenizer/tokenizer.h"') != []
    assert cxx_violations("model", '#include "base/status.h"\n#include <vector>') == []
    module = tmp_path / "m.py"
    module.write_text("def f():\n    from ..errors import X\n    import torch.nn\n")
    assert set(python_imports(module, "edgellm.cli")) == {"edgellm.errors.X", "torch.nn"}
    assert "socket" in sys.stdlib_module_names
