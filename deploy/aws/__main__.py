"""`python -m deploy.aws`: make the templates, judge them, and look before a deployment."""

import argparse
import contextlib
import filecmp
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from deploy.aws.files import NAMES, TEMPLATES, path_of
from deploy.aws.parameters import BASE_PARAMETERS, BASE_STACK, MAIN_PARAMETERS
from deploy.aws.preflight import Wanted, command, option, refused_base, refused_input, refused_main
from deploy.aws.sizes import SIZES

EXIT_WRONG: Final = 2
ASKED: Final = tuple(one for one in (*BASE_PARAMETERS, *MAIN_PARAMETERS) if one is not BASE_STACK)


def synth(asked: argparse.Namespace) -> None:
    """A cloud assembly of two stacks, NAME-base and NAME: `npx aws-cdk deploy --app FOLDER`."""
    from deploy.aws.stack.app import synthesise  # starts Node

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,99}", asked.name):
        sys.exit(f"--name {asked.name!r}: {BASE_STACK.remedy}")
    shutil.rmtree(asked.folder, ignore_errors=True)
    synthesise(asked.folder, f"{asked.name}-base", {asked.name: SIZES[asked.size]})
    print(f"{asked.folder}: stacks {asked.name}-base and {asked.name} ({asked.size})")


def write(asked: argparse.Namespace) -> None:
    """Write the templates that the repository keeps."""
    del asked
    TEMPLATES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        _synthesise_all(Path(folder))
        for name in NAMES:
            shutil.copyfile(_made(folder, name), path_of(name))
    print(f"{TEMPLATES}: {', '.join(NAMES)}")


def write_task_definitions(asked: argparse.Namespace) -> None:
    """Write the task definitions that the repository keeps, and the page of checks."""
    from deploy.aws import document, task_definitions  # needs the product

    del asked
    task_definitions.write()
    document.write()
    print(task_definitions.FOLDER, document.PAGE)


def check(asked: argparse.Namespace) -> None:
    """Twice the same bytes, AWS's rules and cdk-nag's kept, and the same as what is kept."""
    from deploy.aws.stack.nag import disagreements

    del asked
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        _synthesise_all(Path(first))
        # It always finds something, what is waived, and prints all of it.
        with contextlib.suppress(RuntimeError), contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO())):
            _synthesise_all(Path(second), with_nag=True)
        for name in NAMES:
            if not filecmp.cmp(_made(first, name), _made(second, name), shallow=False):
                sys.exit(f"{name}: two syntheses differ")
            if not filecmp.cmp(_made(first, name), path_of(name), shallow=False):
                sys.exit(f"{path_of(name)} is not what is made from deploy/aws/stack: make aws-templates")
        if wrong := disagreements(Path(second)):
            sys.exit("cdk-nag:\n" + "\n".join(f"  {line}" for line in wrong))
    print(f"{', '.join(NAMES)}: twice the same bytes, as kept; AWS's rules and cdk-nag's hold")


def preflight(asked: argparse.Namespace) -> None:
    """What would make a deployment fail, before anything is changed; then the commands to type."""
    from deploy.aws.session import Asked, regions

    parameters = {one.name: getattr(asked, one.name) for one in ASKED}
    wanted = Wanted(asked.name, asked.region, {k: v for k, v in parameters.items() if v}, asked.update)
    is_base = asked.part == "base"
    _refuse(refused_input(wanted, regions(), BASE_PARAMETERS if is_base else ASKED))
    account = Asked(asked.region)
    _refuse(account.reasons(refused_base if is_base else refused_main, wanted))
    print(f"Nothing speaks against it:\n{command(wanted, asked.size, asked.part)}")


def _refuse(reasons: Iterable[str]) -> None:
    if listed := [*reasons]:
        print("Nothing was changed:\n" + "\n".join(f"  {reason}" for reason in listed), file=sys.stderr)
        sys.exit(EXIT_WRONG)


def _synthesise_all(folder: Path, *, with_nag: bool = False) -> None:
    from deploy.aws.stack.app import synthesise_all  # starts Node

    synthesise_all(folder, with_nag=with_nag)


def _made(folder: str, name: str) -> Path:
    return Path(folder) / f"{name}.template.json"


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m deploy.aws", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        made.set_defaults(run=run)
        return made

    made = add("synth", synth)
    made.add_argument(
        "--name", default="portfolio-realtime", help="of the stack; two names are two installations"
    )
    made.add_argument(
        "--size", required=True, choices=[*SIZES], help="small for some dozen viewers, else standard"
    )
    made.add_argument(
        "--folder", type=Path, default=Path("dist/aws"), help="where to write (default: %(default)s)"
    )
    made = add("preflight", preflight)
    made.add_argument("part", choices=["base", "main"], help="which of the two stacks comes next")
    made.add_argument(
        "--name", default="portfolio-realtime", help="of the installation (default: %(default)s)"
    )
    made.add_argument("--size", required=True, choices=[*SIZES])
    made.add_argument("--region", required=True, help="such as eu-central-1")
    made.add_argument("--update", action="store_true", help="the stack is there, and is to be changed")
    for one in ASKED:
        made.add_argument(
            option(one), dest=one.name, default=one.default, help=one.description.replace("%", "%%")
        )
    add("write", write)
    add("task-definitions", write_task_definitions)
    add("check", check)
    asked = parser.parse_args()
    asked.run(asked)


if __name__ == "__main__":
    main()
