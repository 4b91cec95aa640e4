"""What a template must say, each with faults that must be found: plain Python over the JSON, however it was made."""

from deploy.aws.checks import balancer, environment, services, stacks, tasks, valkey, watch
from deploy.aws.checks.registry import CHECKS, Check, Fault, Finding, examine

GROUPS = (
    valkey,
    tasks,
    environment,
    services,
    balancer,
    watch,
    stacks,
)  # importing them registers their checks

__all__ = ["CHECKS", "GROUPS", "Check", "Fault", "Finding", "examine"]
