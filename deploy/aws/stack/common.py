"""What both stacks do alike: parameters, values that one stack gives to the other, names."""

import aws_cdk as cdk
from deploy.aws.parameters import BASE_STACK, Parameter


def add_parameter(stack: cdk.Stack, parameter: Parameter) -> cdk.CfnParameter:
    """The parameter in the template: CloudFormation refuses what cannot be before it changes anything."""
    return cdk.CfnParameter(
        stack,
        parameter.name,
        type="String",
        description=parameter.description,
        default=parameter.default,
        allowed_pattern=parameter.pattern or None,
        allowed_values=list(parameter.allowed) or None,
        constraint_description=parameter.remedy or None,
    )


def export(stack: cdk.Stack, name: str, value: str, description: str) -> None:
    """An output that the services' stack imports by the name of this stack."""
    cdk.CfnOutput(
        stack,
        f"{name}Value",
        value=value,
        description=description,
        export_name=cdk.Fn.sub("${AWS::StackName}-" + name),
    )


def imported(name: str) -> str:
    """What the base stack exports under this name."""
    return cdk.Fn.import_value(cdk.Fn.sub(f"${{{BASE_STACK.name}}}-{name}"))


def unique_suffix() -> str:
    """Twelve digits of the stack's own id: for names that must be unique in the account, in lower case."""
    identity = cdk.Fn.select(2, cdk.Fn.split("/", cdk.Aws.STACK_ID))
    return cdk.Fn.select(4, cdk.Fn.split("-", identity))
