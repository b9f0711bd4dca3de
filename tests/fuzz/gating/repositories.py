"""Git repositories made by a test, free of what the machine's git is configured to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

WHO = ("-c", "user.name=a", "-c", "user.email=a@example.org")


class Repository:
    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *arguments: str) -> str:
        command = ["git", *WHO, "-C", str(self.path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, name: str, text: str | bytes) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def commit(self, **files: str) -> str:
        """Commit files named without their suffix, and whatever else has changed."""
        for name, text in files.items():
            self.write(f"{name}.py", text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a change")
        return self.git("rev-parse", "HEAD")

    def state(self) -> tuple[str, ...]:
        """What nobody but the user may change."""
        index = (self.path / ".git/index").read_bytes().hex()
        asked = (("status", "--porcelain"), ("rev-parse", "HEAD"), ("branch", "--all"))
        return index, *(self.git(*arguments) for arguments in asked)


def no_machine_settings(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    patch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


def make_repository(path: Path) -> Repository:
    path.mkdir(parents=True, exist_ok=True)
    repository = Repository(path)
    repository.git("init", "--quiet", "--initial-branch=main")
    return repository


def clone(repository: Repository, path: Path, *options: str) -> Repository:
    """By a URL: of a plain path git makes no shallow clone."""
    repository.git("clone", "--quiet", *options, f"file://{repository.path}", str(path))
    return Repository(path)
