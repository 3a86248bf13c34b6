"""Every registered device against the contract."""

import pytest

from nas.devices.names import profile_files
from nas.devices.profile import read_profile
from nas.testing import devices as suite

FILES = sorted(profile_files().items())


@pytest.mark.parametrize(("name", "path"), FILES, ids=[name for name, _ in FILES])
def test_contract(name: str, path) -> None:
    profile = read_profile(path)
    suite.check_profile(profile, path)
    suite.check_timings(profile)
    suite.check_estimates(profile, path.parent)
