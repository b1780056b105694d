"""Whatever a cloud, its libraries or the network answer becomes the right error, in the cloud's own words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests
import urllib3
from keystoneauth1 import exceptions as identity

from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
)
from vendor_modules.openstack.errors import refusal, translate


def response(status: int, body: object = "", **headers: str) -> requests.Response:
    """An answer; a body that is no text is sent as JSON."""
    made = requests.Response()
    made.status_code, made.reason = status, "Reason"
    kind = "text/plain" if isinstance(body, str) else "application/json"
    made.headers.update({"content-type": kind} | {name.replace("_", "-"): value for name, value in headers.items()})
    made._content = (body if isinstance(body, str) else json.dumps(body)).encode()
    return made


NOVA_QUOTA = {"forbidden": {"code": 403, "message": "Quota exceeded for instances: Requested 1, but already used 10"}}
NEUTRON_QUOTA = {
    "NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['network'].", "detail": ""}
}
CINDER_QUOTA = {"overLimit": {"code": 413, "message": "VolumeLimitExceeded: Maximum number of volumes allowed (10)"}}
CINDER_STATE = {"badRequest": {"code": 400, "message": "Invalid volume: Volume status must be available or error"}}
KEYSTONE = {
    "error": {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}
}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (response(400, {"badRequest": {"message": "Invalid imageRef provided."}}), InvalidRequest),
        (response(400, CINDER_STATE), Conflict),
        (response(401, KEYSTONE), Unauthorized),
        (response(403, {"forbidden": {"message": "Policy doesn't allow it to be performed."}}), Forbidden),
        (response(403, NOVA_QUOTA), QuotaExceeded),
        (response(404, {"itemNotFound": {"message": "Instance x could not be found."}}), NotFound),
        (response(408), TimedOut),
        (
            response(
                409, {"conflictingRequest": {"message": "Cannot 'os-stop' instance while it is in vm_state stopped"}}
            ),
            Conflict,
        ),
        (response(409, NEUTRON_QUOTA), QuotaExceeded),
        (response(410), NotFound),
        (response(413, CINDER_QUOTA), QuotaExceeded),
        (response(413, CINDER_QUOTA, retry_after="0"), QuotaExceeded),
        (response(413, {"overLimit": {"message": "This request was rate-limited."}}, retry_after="7"), Throttled),
        (response(415), InvalidRequest),
        (response(422), InvalidRequest),
        (response(429), Throttled),
        (response(498), Throttled),
        (response(500, {"computeFault": {"message": "Unexpected API Error."}}), Unavailable),
        (response(501), Unsupported),
        (response(502), Unavailable),
        (response(503), Unavailable),
        (response(503, retry_after="3"), Throttled),
        (response(504), TimedOut),
        (response(507), QuotaExceeded),
    ],
    ids=lambda value: f"{value.status_code}" if isinstance(value, requests.Response) else value.__name__,
)
def test_answers(answer, expected):
    """Each status, with each service's words, is the error that it means."""
    assert type(translate(refusal(answer))) is expected


@pytest.mark.parametrize(
    "body", [NOVA_QUOTA, NEUTRON_QUOTA, CINDER_QUOTA, KEYSTONE], ids=["nova", "neutron", "cinder", "keystone"]
)
def test_the_clouds_own_words_are_kept(body):
    """The message that a service wraps in its own way is the error's detail."""
    (wrapped,) = body.values()
    assert translate(refusal(response(400, body))).detail == wrapped["message"]


@pytest.mark.parametrize("body", ["", "<html>" * 10_000, [], {"a": [1, {"b": None}]}, {"message": "x" * 10_000}])
def test_any_answer_has_words(body):
    """An answer that holds no message, or too long a one, is told in a few words."""
    assert 0 < len(translate(refusal(response(500, body))).detail) <= 500


def test_retry_after_is_told_in_seconds_or_as_a_date():
    """Both forms of Retry-After are understood, and one that is neither is a second."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    waits = [translate(refusal(response(429, retry_after=text))).retry_after for text in ("7", date, "soon")]
    assert waits[0] == 7
    assert 50 < waits[1] <= 60
    assert waits[2] == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (identity.Unauthorized(), Unauthorized),
        (identity.NotFound(), Unauthorized),
        (identity.BadGateway(), Unavailable),
        (identity.ConnectTimeout(), TimedOut),
        (identity.ConnectFailure(), Unavailable),
        (identity.RetriableConnectionFailure(), Unavailable),
        (identity.SSLError(), Unavailable),
        (identity.EndpointNotFound(), Unsupported),
        (identity.EmptyCatalog(), Unsupported),
        (identity.VersionNotAvailable(), Unsupported),
        (identity.DiscoveryFailure(), ProtocolError),
        (identity.MissingAuthPlugin(), Unauthorized),
        (requests.ReadTimeout(), TimedOut),
        (requests.ConnectionError(), Unavailable),
        (requests.exceptions.ChunkedEncodingError(), Unavailable),
        (requests.exceptions.InvalidURL(), InvalidRequest),
        (requests.exceptions.InvalidProxyURL(), InvalidRequest),
        (requests.exceptions.ContentDecodingError(), ProtocolError),
        (requests.exceptions.JSONDecodeError("no JSON", "", 0), ProtocolError),
        (urllib3.exceptions.ProtocolError(), Unavailable),
        (urllib3.exceptions.ReadTimeoutError(None, "", ""), TimedOut),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_libraries_errors(error, expected):
    """Each error of the libraries below is the one that it means."""
    assert type(translate(error)) is expected


def _all(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(_all(below) for below in kind.__subclasses__()))


BELOW = _all(identity.ClientException) | _all(requests.RequestException) | _all(urllib3.exceptions.HTTPError)


@pytest.mark.parametrize(
    "kind", sorted(BELOW, key=lambda kind: (kind.__module__, kind.__name__)), ids=lambda k: k.__name__
)
def test_no_error_of_the_libraries_is_missing(kind):
    """Every class of error that the libraries below have is mapped."""
    bare = {"__init__": lambda self: None, "__str__": lambda self: "told", "response": None}
    error = type(kind.__name__, (kind,), bare)()
    assert isinstance(translate(error), VendorError)


def test_a_fault_of_ours_is_not_the_clouds():
    """What comes from neither the cloud nor a library is not mapped."""
    assert translate(AssertionError()) is None
