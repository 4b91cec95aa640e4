"""Wrong input is refused with its remedy; what the account itself refuses, an emulated one shows."""

import pytest
from deploy.aws.__main__ import ASKED
from deploy.aws.parameters import BASE_PARAMETERS
from deploy.aws.preflight import Wanted, command, refused_input

REGIONS = ("eu-central-1", "eu-north-1", "us-east-1")
GOOD = {
    "DomainName": "realtime.example.com",
    "ImageDigest": "sha256:" + "a" * 64,
    "AlertEmail": "oncall@example.com",
    "AllowedOrigins": "https://app.example.com",
}


def refusals(name: str = "portfolio", region: str = "eu-north-1", **parameters: str) -> list[str]:
    """What is said against this input."""
    return [*refused_input(Wanted(name, region, {**GOOD, **parameters}), REGIONS, ASKED)]


def test_good_input_is_not_refused() -> None:
    """What has a default may be left out."""
    assert refusals() == []
    base = Wanted("portfolio", "eu-north-1", {"DomainName": GOOD["DomainName"]})
    assert [*refused_input(base, REGIONS, BASE_PARAMETERS)] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "1st"}, "a letter first"),
        ({"region": "eu-moon-1"}, "is not one of ECS: eu-central-1, eu-north-1"),
        ({"DomainName": ""}, "--domain-name is missing"),
        ({"DomainName": "https://realtime.example.com"}, "without https:// and path"),
        ({"ImageDigest": "latest"}, "sha256: and 64 hexadecimal digits"),
        ({"AllowedOrigins": "https://app.example.com/"}, "what browsers send"),
        ({"AlertEmail": "oncall"}, "oncall@example.com"),
        ({"CpuArchitecture": "arm"}, "must be one of ARM64, X86_64"),
        ({"AlpacaDataFeed": "gold"}, "must be one of iex, sip, delayed_sip"),
        ({"BehindCloudflare": "maybe"}, "must be one of no, yes"),
    ],
)
def test_wrong_input_is_refused_with_the_remedy(wrong: dict[str, str], said: str) -> None:
    """One sentence for each thing that is wrong."""
    (refusal,) = refusals(**wrong)
    assert said in refusal


def test_the_command_names_everything() -> None:
    """What is printed can be typed as it is, but for the bucket."""
    typed = command(Wanted("acme", "eu-north-1", GOOD), "small", "main")
    assert "--stack-name acme --template-file deploy/aws/templates/small.json" in typed
    assert "BaseStack=acme-base" in typed
    assert f"ImageDigest={GOOD['ImageDigest']}" in typed
    assert "DomainName" not in typed
