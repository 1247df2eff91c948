from importlib.metadata import version

import pytest

COMMANDS = ("train", "evaluate", "predict", "demo")


def test_main__version(run):
    outcome = run("--version")
    assert (outcome.code, outcome.out.strip()) == (0, version("fasterrcnn"))


def test_main__help_names_the_commands(run):
    outcome = run("--help")
    assert outcome.code == 0
    assert all(command in outcome.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_main__help_of_a_command(run, command):
    outcome = run(command, "--help")
    assert outcome.code == 0
    assert "--json" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "trian"),
        (["train"], "data: name a folder or a file"),
        (["train", "data"], "data: no such file or folder"),
        (["train", "data", "--freeze", "all"], 'unable to convert "all" into a whole number or backbone.'),
        (["predict", "a.safetensors", "b.jpg", "--colour", "red", "-o", "out"], "--colour"),
        (["predict", "a.safetensors", "b.jpg", "-o", "out", "--score", "high"], "high"),
        (["predict", "a.safetensors", "b.jpg", "-o", "out", "--nms", "weighted"], "weighted"),
    ],
)
def test_main__mistakes_take_one_line(run, arguments, message):
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.is_one_line
    assert message in outcome.err


def test_main__interrupted(run, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("fasterrcnn.cli.main.app", interrupt)
    outcome = run("train")
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "interrupted\n")


def test_main__error_of_the_file_system(run, monkeypatch):
    def fail(*arguments, **options):
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr("fasterrcnn.cli.main.app", fail)
    outcome = run("train")
    assert (outcome.code, outcome.err) == (2, "error: /somewhere: Permission denied\n")
