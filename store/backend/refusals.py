"""What an object store's client reports, as one sentence, and whether another attempt can help.

The client (obstore) reports an error as text: a first line with the request and the status or kind of fault,
the server's answer (XML for S3 and Azure), and under "Debug source" what the operating system said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "[fd00:ec2::254]")
"""Where the client asks for a machine's role, which it does last: without any other credentials."""

PASSING = frozenset({408, 409, 425, 429})  # of the statuses from 400 to 499, those that end by themselves
_NO_BUCKET = re.compile(r"\b(NoSuchBucket|ContainerNotFound|specified bucket does not exist)\b")
_REGION = re.compile(
    r"incorrectly configured region|PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocation"
)
_TIME = re.compile(r"\bRequestTimeout\b")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (profiles in ~/.aws are not read)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_ENDPOINT = {
    "s3": "AWS_ENDPOINT_URL, or AWS_REGION for Amazon's own",
    "gs": "GOOGLE_BASE_URL, or the network",
    "az": "AZURE_STORAGE_ENDPOINT or AZURE_STORAGE_ACCOUNT_NAME",
}


@dataclass(frozen=True)
class Refusal:
    """What has become of a request."""

    reason: str
    """What happened, in a few words."""
    advice: str = ""
    """What is to be done about it."""
    final: bool = False
    """Whether no other attempt can help."""
    unmet: bool = False
    """Whether nothing at all has answered there: final where nothing ever did."""

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}" if self.advice else self.reason


def refusal(url: str, error: BaseException) -> Refusal:
    """Say what an error of the client means for a request to a store of this URL."""
    scheme, bucket = urlsplit(url).scheme, urlsplit(url).netloc
    text = str(error)
    server = _server(text)
    at = f" at {server}" if server else ""
    if no_bucket(error):
        kind = "container" if scheme == "az" else "bucket"
        return Refusal(f'no {kind} "{bucket}"{at}', "create it, or correct the store's URL", final=True)
    status, answer = _status(text)
    if any(f"//{address}" in text for address in METADATA) and not status >= 500:
        return Refusal("no credentials", f"expected them in {_CREDENTIALS.get(scheme, '')}", final=True)
    if _REGION.search(text):
        reason = answer or "redirected to another region"
        variable = "AWS_REGION" if scheme == "s3" else "the endpoint"
        return Refusal(f"{reason}{at}", f"set {variable} to that of the bucket", final=True)
    if status in (401, 403):
        expected = f"expected credentials that may read and write there: {_CREDENTIALS.get(scheme, '')}"
        return Refusal(f"access denied{at} ({answer})", expected, final=True)
    if status:
        return Refusal(f"{answer}{at}", final=400 <= status < 500 and not passes(status, text))
    if "BadScheme" in text and server.startswith("http:"):
        variable = {"s3": "AWS_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}.get(scheme, "GOOGLE_ALLOW_HTTP")
        return Refusal(f"{server} is plain http", f"set {variable}=true to allow it", final=True)
    if "kind: Connect" in text and "ConnectionReset" not in text:
        expected = f"expected the object store's address: check {_ENDPOINT.get(scheme, '')}"
        return Refusal(f"no connection to {server} ({_fault(text)})", expected, unmet=True)
    if "HTTP error" in text and (fault := _fault(text)):
        return Refusal(f"{fault}{at}", final="builder error" in text)
    return Refusal(first_line(error), final=not isinstance(error, _generic()))


# What the client says where a setting is missing: the one that is there, and what belongs to it.
_HALVES = {
    "Missing SecretAccessKey": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "Missing AccessKeyId": ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    "Missing Token": ("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
}


def half_set(reason: str) -> str:
    """Return what to set where credentials are there in part; "" where nothing is known of that."""
    if "Account must be specified" in reason:
        return f"{reason}; set AZURE_STORAGE_ACCOUNT_NAME"
    for said, (present, missing) in _HALVES.items():
        if said in reason:
            return f"{present} is set, but not {missing}; expected both, or neither"
    return ""


def no_bucket(error: BaseException) -> bool:
    """Tell whether the bucket itself is missing."""
    return _NO_BUCKET.search(str(error)) is not None


def passes(status: int, text: str) -> bool:
    """Tell whether a status of the client's own making (from 400 on) ends by itself."""
    return status in PASSING or _TIME.search(text) is not None


def first_line(error: BaseException) -> str:
    """Return what an error says, without the client's inner state and without a URL's query."""
    return re.sub(r"\?\S*", "", str(error).partition("\n")[0])


def _generic() -> type[Exception]:
    from obstore.exceptions import GenericError

    return GenericError


def _server(text: str) -> str:
    """Return the address that was asked, "" where none is named."""
    match = re.search(r"Error performing [A-Z]+ (https?://[^/\s?]+)", text)
    return match[1].rpartition("@")[2] if match and "@" in match[1] else match[1] if match else ""


def _status(text: str) -> tuple[int, str]:
    """Return the status of an answer, and it with the server's own words; 0 and what it said without."""
    match = re.search(r"status code: (\d{3})([^:\n]*)", text)
    code, message = _element("Code", text), _element("Message", text)
    words = ": ".join(filter(None, [code, message]))
    if not match:
        return 0, words
    return int(match[1]), " ".join(filter(None, [match[1], words or match[2].strip()]))


def _element(name: str, text: str) -> str:
    match = re.search(rf"<{name}>([^<]{{0,300}})</{name}>", text)
    return match[1].strip().rstrip(".") if match else ""


def _fault(text: str) -> str:
    """Return what the operating system said of a connection, or the kind of fault."""
    match = re.search(r'(?:message|error): "([^"\n]{1,200})"', text)
    if match:
        return match[1]
    kinds = [kind for kind in re.findall(r"kind: (\w+)", text) if kind not in ("Request", "Other")]
    inner = re.findall(r"([A-Z]\w+)\(\s*([A-Z]\w+),\s*\)", text)
    return " ".join(inner[-1]) if inner else kinds[-1] if kinds else ""
