"""The account of whoever types: botocore's session. Runs beside the CDK, in .venv-aws."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import botocore.exceptions
import botocore.session
from deploy.aws.preflight import Client, Wanted


def regions() -> list[str]:
    """Every region that has ECS, of every partition."""
    session = botocore.session.Session()
    partitions = session.get_available_partitions()
    return sorted({region for one in partitions for region in session.get_available_regions("ecs", one)})


class Asked:
    """An account in a region, which is only read."""

    def __init__(self, region: str) -> None:
        self._session = botocore.session.Session()
        self._region = region

    def client(self, service: str) -> Any:
        """A client of one service."""
        return self._session.create_client(service, region_name=self._region)

    def reasons(self, look: Callable[[Wanted, Client], Iterable[str]], wanted: Wanted) -> list[str]:
        """What the account has against it; exits where it cannot be asked."""
        try:
            self.client("sts").get_caller_identity()
            return [*look(wanted, self.client)]
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            sys.exit(f"AWS could not be asked: {error}\n  aws sts get-caller-identity shows who you are")
