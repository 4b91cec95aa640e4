"""Steps 2, 3 and 4 of the guide: environment, image, task definitions."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from deploy.aws.checks.registry import is_between, is_exactly, rule, value
from deploy.aws.checks.template import ABSENT, Resource, Template, container, strings, text_of
from deploy.aws.parameters import ARCHITECTURE
from deploy.aws.services import HEALTH_COMMAND, IMAGE_USER, SERVICES
from deploy.aws.sizes import SIZES, STOP_TIMEOUT_S

TASK: Final = "ECS::TaskDefinition"
ONLY: Final = "ContainerDefinitions[0]"
# Fargate's pairs: processor units -> memory in MiB, from and to, and the step between.
PAIRS: Final = {
    256: (512, 2048, 512),
    512: (1024, 4096, 1024),
    1024: (2048, 8192, 1024),
    2048: (4096, 16384, 1024),
    4096: (8192, 30720, 1024),
}

value(
    "task.fargate",
    "4",
    TASK,
    "RequiresCompatibilities",
    is_exactly(["FARGATE"]),
    (["EC2"], ABSENT),
    "runs on Fargate",
)
value(
    "task.network", "4", TASK, "NetworkMode", is_exactly("awsvpc"), ("bridge",), "Fargate knows awsvpc only"
)
value(
    "task.system",
    "limits",
    TASK,
    "RuntimePlatform.OperatingSystemFamily",
    is_exactly("LINUX"),
    ("WINDOWS",),
    "Linux",
)
value(
    "task.architecture",
    "pitfalls",
    TASK,
    "RuntimePlatform.CpuArchitecture",
    is_exactly({"Ref": ARCHITECTURE.name}),
    ("X86", ABSENT),
    "the image's processor is asked for, and checked before a deployment",
)
value(
    "task.role",
    "9",
    TASK,
    "TaskRoleArn",
    lambda found: found is ABSENT,
    ("arn:aws:iam::aws:policy/Admin",),
    "the services call no AWS API",
)
value(
    "task.user",
    "hardening",
    TASK,
    f"{ONLY}.User",
    is_exactly(IMAGE_USER),
    ("root", ABSENT),
    "nobody's user, as in the image",
)
value(
    "task.read-only",
    "hardening",
    TASK,
    f"{ONLY}.ReadonlyRootFilesystem",
    is_exactly(True),
    (False, ABSENT),
    "nothing is written",
)
value(
    "task.init",
    "hardening",
    TASK,
    f"{ONLY}.LinuxParameters.InitProcessEnabled",
    is_exactly(True),
    (False, ABSENT),
    "SIGTERM is heard while the service starts",
)
value(
    "task.rights",
    "hardening",
    TASK,
    f"{ONLY}.LinuxParameters.Capabilities.Drop",
    is_exactly(["ALL"]),
    (["NET_RAW"], ABSENT),
    "no right is kept",
)
value(
    "task.added-rights",
    "limits",
    TASK,
    f"{ONLY}.LinuxParameters.Capabilities.Add",
    lambda found: found is ABSENT,
    (["NET_ADMIN"],),
    "Fargate adds SYS_PTRACE only",
)
value(
    "task.privileged",
    "limits",
    TASK,
    f"{ONLY}.Privileged",
    lambda found: found in (ABSENT, False),
    (True,),
    "Fargate has no privileged containers",
)
value(
    "task.tmpfs",
    "hardening",
    TASK,
    f"{ONLY}.LinuxParameters.Tmpfs[0].MountOptions",
    lambda found: {"noexec", "nosuid", "nodev"} <= set(found),
    (["nosuid"], ABSENT),
    "what is written there cannot be run",
)
value(
    "task.tmpfs-size",
    "hardening",
    TASK,
    f"{ONLY}.LinuxParameters.Tmpfs[0].Size",
    is_between(8, 64),
    (4096,),
    "it counts as the task's memory",
)
value(
    "task.stop-timeout",
    "limits",
    TASK,
    f"{ONLY}.StopTimeout",
    is_exactly(STOP_TIMEOUT_S),
    (180, 30, ABSENT),
    "Fargate waits 120 s at most",
)
value(
    "task.essential",
    "4",
    TASK,
    f"{ONLY}.Essential",
    is_exactly(True),
    (False,),
    "the task ends with its service",
)
value(
    "task.health",
    "field",
    TASK,
    f"{ONLY}.HealthCheck.Command",
    is_exactly(list(HEALTH_COMMAND)),
    (["CMD", "true"], ABSENT),
    "ECS ignores the image's HEALTHCHECK",
)
value(
    "task.health-interval",
    "limits",
    TASK,
    f"{ONLY}.HealthCheck.Interval",
    is_between(5, 300),
    (1, 301),
    "5 to 300 s",
)
value(
    "task.health-timeout",
    "limits",
    TASK,
    f"{ONLY}.HealthCheck.Timeout",
    is_between(2, 60),
    (61,),
    "2 to 60 s",
)
value(
    "task.health-retries",
    "limits",
    TASK,
    f"{ONLY}.HealthCheck.Retries",
    is_between(1, 10),
    (20, 0),
    "1 to 10",
)
value(
    "task.health-start",
    "limits",
    TASK,
    f"{ONLY}.HealthCheck.StartPeriod",
    is_between(30, 300),
    (301, 0),
    "a service needs time to start; 300 s at most",
)
value(
    "task.log-driver",
    "4",
    TASK,
    f"{ONLY}.LogConfiguration.LogDriver",
    is_exactly("awslogs"),
    ("json-file",),
    "CloudWatch",
)
value(
    "task.log-mode",
    "field",
    TASK,
    f"{ONLY}.LogConfiguration.Options.mode",
    is_exactly("non-blocking"),
    ("blocking", ABSENT),
    "a service never waits for its log",
)
value(
    "task.log-buffer",
    "limits",
    TASK,
    f"{ONLY}.LogConfiguration.Options.max-buffer-size",
    lambda found: re.fullmatch(r"\d{1,3}[km]", found) is not None,
    ("4 MB", ABSENT),
    "a number with k or m",
)
value(
    "task.log-region",
    "agnostic",
    TASK,
    f"{ONLY}.LogConfiguration.Options.awslogs-region",
    is_exactly({"Ref": "AWS::Region"}),
    ("us-east-1", ABSENT),
    "the region of the stack",
)
value(
    "log.retention",
    "field",
    "Logs::LogGroup",
    "RetentionInDays",
    lambda found: found in (7, 14, 30, 60, 90, 180, 365),
    (31, ABSENT),
    "a number of days that CloudWatch takes; without one they are kept, and paid, for ever",
)


def _last(template: Template) -> Resource:
    return template.all(TASK)[-1]


def _in_container(name: str, wrong: Any) -> Callable[[Template], None]:
    return lambda template: _last(template).put(f"{ONLY}.{name}", wrong)


@rule(
    "task.services",
    "4",
    "a task definition for each of the four services, and one for people's commands",
    (
        "none for the consumer",
        lambda template: template.content["Resources"].pop(template.task("market_data_consumer").name),
    ),
)
def _services(template: Template) -> Iterator[tuple[str, str]]:
    found = {container(task)["Name"] for task in template.all(TASK)}
    for name in {service.name for service in SERVICES} ^ found:
        yield name, "must have exactly one task definition"


@rule(
    "task.size",
    "limits",
    "processor and memory that Fargate pairs, and those of the size",
    ("300 units", lambda template: _last(template).put("Cpu", "300")),
    ("too little memory", lambda template: template.task("websocket_server").put("Memory", "256")),
    (
        "another size",
        lambda template: template.task("symbol_collector").properties.update(Cpu="1024", Memory="2048"),
    ),
)
def _size(template: Template) -> Iterator[tuple[str, str]]:
    for task in template.all(TASK):
        cpu, memory = int(task.get("Cpu")), int(task.get("Memory"))
        wanted = SIZES[template.size].tasks[container(task)["Name"]]
        least, most, step = PAIRS.get(cpu, (0, -1, 1))
        if not (least <= memory <= most and (memory - least) % step == 0):
            yield task.name, f"Fargate has no {cpu} units with {memory} MiB"
        elif (cpu, memory) != (wanted.cpu, wanted.memory_mib):
            yield task.name, f"{template.size} has {wanted.cpu} units with {wanted.memory_mib} MiB"


@rule(
    "task.image",
    "3",
    "the image of our own repository, by its digest",
    ("latest", _in_container("Image", "clera/portfolio-realtime:latest")),
    (
        "a tag",
        lambda template: _last(template).put(
            f"{ONLY}.Image", {"Fn::Sub": "${AWS::AccountId}.dkr.ecr.${AWS::Region}.amazonaws.com/x:1"}
        ),
    ),
)
def _image(template: Template) -> Iterator[tuple[str, str]]:
    wanted = "${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}/<import ${BaseStack}-RepositoryName>@${ImageDigest}"
    for task in template.all(TASK):
        if text_of(container(task)["Image"]) != wanted:
            yield task.name, "Image must be of the repository, by ImageDigest"


@rule(
    "agnostic",
    "agnostic",
    "no account, region or zone of ours is written down",
    ("account", lambda template: _last(template).put("Family", "portfolio-123456789012")),
    ("zone", lambda template: template.all("EC2::Subnet")[0].put("AvailabilityZone", "dummy1a")),
    ("region", _in_container("Environment[Name=REDIS_DB].Value", "eu-central-1")),
)
def _agnostic(template: Template) -> Iterator[tuple[str, str]]:
    wrong = re.compile(
        r"\b\d{12}\b|dummy1|\b(us|eu|ap|sa|ca|me|af|il)(-gov)?-(north|south|east|west|central)+-\d"
    )
    for resource in template.everything():
        for text in strings(resource.body):
            if match := wrong.search(text):
                yield resource.name, f"{match[0]} is written down"
