"""Looks for versions with known vulnerabilities: `python -m tests.security.known_vulnerabilities`.

Without a network, against deploy/constraints/known-vulnerabilities.toml: what is installed beside this
interpreter, and what the files beside the list pin. `--audit PROGRAM` asks the databases by that pip-audit,
too, and names what the list lacks.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, field_validator

PINS = Path(__file__).resolve().parents[2] / "deploy" / "constraints"
LIST = PINS / "known-vulnerabilities.toml"


class Vulnerability(BaseModel):
    """An entry of the list."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str = Field(pattern=r"^(CVE-\d{4}-\d{4,}|GHSA(-[0-9a-z]{4}){3}|PYSEC-\d{4}-\d+)$")
    packages: tuple[str, ...] = Field(min_length=1)
    affected: tuple[str, ...] = Field(min_length=1)
    fixed: str
    what: str = Field(min_length=1)
    accepted: str = ""

    @field_validator("affected")
    @classmethod
    def _check_specifiers(cls, affected: tuple[str, ...]) -> tuple[str, ...]:
        for each in affected:
            SpecifierSet(each)
        return affected

    def affects(self, package: "FoundPackage") -> bool:
        """Return whether the package has this fault."""
        names = {canonicalize_name(name) for name in self.packages}
        return package.name in names and any(
            SpecifierSet(each).contains(package.version, prereleases=True) for each in self.affected
        )


class FoundPackage(BaseModel):
    """A version that is installed, or pinned in a file."""

    model_config = ConfigDict(frozen=True)
    name: str
    version: str
    where: str


def read_list(file: Path) -> list[Vulnerability]:
    """Return the entries of the list. Raises ValidationError and InvalidSpecifier."""
    entries = tomllib.loads(file.read_text("utf-8"))["vulnerability"]
    return [Vulnerability.model_validate(entry) for entry in entries]


def find_installed() -> Iterator[FoundPackage]:
    """Yield what is installed beside this interpreter."""
    for each in distributions():
        yield FoundPackage(name=canonicalize_name(each.name), version=each.version, where="installed")


def find_pinned(file: Path) -> Iterator[FoundPackage]:
    """Yield the pins (`name==version`) of a file of constraints or requirements."""
    for line in file.read_text("utf-8").splitlines():
        try:
            requirement = Requirement(line.partition(" #")[0].strip())
        except InvalidRequirement:
            continue  # A comment or an option.
        for pin in requirement.specifier:
            if pin.operator == "==":
                yield FoundPackage(
                    name=canonicalize_name(requirement.name), version=pin.version, where=file.name
                )


def judge(
    vulnerabilities: Iterable[Vulnerability], packages: Iterable[FoundPackage]
) -> tuple[list[str], list[str]]:
    """Return what must change, and what is accepted, in sentences."""
    faults, accepted, packages = [], [], list(packages)
    for each in vulnerabilities:
        hits = [package for package in packages if each.affects(package)]
        where = ", ".join(sorted({f"{hit.name} {hit.version} ({hit.where})" for hit in hits}))
        if hits and each.accepted:
            accepted.append(f"{each.id}: {where} stays: {each.accepted}")
        elif hits:
            cure = f"take {each.fixed} or later" if each.fixed else "there is no version without it"
            faults.append(f"{each.id}: {where} {each.what}; {cure}")
        elif each.accepted:
            faults.append(f"{each.id} is accepted, and nothing affected is left: remove `accepted`")
    return faults, accepted


def run_audit(program: Path, known: set[str]) -> list[str]:
    """Return what pip-audit finds beside this interpreter and the list does not name."""
    command = [program, "--path", sysconfig.get_path("purelib"), "--format", "json"]
    done = subprocess.run(
        [*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False
    )
    if not done.stdout:
        raise SystemExit(f"pip-audit did not answer; is there a network? {done.stderr[-2000:]}")
    audited = json.loads(done.stdout)["dependencies"]
    skipped = [package["name"] for package in audited if "skip_reason" in package]
    if len(skipped) > len(audited) / 2:
        raise SystemExit("pip-audit found hardly a package in its databases; is there a network?")
    print(f"not in the databases: {', '.join(skipped) or 'none'}")
    return [
        f"{found['id']}: {package['name']} {package['version']} is not in {LIST.name} "
        f"(fixed: {', '.join(found['fix_versions']) or 'nowhere'})"
        for package in audited
        for found in package.get("vulns", ())
        if not {found["id"], *found.get("aliases", ())} & known
    ]


def main(arguments: list[str]) -> int:
    """Print what was found, and return 1 where something must change."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--audit", type=Path, metavar="PROGRAM", help="a pip-audit that asks the databases")
    audit: Path | None = options.parse_args(arguments).audit
    vulnerabilities = read_list(LIST)
    pinned = [package for file in sorted(PINS.glob("*.txt")) for package in find_pinned(file)]
    packages = [*find_installed(), *pinned]
    faults, accepted = judge(vulnerabilities, packages)
    missing = run_audit(audit, {each.id for each in vulnerabilities}) if audit else []
    for line in (*accepted, *faults, *missing):
        print(line)
    print(f"{len(vulnerabilities)} known vulnerabilities, {len(packages)} versions: {len(faults)} to mend")
    return 1 if faults or missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
