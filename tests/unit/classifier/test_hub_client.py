"""What the Hub's client may send where it asks a mirror; how it connects is tested with a real one: tests/processes/test_hub_model.py."""

import pytest

from winnow_classifier import hub_client


@pytest.mark.parametrize(
    ("url", "goes"),
    [
        pytest.param("https://8.8.8.8/hub/api/models/a/b", True, id="the endpoint"),
        pytest.param("https://8.8.8.8:443/a/b/resolve/main/config.json", True, id="its port by name"),
        pytest.param("http://8.8.8.8/hub/api/models/a/b", False, id="in the clear"),
        pytest.param("https://8.8.8.8:8443/hub/api/models/a/b", False, id="its neighbour"),
        pytest.param(
            "https://huggingface.co/a/b/resolve/main/config.json", False, id="the Hub, for the library a friend"
        ),
    ],
)
def test_the_token_of_a_mirror_goes_to_that_server_alone(monkeypatch, url, goes):
    monkeypatch.setattr(hub_client.constants, "ENDPOINT", "https://8.8.8.8/hub")
    with hub_client._checked(()) as client:
        request = client.build_request("GET", url, headers={"authorization": "Bearer hf_secret"})
        for hook in client.event_hooks["request"]:
            hook(request)
    assert ("authorization" in request.headers) == goes
