"""libcloud's EC2 driver, mended: what it leaves out, gets wrong, or does in two steps that can break in between.

* Lists are read to their last page; libcloud reads the first.
* The XML namespace of an answer is not believed: emulators and EC2's relatives have others than EC2, and libcloud's
  parsers then find nothing, and say so by an empty list.
* Requests are signed with version 4 and sent in bodies: 16 KiB of user data do not fit into a URL.
* Tags go with the creating call, and with it a token by which EC2 tells a repeated call. libcloud creates a volume or
  snapshot and tags it afterwards: when that fails, nobody knows it.
* Refusals are read by their code (:mod:`vendor_modules.ec2.errors`).
"""

# libcloud's drivers have no types, and each changes the parameters of the base calls to what its provider has:
# mypy: disable-error-code="no-untyped-call,override,arg-type"

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import count
from typing import Any
from urllib.parse import urlencode, urlsplit
from xml.etree.ElementTree import Element

from libcloud.common.aws import AWSRequestSignerAlgorithmV4, SignedAWSConnection
from libcloud.common.base import XmlResponse
from libcloud.compute.base import KeyPair, Node, NodeSize
from libcloud.compute.drivers.ec2 import API_VERSION, NAMESPACE, BaseEC2NodeDriver, EC2NodeDriver

from vendor_modules.ec2.errors import refusal
from vendor_modules.errors import NotFound, ProtocolError, VendorError
from vendor_modules.labels import KEY


class AwsResponse(XmlResponse):
    """An answer in the namespace that libcloud's parsers look for, or the error that it tells."""

    def parse_body(self) -> Any:
        """The answer's root, all its elements in libcloud's namespace."""
        root = super().parse_body()
        if isinstance(root, str):
            raise ProtocolError("the answer is empty")
        for element in root.iter():
            element.tag = f"{{{NAMESPACE}}}{element.tag.rpartition('}')[2]}"
        if root[:1] and root[0].tag.endswith("}Errors"):
            raise self._refusal(root)
        return root

    def parse_error(self) -> Any:
        """Raise what the answer says; by its HTTP status where it says nothing that can be read."""
        try:
            root = XmlResponse.parse_body(self)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, the status counts then
            root = ""
        raise self._refusal(root)

    def _refusal(self, root: Any) -> VendorError:
        told = {} if isinstance(root, str) else {e.tag.rpartition("}")[2]: e.text or "" for e in root.iter()}
        message = told.get("Message") or f"HTTP status {self.status}"
        return refusal(told.get("Code", ""), message, int(self.status), self.headers.get("retry-after", ""))


class Signer(AWSRequestSignerAlgorithmV4):
    """Signs the headers that matter. libcloud signs all, of which proxies on the way may change some."""

    def get_request_headers(self, params: Any, headers: Any, **more: Any) -> Any:
        """See libcloud."""
        signed = {name: value for name, value in headers.items() if name.lower() in ("host", "content-type")}
        params, signed = super().get_request_headers(params, signed, **more)
        return params, headers | signed


class AwsConnection(SignedAWSConnection):
    """A connection that sends what it asks in the body. Signature version 2 knows URLs only."""

    version = API_VERSION
    responseCls = AwsResponse  # noqa: N815 - libcloud's name
    service_name = "ec2"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.signature_version == "4":
            self.signer: Any = Signer(self.user_id, self.key, self.version, self)

    def request(self, action: str, params: Any = None, **options: Any) -> Any:
        """See libcloud."""
        if self.signature_version != "4" or not params:
            return super().request(action, params=params, **options)
        return super().request(
            action,
            data=urlencode({**params, "Version": self.version}),
            headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
            method="POST",
        )


class Ec2Driver(BaseEC2NodeDriver):
    """A driver for one region of EC2, or of what speaks like it, at a URL. A ``page`` of a list has so many resources:
    all of EC2's lists give 500."""

    connectionCls = AwsConnection  # type: ignore[assignment]  # noqa: N815 - libcloud's name
    name = "EC2"
    NODE_STATE_MAP = EC2NodeDriver.NODE_STATE_MAP
    country = ""

    def __init__(
        self, key: str, secret: str, *, url: str, region: str, signature_version: str = "4", page: int = 500
    ) -> None:
        where = urlsplit(url)
        self.region_name = region
        self.api_name = f"ec2_{region}"
        self.signature_version = signature_version
        self.path = where.path or "/"
        self.page = page
        secure = where.scheme == "https"
        super().__init__(key, secret, secure=secure, host=where.hostname, port=where.port or (443 if secure else 80))

    # --- asking ---

    def ask(self, action: str, **params: Any) -> Element:
        """The answer to an action; parameters that are None are left out, dots in their names are ``__``."""
        given = {name.replace("__", "."): str(value) for name, value in params.items() if value is not None}
        answer: Element = self.connection.request(self.path, params={"Action": action, **given}).object
        return answer

    def pages(self, action: str, path: str, *, paged: bool = True, **params: Any) -> Iterator[Element]:
        """The elements at ``path`` in all pages of a list."""
        token: str | None = None
        while True:
            answer = self.ask(action, MaxResults=self.page if paged else None, NextToken=token, **params)
            yield from items(answer, path)
            token = text(answer, "nextToken")
            if not token:
                return

    # --- lists, in full ---

    def list_sizes(self, location: Any = None) -> list[NodeSize]:
        """See libcloud; without its prices. For a region that libcloud does not know, all sizes that there are."""
        from libcloud.compute.constants.ec2_instance_types import INSTANCE_TYPES
        from libcloud.compute.constants.ec2_region_details_complete import REGION_DETAILS

        names = REGION_DETAILS.get(self.region_name, {}).get("instance_types", INSTANCE_TYPES)
        return [NodeSize(driver=self, price=None, **INSTANCE_TYPES[name]) for name in names]

    def list_nodes(self, ex_node_ids: Any = None, ex_filters: Any = None) -> list[Node]:
        """See libcloud; without a second call for addresses, which the nodes have already."""
        params = numbered("InstanceId", ex_node_ids or ()) | filters(ex_filters or {})
        found = self.pages("DescribeInstances", "reservationSet/item", paged=not ex_node_ids, **params)
        return [node for reservation in found for node in self._to_nodes(reservation, "instancesSet/item")]

    def list_volumes(self, node: Any = None, ex_filters: Any = None) -> list[Any]:
        """See libcloud."""
        wanted = dict(ex_filters or {}) | ({"attachment.instance-id": node.id} if node else {})
        return [self._to_volume(found) for found in self.pages("DescribeVolumes", "volumeSet/item", **filters(wanted))]

    def volume(self, volume_id: str) -> Any:
        """One volume."""
        return self._to_volume(only(self.ask("DescribeVolumes", VolumeId__1=volume_id), "volumeSet/item"))

    def list_snapshots(self, snapshot: Any = None, owner: Any = None) -> list[Any]:
        """See libcloud; the account's own."""
        found = self.pages("DescribeSnapshots", "snapshotSet/item", Owner__1=owner or "self")
        return [self._to_snapshot(one) for one in found]

    def snapshot(self, snapshot_id: str) -> Any:
        """One snapshot."""
        return self._to_snapshot(only(self.ask("DescribeSnapshots", SnapshotId__1=snapshot_id), "snapshotSet/item"))

    def images_of(self, owners: tuple[str, ...]) -> list[Any]:
        """The images of these accounts."""
        found = self.pages("DescribeImages", "imagesSet/item", **numbered("Owner", owners))
        return [self._to_image(one) for one in found]

    def get_image(self, image_id: str) -> Any:
        """See libcloud."""
        return self._to_image(only(self.ask("DescribeImages", ImageId__1=image_id), "imagesSet/item"))

    def list_key_pairs(self) -> list[Any]:
        """See libcloud; with the public keys and tags."""
        found = self.pages("DescribeKeyPairs", "keySet/item", paged=False, IncludePublicKey="true")
        return [self._key_pair(one) for one in found]

    def get_key_pair(self, name: str) -> Any:
        """See libcloud; with the public key and tags."""
        return self._key_pair(
            only(self.ask("DescribeKeyPairs", KeyName__1=name, IncludePublicKey="true"), "keySet/item")
        )

    def addresses(self, **params: Any) -> list[Element]:
        """The account's public addresses."""
        return items(self.ask("DescribeAddresses", **params), "addressesSet/item")

    def _key_pair(self, element: Element) -> KeyPair:
        return KeyPair(
            name=text(element, "keyName"),
            public_key=text(element, "publicKey"),
            fingerprint=text(element, "keyFingerprint"),
            driver=self,
            extra={"tags": tags_of(element)},
        )

    # --- making, in one step ---

    def create_node(self, name: str, size: Any, image: Any, *, ex_metadata: dict[str, str], **more: Any) -> Node:
        """Run a machine, once for the key in its tags; ``more`` are parameters of RunInstances."""
        if script := more.pop("ex_userdata", None):
            more["UserData"] = b64encode(script.encode()).decode()
        if key_pair := more.pop("ex_keyname", None):
            more["KeyName"] = key_pair
        tags = tagged("instance", {"Name": name, **ex_metadata})
        for attempt in count():  # EC2 remembers a token after the machine has been destroyed
            answer = self.ask(
                "RunInstances",
                ImageId=image.id,
                InstanceType=size.id,
                MinCount=1,
                MaxCount=1,
                ClientToken=token(ex_metadata[KEY], attempt),
                **more,
                **tags,
            )
            node: Node = self._to_nodes(answer, "instancesSet/item")[0]
            if node.extra["status"] not in ("shutting-down", "terminated"):
                return node
        raise AssertionError("count() does not end")

    def create_volume(
        self, size: int, name: str, *, ex_metadata: dict[str, str], zone: str, snapshot: Any = None
    ) -> Any:
        """Create a volume together with its tags, once for the key in them."""
        tags = tagged("volume", {"Name": name, **ex_metadata})
        for attempt in count():  # a token may be remembered after the volume has been destroyed
            answer = self.ask(
                "CreateVolume",
                Size=size,
                AvailabilityZone=zone,
                SnapshotId=snapshot.id if snapshot else None,
                VolumeType="gp3",
                ClientToken=token(ex_metadata[KEY], attempt),
                **tags,
            )
            volume = self._to_volume(answer)
            if volume.extra["state"] not in ("deleting", "deleted"):
                return volume
        raise AssertionError("count() does not end")

    def create_volume_snapshot(self, volume: Any, name: str | None = None, *, ex_metadata: dict[str, str]) -> Any:
        """Create a snapshot together with its tags."""
        tags = tagged("snapshot", {"Name": name or "", **ex_metadata})
        return self._to_snapshot(self.ask("CreateSnapshot", VolumeId=volume.id, **tags))

    def create_image(self, node: Any, name: str, *, ex_metadata: dict[str, str] | None = None) -> Any:
        """Make an image of a node, together with its tags, if any."""
        answer = self.ask("CreateImage", InstanceId=node.id, Name=name, NoReboot="true", **tagged("image", ex_metadata))
        return self.get_image(text(answer, "imageId") or "")

    def import_key_pair_from_string(self, name: str, key_material: str, *, ex_metadata: dict[str, str]) -> Any:
        """Make a public key known, together with its tags."""
        material = b64encode(key_material.encode()).decode()
        self.ask("ImportKeyPair", KeyName=name, PublicKeyMaterial=material, **tagged("key-pair", ex_metadata))
        return self.get_key_pair(name)

    # --- undoing ---

    def detach_volume(self, volume: Any, ex_force: bool = False) -> bool:
        """See libcloud; says which node has it."""
        self.ask("DetachVolume", VolumeId=volume.id, InstanceId=volume.extra["instance_id"])
        return True

    def delete_image(self, image: Any) -> bool:
        """See libcloud; the snapshots that the image is made of go with it."""
        snapshots = [mapping["ebs"]["snapshot_id"] for mapping in image.extra["block_device_mapping"]]
        self.ask("DeregisterImage", ImageId=image.id)
        for snapshot in filter(None, snapshots):
            self.ask("DeleteSnapshot", SnapshotId=snapshot)
        return True


def text(element: Element, path: str) -> str | None:
    """The text at a path; None where there is none."""
    return element.findtext(_full(path)) or None


def items(element: Element, path: str) -> list[Element]:
    """The elements at a path."""
    return element.findall(_full(path))


def only(element: Element, path: str) -> Element:
    """The one element at a path."""
    found = items(element, path)
    if not found:
        raise NotFound("the provider does not know it any more")
    if len(found) > 1:
        raise ProtocolError(f"one thing was asked for, and {len(found)} came")
    return found[0]


def _full(path: str) -> str:
    return "/".join(f"{{{NAMESPACE}}}{part}" for part in path.split("/"))


def tags_of(element: Element) -> dict[str, str]:
    """The tags of a resource."""
    return {text(tag, "key") or "": text(tag, "value") or "" for tag in items(element, "tagSet/item")}


def tagged(kind: str, ex_metadata: Mapping[str, str] | None = None) -> dict[str, str]:
    """Parameters with which a creating call tags what it creates, if it does."""
    if not ex_metadata:
        return {}
    params = {"TagSpecification__1__ResourceType": kind}
    for number, (name, value) in enumerate(ex_metadata.items(), 1):
        params[f"TagSpecification__1__Tag__{number}__Key"] = name
        params[f"TagSpecification__1__Tag__{number}__Value"] = value
    return params


def numbered(name: str, values: Any) -> dict[str, str]:
    """Parameters for a list of values."""
    return {f"{name}__{number}": value for number, value in enumerate(values, 1)}


def filters(wanted: Mapping[str, str]) -> dict[str, str]:
    """Parameters that ask only for what has these values."""
    params = {}
    for number, (name, value) in enumerate(wanted.items(), 1):
        params[f"Filter__{number}__Name"] = name
        params[f"Filter__{number}__Value__1"] = value
    return params


def token(key: str, attempt: int = 0) -> str:
    """By which EC2 tells a call that is repeated: at most 64 ASCII characters."""
    return blake2b(f"{attempt}:{key}".encode(), digest_size=24).hexdigest()
