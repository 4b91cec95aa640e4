"""Synthesis: the same bytes each time, without an account, a region or the network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aws_cdk as cdk
from deploy.aws.sizes import SIZES, Size
from deploy.aws.stack.base import BaseStack
from deploy.aws.stack.main import MainStack
from deploy.aws.stack.nag import add_nag

CONTEXT: Final[dict[str, Any]] = {
    "@aws-cdk/core:validateAgainstDefaultRules": True,  # AWS's own rules are errors
    "aws:cdk:enable-path-metadata": False,
    "aws:cdk:disable-asset-staging": True,
}


def synthesise(folder: Path, base: str, mains: Mapping[str, Size], *, with_nag: bool = False) -> None:
    """Write NAME.template.json of the base stack and of each stack of services into this folder.

    Raises what the CDK raises, such as a rule of AWS's validator that does not hold.
    """
    app = cdk.App(outdir=str(folder), analytics_reporting=False, context=CONTEXT, tree_metadata=False)
    if with_nag:
        add_nag(app)
    BaseStack(
        app,
        base,
        description="portfolio-realtime: images, certificate, secrets",
        synthesizer=cdk.BootstraplessSynthesizer(),
    )
    for name, size in mains.items():
        description = f"portfolio-realtime: services and their Valkey, {size.name}"
        MainStack(app, name, size, description=description, synthesizer=cdk.BootstraplessSynthesizer())
    app.synth()


def synthesise_all(folder: Path, *, with_nag: bool = False) -> None:
    """base.template.json, and one template for each size."""
    synthesise(folder, "base", SIZES, with_nag=with_nag)
