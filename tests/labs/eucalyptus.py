"""Moto's server, behind a gate that takes what Eucalyptus 5.1 takes and nothing else.

The gate is written from the message classes of Eucalyptus' ``compute-common-msgs`` at release 5.1.0, whose fields are
the parameters of each action, and from its ``ComputeQueryBinding``, which refuses a request with any other parameter.
Machine types are answered as Eucalyptus does: the action is its own, and EC2's of that name has another answer.
"""

from __future__ import annotations

import httpx

from tests.labs.stub import Answer, Request, StubServer

_LISTED = "Filter MaxResults NextToken"
_TAKEN = {
    "AttachVolume": "VolumeId InstanceId Device",
    "AuthorizeSecurityGroupIngress": "GroupId GroupName IpPermissions",
    "CreateImage": "InstanceId Name Description NoReboot BlockDeviceMapping",
    "CreateSecurityGroup": "GroupName GroupDescription VpcId",
    "CreateSnapshot": "VolumeId Description TagSpecification",
    "CreateVolume": "Size SnapshotId AvailabilityZone VolumeType Iops Encrypted KmsKeyId TagSpecification",
    "DeleteSecurityGroup": "GroupName GroupId",
    "DeleteSnapshot": "SnapshotId",
    "DeleteVolume": "VolumeId",
    "DeregisterImage": "ImageId",
    "DescribeAvailabilityZones": "ZoneName Filter",
    "DescribeImages": "ExecutableBy ImageId Owner Filter",
    "DescribeInstanceTypes": "Verbose Availability InstanceType",
    "DescribeInstances": f"InstanceId {_LISTED}",
    "DescribeSecurityGroups": "GroupName GroupId Filter",
    "DescribeSnapshots": f"SnapshotId Owner RestorableBy {_LISTED}",
    "DescribeVolumes": f"VolumeId {_LISTED}",
    "DetachVolume": "VolumeId InstanceId Device Force",
    "GetConsoleOutput": "InstanceId",
    "RunInstances": "ImageId MinCount MaxCount KeyName SecurityGroup SecurityGroupId UserData InstanceType Placement "
    "SubnetId ClientToken TagSpecification BlockDeviceMapping",
    "StartInstances": "InstanceId AdditionalInfo",
    "StopInstances": "InstanceId Force",
    "TerminateInstances": "InstanceId",
}
_TAGGED = {"RunInstances": "instance", "CreateVolume": "volume", "CreateSnapshot": "snapshot"}
"""What a creating call tags: specifications for anything else are passed over."""
_TYPES = (("m1.small", 1, 512, 5), ("m1.large", 2, 2048, 10))


class Gate(StubServer):
    """The gate before moto; ``refused`` says what was not let through, and why."""

    def __init__(self, moto: str) -> None:
        super().__init__()
        self.refused: list[str] = []
        self._moto = httpx.Client(base_url=moto, trust_env=False, timeout=30)

    def answer(self, request: Request) -> Answer:
        """See the base."""
        if problem := _problem(request.form):
            self.refused.append(problem)
            told = f"<Errors><Error><Code>InvalidParameterValue</Code><Message>{problem}</Message></Error></Errors>"
            return Answer(400, f"<Response>{told}</Response>".encode(), (("Content-Type", "text/xml"),))
        headers = {name: value.strip() for name, value in request.headers.items()}
        answer = self._moto.request(request.method, request.target, headers=headers, content=request.body)
        body = answer.content
        if request.form["Action"] == "DescribeInstanceTypes" and answer.status_code == 200:  # who asks is moto's matter
            body = _types()
        return Answer(answer.status_code, body, (("Content-Type", answer.headers["content-type"]),))

    def __exit__(self, *stopped: object) -> None:
        super().__exit__(*stopped)
        self._moto.close()


def _problem(form: dict[str, str]) -> str | None:
    action = form.get("Action", "")
    if action not in _TAKEN:
        return f"{action or 'no action'} is not one that a module may need"
    known = {"Action", "Version", *_TAKEN[action].split()}
    unknown = [name for name in form if name.partition(".")[0] not in known or ".Ipv6Ranges." in name]
    tagged = {value for name, value in form.items() if name.endswith(".ResourceType")}
    if tagged - {_TAGGED.get(action)}:
        return f"{action} tags no {', '.join(tagged)}"
    return f"{action}: Failed to bind the following fields: {', '.join(unknown)}" if unknown else None


def _types() -> bytes:
    items = "".join(
        f"<item><name>{name}</name><cpu>{cpu}</cpu><disk>{disk}</disk><memory>{memory}</memory></item>"
        for name, cpu, memory, disk in _TYPES
    )
    return f"<R><instanceTypeDetails>{items}</instanceTypeDetails></R>".encode()
