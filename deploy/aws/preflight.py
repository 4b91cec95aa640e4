"""What would make a deployment fail, found before anything is changed: input first, then the account.

Reads only. `client` gives a client of one AWS service (botocore's); what it answers is never printed where it
could be a secret.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.request import urlopen

from deploy.aws.parameters import BASE_PARAMETERS, MAIN_PARAMETERS, Parameter
from deploy.aws.services import SECRETS
from deploy.aws.sizes import VALKEY_FAMILY, VALKEY_VERSION

Client = Callable[[str], Any]
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,99}")
DONE: Final = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
OCI_NAMES: Final = {"ARM64": "arm64", "X86_64": "amd64"}
SAMPLE: Final = "your_"
FETCH_S_MAX: Final = 20
INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS: Final = (
    *INDEXES,
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


@dataclass(frozen=True)
class Wanted:
    """What somebody asks for: NAME and NAME-base in a region, with the parameters of both templates."""

    name: str
    region: str
    parameters: Mapping[str, str]
    is_update: bool = False

    @property
    def base(self) -> str:
        """Name of the stack that comes first."""
        return f"{self.name}-base"


def refused_input(wanted: Wanted, regions: Sequence[str], asked_for: Sequence[Parameter]) -> Iterator[str]:
    """What is wrong with the input itself, each with its remedy; nothing is asked of AWS."""
    if not NAME.fullmatch(wanted.name):
        yield f"name {wanted.name!r}: letters, digits and hyphens, a letter first, at most 100"
    if wanted.region not in regions:
        near = [region for region in regions if region[:2] == wanted.region[:2]]
        yield f"region {wanted.region!r} is not one of ECS: {', '.join(near or regions)}"
    for parameter in asked_for:
        value = wanted.parameters.get(parameter.name) or parameter.default
        if value is None:
            yield f"{option(parameter)} is missing: {parameter.description}"
        elif refusal := parameter.refusal(value):
            yield refusal


def option(parameter: Parameter) -> str:
    """`ImageDigest` -> `--image-digest`."""
    return "--" + re.sub(r"(?<!^)([A-Z])", r"-\1", parameter.name).lower()


def refused_base(wanted: Wanted, client: Client) -> Iterator[str]:
    """What the account has against making NAME-base."""
    status = stack_status(client, wanted.base)
    if status is not None and not wanted.is_update:
        yield f"a stack {wanted.base} exists ({status}): choose another --name, or say --update"


def refused_main(wanted: Wanted, client: Client) -> Iterator[str]:
    """What the account has against making NAME, once NAME-base is there."""
    status = stack_status(client, wanted.base)
    if status not in DONE:
        yield f"{wanted.base} is {status or 'not there'}: it comes first, and waits for its certificate"
        return
    status = stack_status(client, wanted.name)
    if status is not None and not wanted.is_update:
        yield f"a stack {wanted.name} exists ({status}): choose another --name, or say --update"
    if status is None and wanted.is_update:
        yield f"there is no stack {wanted.name} to update: leave --update out"
    yield from _secrets(wanted, client)
    yield from _image(wanted, client)
    yield from _valkey(client)


def stack_status(client: Client, name: str) -> str | None:
    """The status of a stack, or None when there is none."""
    formation = client("cloudformation")
    try:
        return str(formation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
    except formation.exceptions.ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def _secrets(wanted: Wanted, client: Client) -> Iterator[str]:
    manager = client("secretsmanager")
    for owner, keys in SECRETS.items():
        name = f"{wanted.base}/{owner}"
        put = f"aws secretsmanager put-secret-value --secret-id {name} --secret-string file://{owner}.json"
        try:
            values = json.loads(manager.get_secret_value(SecretId=name)["SecretString"])
        except (manager.exceptions.ClientError, KeyError, ValueError):
            values = None
        if not isinstance(values, dict):
            yield f"the secret {name} is not filled: {put}, JSON with {', '.join(keys)}"
            continue
        if missing := [key for key in keys if not values.get(key)]:
            yield f"the secret {name} lacks {', '.join(missing)}: no task would start"
        if samples := [key for key in keys if str(values.get(key, "")).startswith(SAMPLE)]:
            yield f"the secret {name} has the guide's sample for {', '.join(samples)}: put your own"


def _image(wanted: Wanted, client: Client) -> Iterator[str]:
    digest = wanted.parameters["ImageDigest"]
    architecture = wanted.parameters.get("CpuArchitecture") or "ARM64"
    repository = outputs(client, wanted.base)["RepositoryNameValue"]
    images = client("ecr").batch_get_image(
        repositoryName=repository, imageIds=[{"imageDigest": digest}], acceptedMediaTypes=[*MANIFESTS]
    )["images"]
    if not images:
        yield f"{repository} has no image {digest}: docker push prints the digest of what it has pushed"
        return
    found = {*_architectures(client, repository, json.loads(images[0]["imageManifest"]))}
    if OCI_NAMES[architecture] not in found:
        yield (
            f"the image is built for {', '.join(sorted(found))}, not for {architecture}: "
            f"docker buildx build --platform linux/{OCI_NAMES[architecture]}, or another --cpu-architecture"
        )


def _architectures(client: Client, repository: str, manifest: Mapping[str, Any]) -> Iterator[str]:
    if "manifests" in manifest:
        for one in manifest["manifests"]:
            yield str(one.get("platform", {}).get("architecture", "unknown"))
        return
    url = client("ecr").get_download_url_for_layer(
        repositoryName=repository, layerDigest=manifest["config"]["digest"]
    )["downloadUrl"]
    if not url.startswith(("https://", "http://127.0.0.1")):
        raise ValueError(f"ECR gave an address that is none of its own: {url[:60]}")
    with urlopen(url, timeout=FETCH_S_MAX) as answer:  # noqa: S310  # looked at above
        yield str(json.load(answer).get("architecture", "unknown"))


def _valkey(client: Client) -> Iterator[str]:
    listed = client("elasticache").describe_cache_engine_versions(Engine="valkey")["CacheEngineVersions"]
    versions = {str(one["EngineVersion"]): str(one["CacheParameterGroupFamily"]) for one in listed}
    family = next(
        (family for version, family in versions.items() if version.startswith(VALKEY_VERSION)), None
    )
    if family is None:
        yield f"ElastiCache has no Valkey {VALKEY_VERSION} here: {', '.join(sorted(versions))}"
    elif family != VALKEY_FAMILY:
        yield f"Valkey {VALKEY_VERSION} has parameters of {family}, not {VALKEY_FAMILY}: deploy/aws/sizes.py"


def outputs(client: Client, name: str) -> dict[str, str]:
    """What a stack gives."""
    stack = client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}


def command(wanted: Wanted, size: str, part: str) -> str:
    """What to type for `base` or `main`."""
    is_base = part == "base"
    values = {**wanted.parameters, "BaseStack": wanted.base}
    listed = BASE_PARAMETERS if is_base else MAIN_PARAMETERS
    words = [
        "aws cloudformation deploy",
        f"--region {wanted.region}",
        f"--stack-name {wanted.base if is_base else wanted.name}",
        f"--template-file deploy/aws/templates/{'base' if is_base else size}.json",
        "" if is_base else "--s3-bucket YOUR-BUCKET --capabilities CAPABILITY_IAM",
        "--parameter-overrides",
        *(f"{one.name}={values[one.name]}" for one in listed if values.get(one.name)),
    ]
    return " ".join(word for word in words if word)
