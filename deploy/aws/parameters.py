"""What an installation is asked for: the parameters of the two templates, with what each may be."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

YES_NO: Final = ("no", "yes")


@dataclass(frozen=True)
class Parameter:
    """One CloudFormation parameter; without a default it must be given."""

    name: str
    description: str
    pattern: str = ""
    default: str | None = None
    allowed: Sequence[str] = ()
    remedy: str = ""

    def refusal(self, value: str) -> str | None:
        """Why this value cannot be, as CloudFormation would find too; None when it can."""
        if self.allowed and value not in self.allowed:
            return f"{self.name}={value!r} must be one of {', '.join(self.allowed)}"
        if self.pattern and not re.fullmatch(self.pattern, value):
            return f"{self.name}={value!r}: {self.remedy}"
        return None


_HOST: Final = r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}"
_ORIGIN: Final = rf"https://{_HOST}(:[0-9]{{1,5}})?"

DOMAIN: Final = Parameter(
    "DomainName",
    "Where clients connect, such as realtime.example.com",
    pattern=_HOST,
    remedy="must be a host name in lower case, such as realtime.example.com, without https:// and path",
)
REPOSITORY: Final = Parameter(
    "RepositoryName",
    "Name of the repository of images",
    pattern=r"[a-z0-9]+([._/-][a-z0-9]+)*",
    default="clera/portfolio-realtime",
    remedy="must be lower-case words, joined by one of . _ / -",
)
BASE_STACK: Final = Parameter(
    "BaseStack",
    "Name of the stack made from base.json",
    pattern=r"[A-Za-z][A-Za-z0-9-]{0,127}",
    default="portfolio-realtime-base",
    remedy="must be the name of a stack: letters, digits and hyphens, a letter first",
)
IMAGE_DIGEST: Final = Parameter(
    "ImageDigest",
    "Digest of the image, as docker push prints it; a tag could be moved",
    pattern=r"sha256:[0-9a-f]{64}",
    remedy="must be sha256: and 64 hexadecimal digits, as docker push and aws ecr describe-images print it",
)
ARCHITECTURE: Final = Parameter(
    "CpuArchitecture",
    "Processors for which the image was built; ARM64 costs 20 % less",
    default="ARM64",
    allowed=("ARM64", "X86_64"),
)
ALERT_EMAIL: Final = Parameter(
    "AlertEmail",
    "Who is told of alarms; a mail asks to confirm",
    pattern=r"[^@\s]+@[^@\s]+\.[^@\s]+",
    remedy="must be an address such as oncall@example.com",
)
ORIGINS: Final = Parameter(
    "AllowedOrigins",
    "Exact origins of the pages that may connect, separated by commas",
    pattern=rf"{_ORIGIN}(,{_ORIGIN})*",
    remedy="must be what browsers send, such as https://app.example.com, separated by commas without blanks",
)
SANDBOX: Final = Parameter(
    "AlpacaSandbox", "Alpaca's sandbox, or production", default="false", allowed=("false", "true")
)
DATA_FEED: Final = Parameter(
    "AlpacaDataFeed",
    "Stock feed that your market-data plan includes",
    default="iex",
    allowed=("iex", "sip", "delayed_sip"),
)
CLOUDFLARE: Final = Parameter(
    "BehindCloudflare",
    "yes once the record is orange: only Cloudflare's networks are let in, and believed about clients",
    default="no",
    allowed=YES_NO,
)
BASE_PARAMETERS: Final = (DOMAIN, REPOSITORY)
MAIN_PARAMETERS: Final = (
    BASE_STACK,
    IMAGE_DIGEST,
    ARCHITECTURE,
    ALERT_EMAIL,
    ORIGINS,
    SANDBOX,
    DATA_FEED,
    CLOUDFLARE,
)
