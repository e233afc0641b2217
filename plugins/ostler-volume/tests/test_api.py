"""What the plugin promises to its callers."""

from pathlib import Path

from ostler.testing import check_rpc_api, check_rpc_client, host
from ostler_volume.api import VolumeApi
from ostler_volume.manager import VolumeManager


def test_the_version_says_what_changed_since_the_last_release():
    # It asserts by itself: an AssertionError names each change.
    check_rpc_api(VolumeManager, Path(__file__).parent / "api")


def test_the_typed_client_matches_the_manager():
    # It asserts by itself: an AssertionError names each difference.
    check_rpc_client(VolumeApi, VolumeManager)


def test_a_volume_is_made_and_found_through_the_typed_client(tmp_path):
    config = f"""
    [services.volume]
    manager = "volume"
    [services.volume.drivers.local]
    driver = "file"
    path = "{tmp_path / "volumes"}"
    """
    (tmp_path / "volumes").mkdir()
    with host(plugins=["ostler_volume.plugin"], config=config) as h, h.client() as client:
        h.wait_driver("volume", "local")
        volumes = VolumeApi(client)
        made = volumes.create_volume("a", size=4096, backend="local")
        assert (made.name, made.size) == ("a", 4096)
        assert volumes.get_volume("a") == made
        assert [one.name for one in volumes.on(timeout=5).list_volumes()] == ["a"]
        assert not volumes.upgrading().upgrading
        assert volumes.delete_volume("a") is None
