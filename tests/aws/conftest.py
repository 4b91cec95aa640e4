"""The templates that are kept, as the checks read them."""

import pytest
from deploy.aws.checks.template import Template
from deploy.aws.files import read
from deploy.aws.sizes import SIZES


@pytest.fixture(params=[*SIZES])
def template(request: pytest.FixtureRequest) -> Template:
    """The template of each size, with that of the base stack."""
    return Template(read(request.param), request.param, read("base"))


@pytest.fixture
def standard() -> Template:
    """The template of the size that the guide describes."""
    return Template(read("standard"), "standard", read("base"))
