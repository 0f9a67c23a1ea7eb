"""What the API server itself fills in; everything else is for controllers, which a test plays."""

import base64

from tests.doubles.kube.store import Manifest


def completed(manifest: Manifest) -> Manifest:
    """The object as it is stored: a Secret has only data in base64, a Pod has a phase."""
    match manifest["kind"]:
        case "Secret":
            return _secret(manifest)
        case "Pod":
            return {"status": {"phase": "Pending"}, **manifest}
        case "Namespace":
            return {"status": {"phase": "Active"}, **manifest}
    return manifest


def _secret(manifest: Manifest) -> Manifest:
    stated = {field: value for field, value in manifest.items() if field != "stringData"}
    texts = manifest.get("stringData") or {}
    data = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
    if data or "data" in stated:
        stated["data"] = {**(stated.get("data") or {}), **data}
    return {"type": "Opaque", **stated}
