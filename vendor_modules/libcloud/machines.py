"""What goes with machines: power, first boot, key pairs and images, by libcloud's base calls where there are some."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Collection
from hashlib import sha256
from typing import Any, ClassVar

from vendor_modules.capabilities import FirstBoot, Images, KeyPairs, MachineBundle, Power
from vendor_modules.errors import Conflict, NotFound, Unavailable, Unsupported
from vendor_modules.libcloud.core import Driver, LibcloudModule
from vendor_modules.resources import DiskFormat, Image, Key, KeyPair, Machine, MachineSpec, Status
from vendor_modules.userdata import script


class LibcloudPower(LibcloudModule, Power):
    """Starting and stopping by the base calls ``start_node`` and ``stop_node``; override the two hooks elsewhere."""

    def _start(self, driver: Driver, node: Any) -> None:
        driver.start_node(node)

    def _stop(self, driver: Driver, node: Any) -> None:
        driver.stop_node(node)

    async def _start_machine(self, machine_id: str) -> None:
        await self._run(lambda driver: self._switch(driver, machine_id, Status.ACTIVE, self._start))

    async def _stop_machine(self, machine_id: str) -> None:
        await self._run(lambda driver: self._switch(driver, machine_id, Status.STOPPED, self._stop))

    def _switch(self, driver: Driver, machine_id: str, to: Status, how: Callable[[Driver, Any], None]) -> None:
        node = self._node(driver, machine_id)
        if self._status_of(node) is None:
            raise NotFound(f"there is no machine {machine_id!r}")
        if self._status_of(node) is not to:
            how(driver, node)


class LibcloudStartedLast(LibcloudPower):
    """For drivers that create a machine in one call and start it in another: what an earlier attempt left stopped is
    finished."""

    def _finish(self, driver: Driver, node: Any, spec: MachineSpec) -> None:
        self._start(driver, node)

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        made = await super()._create_machine(spec, key)

        def finish(driver: Driver) -> None:
            node = self._node(driver, made.id)
            if self._status_of(node) is Status.STOPPED:
                self._finish(driver, node, spec)

        if made.status is Status.STOPPED:  # or was, before it was started
            await self._run(finish, key=f"machine {key}")
        return made


class LibcloudFirstBoot(LibcloudModule, FirstBoot):
    """User data as ``ex_userdata``."""

    largest_user_data: ClassVar[int | None] = 16 * 1024
    """Bytes that the provider takes."""

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        arguments = super()._node_arguments(driver, spec, key)
        if spec.user_data is None:
            return arguments
        made = script(spec.user_data, largest=self.largest_user_data).decode()
        return arguments | self._user_data(made)

    def _user_data(self, made: str) -> dict[str, Any]:
        """The keyword argument of ``create_node`` for the script."""
        return {"ex_userdata": made}


class LibcloudKeyPairs(LibcloudModule, KeyPairs):
    """Key pairs by libcloud's base calls."""

    def _key_pairs(self, driver: Driver) -> list[Any]:
        return list(driver.list_key_pairs())

    def _key_pair_id(self, pair: Any) -> str:
        """The key pair's id: its name, which must be one that an id can be."""
        return str(pair.name)

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        arguments = super()._node_arguments(driver, spec, key)
        return arguments | self._key_pair_argument(spec.key_pair) if spec.key_pair else arguments

    def _key_pair_argument(self, key_pair_id: str) -> dict[str, Any]:
        """The keyword argument of ``create_node`` for the key pair."""
        return {"ex_keyname": key_pair_id}

    async def _create_key_pair(self, name: str, public_key: str, key: Key) -> KeyPair:
        def create(driver: Driver) -> KeyPair:
            def make() -> Any:
                chosen = self._provider_name("key-pair", key, name)
                driver.import_key_pair_from_string(chosen, public_key, **self._tags_for("key-pair", key, name))
                made = [pair for pair in self._key_pairs(driver) if self._key_of(pair, (key,)) == key]
                if not made:
                    raise Unavailable("the key pair that was created is not listed yet")
                return made[0]  # what the driver returns does not have all

            pair = self._once(lambda: self._key_pairs(driver), make, driver.delete_key_pair, key)
            return self._key_pair(pair, (key,))

        return await self._run(create, key=f"key-pair {key}")

    async def _describe_key_pair(self, key_pair_id: str) -> KeyPair:
        keys = await self._keys("key-pair")

        def describe(driver: Driver) -> KeyPair:
            return self._key_pair(self._named(driver, key_pair_id), keys)

        return await self._run(describe)

    async def _list_key_pairs(self) -> list[KeyPair]:
        keys = await self._keys("key-pair")
        return await self._run(lambda driver: [self._key_pair(pair, keys) for pair in self._key_pairs(driver)])

    async def _destroy_key_pair(self, key_pair_id: str) -> None:
        await self._run(lambda driver: driver.delete_key_pair(self._named(driver, key_pair_id)))

    def _named(self, driver: Driver, name: str) -> Any:
        found = next((pair for pair in self._key_pairs(driver) if self._key_pair_id(pair) == name), None)
        if found is None:
            raise NotFound(f"there is no key pair {name!r}")
        return found

    def _key_pair(self, pair: Any, keys: Collection[str]) -> KeyPair:
        return KeyPair(
            id=self._key_pair_id(pair),
            name=self._name_of(pair),
            key=self._key_of(pair, keys),
            status=Status.ACTIVE,
            public_key=pair.public_key or "",
            fingerprint=pair.fingerprint or _fingerprint(pair.public_key or ""),
        )


class LibcloudImages(LibcloudModule, Images):
    """The image catalogue by ``list_images`` and ``delete_image``."""

    image_format: ClassVar[DiskFormat] = DiskFormat.RAW
    """What images are, as far as can be told."""

    def _node_images(self, driver: Driver) -> list[Any]:
        """All images that the account can use, in all pages."""
        return list(driver.list_images())

    def _image_status(self, image: Any) -> Status | None:
        """The image's state; None for one that is no more."""
        return Status.ACTIVE

    def _is_public(self, image: Any, key: str) -> bool:
        """Whether the image is not the account's own."""
        return not key and bool((image.extra or {}).get("is_public", True))

    async def _describe_image(self, image_id: str) -> Image:
        keys = await self._keys("image")

        def describe(driver: Driver) -> Image:
            image = self._node_image(driver, image_id)
            if self._image_status(image) is None:
                raise NotFound(f"there is no image {image_id!r}")
            return self._image(image, keys)

        return await self._run(describe)

    async def _list_images(self) -> list[Image]:
        keys = await self._keys("image")

        def images(driver: Driver) -> list[Image]:
            found = self._node_images(driver)
            return [self._image(image, keys) for image in found if self._image_status(image) is not None]

        return await self._run(images)

    async def _destroy_image(self, image_id: str) -> None:
        await self._run(lambda driver: driver.delete_image(self._node_image(driver, image_id)))

    def _image(self, image: Any, keys: Collection[str]) -> Image:
        key = self._key_of(image, keys)
        return Image(
            id=str(image.id),
            name=self._name_of(image),
            key=key,
            status=self._image_status(image) or Status.PENDING,
            format=self.image_format,
            public=self._is_public(image, key),
        )


class LibcloudListedImages(LibcloudImages):
    """Images where the driver cannot remove any; a module declares that in its ``abilities``."""

    async def _destroy_image(self, image_id: str) -> None:
        raise Unsupported("libcloud's driver has no call to remove images")


class LibcloudMachineBundle(LibcloudImages, MachineBundle):
    """Images of machines by ``create_image``."""

    def _create_image(self, driver: Driver, node: Any, name: str, key: Key) -> Any:
        tags = self._tags_for("image", key, name)
        return driver.create_image(node, self._provider_name("image", key, name), **tags)

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        def make(driver: Driver) -> Any:
            node = self._node(driver, machine_id)
            if self._status_of(node) is None:
                raise NotFound(f"there is no machine {machine_id!r}")
            if self._status_of(node) is not Status.STOPPED:
                raise Conflict(f"machine {machine_id} is not stopped")
            return self._create_image(driver, node, name, key)

        def bundle(driver: Driver) -> Image:
            image = self._once(lambda: self._node_images(driver), lambda: make(driver), driver.delete_image, key)
            return self._image(image, (key,))

        return await self._run(bundle, key=f"image {key}")


def _fingerprint(public_key: str) -> str:
    """As ``ssh-keygen -l`` prints it; empty for what is no public key in OpenSSH's form."""
    try:
        content = b64decode(public_key.split()[1], validate=True)
    except (IndexError, ValueError):
        return ""
    return "SHA256:" + b64encode(sha256(content).digest()).decode().rstrip("=")
