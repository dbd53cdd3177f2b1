"""What platforms and newcomers read: the settings there are, the defaults they have, and what to install."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import reduce
from importlib.metadata import packages_distributions, requires, version
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dotenv import dotenv_values
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

from promptlord.config import Config

ROOT = Path(__file__).parent.parent
SETTINGS = {field.metadata["env"]: field for field in fields(Config) if "env" in field.metadata}
EVERY_MODULE = """
import app, pkgutil, promptlord
for module in pkgutil.walk_packages(promptlord.__path__, "promptlord."):
    __import__(module.name)
"""
CHOSEN_BY_THE_PLATFORM = {"TRUSTED_HOPS", "PORT"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def is_default(name: str, text: str | None) -> bool:
    """Whether ``text``, or nothing, leaves the setting at its default."""
    default, how = getattr(Config.from_env({}), SETTINGS[name].name), SETTINGS[name].metadata
    if not text:
        return text is None or default in ("", (), None) or not how["blank"]
    return how["parse"](text) in (default, how["parse"](default) if isinstance(default, str) else default)


# Settings


def test_the_example_holds_every_setting_once():
    assert sorted(re.findall(r"^#?([A-Z_]+)=", read(".env.example"), re.MULTILINE)) == sorted(SETTINGS)


def test_a_copy_of_the_example_pins_no_default():
    assert dotenv_values(ROOT / ".env.example") == {"GROQ_API_KEYS": ""}


def test_what_the_example_comments_out_is_a_default_or_an_example():
    commented = dotenv_values(
        stream=StringIO("\n".join(re.findall(r"^#([A-Z_]+=.*)", read(".env.example"), re.MULTILINE)))
    )

    assert commented
    for name, value in commented.items():
        assert is_default(name, value) or SETTINGS[name].default is None
        assert SETTINGS[name].metadata["parse"](value) is not None


def app_json() -> Iterator[tuple[str, Any]]:
    for name, setting in json.loads(read("app.json"))["env"].items():
        yield name, setting.get("value")


def render_yaml() -> Iterator[tuple[str, Any]]:
    (service,) = yaml.safe_load(read("render.yaml"))["services"]
    for setting in service["envVars"]:
        yield setting["key"], setting.get("value")


@pytest.mark.parametrize("declared", [app_json, render_yaml])
def test_the_buttons_offer_settings_that_exist_at_their_defaults(declared):
    settings = dict(declared())

    assert "GROQ_API_KEYS" in settings
    assert settings.keys() <= SETTINGS.keys() - CHOSEN_BY_THE_PLATFORM
    for name, value in settings.items():
        assert value is None or is_default(name, value)


def test_the_keys_are_asked_for_and_never_given():
    (render,) = yaml.safe_load(read("render.yaml"))["services"]

    assert json.loads(read("app.json"))["env"]["GROQ_API_KEYS"]["required"] is True
    assert {"key": "GROQ_API_KEYS", "sync": False} in render["envVars"]
    assert dotenv_values(ROOT / ".env.example")["GROQ_API_KEYS"] == ""


def test_the_readme_tells_every_setting_with_its_default():
    told = dict(readme_settings())

    assert sorted(told) == sorted(SETTINGS)
    for name, value in told.items():
        assert name == "TRUSTED_HOPS" or is_default(name, value)


def readme_settings() -> Iterator[tuple[str, str | None]]:
    """Each name with its default, ``None`` where it has none; a row may tell several: | `A`, `B` | `1`, `2` | …"""
    for line in read("README.md").splitlines():
        first, second, *_ = [re.findall(r"`([^`]*)`", cell) for cell in line.strip().strip("|").split("|")] + [[], []]
        if first and all(re.fullmatch("[A-Z][A-Z_]+", name) for name in first):
            yield from zip(first, second or [None] * len(first), strict=True)


# How it is started


def test_every_platform_starts_it_alike():
    (render,) = yaml.safe_load(read("render.yaml"))["services"]

    assert read("Procfile") == f"web: {render['startCommand']}\n"
    assert render["buildCommand"] == f"pip install -r requirements.txt && {compile_step()}"
    assert json.loads(read("app.json"))["buildpacks"] == [{"url": "heroku/python"}]


def compile_step() -> str:
    return read("bin/post_compile").splitlines()[-1]


@pytest.mark.live
def test_after_a_build_no_start_compiles_anything(tmp_path):
    for name in ("app.py", "keypool.py", "promptlord", "bin"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for old in [*tmp_path.rglob("*.pyc")]:
        old.unlink()
    env = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}"}
    subprocess.run(["bin/post_compile"], cwd=tmp_path, env=env, check=True)
    compiled = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.pyc")}

    subprocess.run([sys.executable, "-c", EVERY_MODULE], cwd=tmp_path, env=env, check=True, stderr=subprocess.DEVNULL)

    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.pyc")} == compiled
    assert len(compiled) == len([*tmp_path.rglob("*.py")])


def buttons() -> list[tuple[Any, Any]]:
    """Each deploy file with the schema of who reads it."""
    files = json.loads(read("app.json")), yaml.safe_load(read("render.yaml"))
    return [*zip(files, [json.loads(read(f"tests/schemas/{name}.json")) for name in ("app", "render")], strict=True)]


@pytest.mark.parametrize("number", [0, 1], ids=["heroku", "render"])
def test_the_platforms_can_read_their_files(number):
    file, schema = buttons()[number]

    jsonschema.validate(file, schema)
    assert re.search(r"20\d\d-\d\d-\d\d", schema["$comment"]), "of when?"


@pytest.mark.parametrize(
    ("number", "path", "field", "value"),
    [
        (0, [], "succes_url", "/"),
        (0, [], "repository", 1),
        (0, ["formation", "web"], "size", "huge"),
        (0, ["formation", "web"], "sise", "basic"),
        (0, ["env", "ACCESS_TOKENS"], "generator", "token"),
        (1, [], "service", []),
        (1, ["services", 0], "buildComand", "true"),
        (1, ["services", 0], "runtime", "pyhton"),
        (1, ["services", 0], "healthCheckPath", "ready"),
        (1, ["services", 0, "envVars", 0], "sink", False),
        (1, ["services", 0, "envVars", 0], "generateValue", True),
    ],
)
def test_the_schemas_notice_a_typing_error(number, path, field, value):
    file, schema = buttons()[number]
    reduce(lambda part, step: part[step], path, file)[field] = value

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(file, schema)


def test_heroku_opens_the_page_of_this_project_and_lets_its_owner_in():
    heroku = json.loads(read("app.json"))

    assert heroku["success_url"] == "/"
    assert f"| Heroku, {heroku['formation']['web']['size'].capitalize()} |" in read("README.md")
    assert f"template={heroku['repository']})" in read("README.md")
    assert f"repo={heroku['repository']})" in read("README.md")
    assert heroku["env"]["ACCESS_TOKENS"].keys() == {"description", "required"}
    assert heroku["env"]["ACCESS_TOKENS"]["required"] is False


@pytest.mark.parametrize("tokens", [("a-token",), ()])
@pytest.mark.parametrize("keys", [("gsk_one",), ()])
def test_renders_health_check_is_answered_with_and_without_keys_and_tokens(serve, keys, tokens):
    (render,) = yaml.safe_load(read("render.yaml"))["services"]
    client = serve(keys=keys, access_tokens=tokens)

    assert client.get(render["healthCheckPath"], buffered=True).status_code == 200


def test_the_platforms_python_is_one_that_is_supported():
    assert read(".python-version").strip() in ("3.11", "3.12", "3.13")


# What is installed


def pinned(*names: str) -> dict[str, Requirement]:
    lines = [line.partition("#")[0].strip() for name in names for line in read(name).splitlines()]
    named = [Requirement(line) for line in lines if line and line != "-r requirements.txt"]
    found = [one for one in named if not one.marker or one.marker.evaluate()]
    assert len({canonical(one.name) for one in found}) == len(found), "something is listed twice"
    return {canonical(one.name): one for one in found}


SERVICE, ALL = ["requirements.txt"], ["requirements.txt", "requirements-dev.txt"]


def test_every_requirement_is_pinned_to_what_runs_here():
    for requirement in pinned(*ALL).values():
        assert str(requirement.specifier) == f"=={version(requirement.name)}"


@pytest.mark.parametrize("names", [SERVICE, ALL], ids=["service", "all"])
def test_what_the_requirements_need_is_pinned_beside_them(names):
    pins = pinned(*names)

    for pin in pins.values():
        for text in requires(pin.name) or []:
            needed = Requirement(text)
            wanted = not needed.marker or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *pin.extras))
            assert not wanted or canonical(needed.name) in pins, f"{pin.name} needs {needed}"


def test_the_service_imports_only_what_requirements_txt_installs():
    modules = {"promptlord", *(file.stem for file in ROOT.glob("*.py"))}
    pins, distributions = pinned(*SERVICE), packages_distributions()

    for name in sorted(set(imported()) - modules - sys.stdlib_module_names):
        assert {canonical(distribution) for distribution in distributions[name]} & pins.keys(), name


def imported() -> Iterator[str]:
    """The first names of all that the service's modules import."""
    for file in [*ROOT.glob("*.py"), *ROOT.glob("promptlord/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield (node.module or "").partition(".")[0]
