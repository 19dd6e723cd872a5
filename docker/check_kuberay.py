"""The structure of docker/kuberay.yaml, against the fields that KubeRay's API reference documents.

    python docker/check_kuberay.py [FILE]

Knows the fields that the file uses and their neighbours, so a field that is spelt otherwise, or
stands elsewhere, is named; no package carries KubeRay's own schemas. Then our own rules: one image,
Ray's version as pinned, authentication by a secret's name, no secret in the file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

HERE = Path(__file__).parent
ANY = object()  # any mapping
AMOUNTS = {"requests": ANY, "limits": ANY}
SOURCE = {"secretKeyRef": {"name": str, "key": str, "optional": bool}}
PROBE = {
    "exec": {"command": [str]},
    "initialDelaySeconds": int,
    "periodSeconds": int,
    "timeoutSeconds": int,
    "failureThreshold": int,
}
CONTAINER = {
    "name!": str,
    "image!": str,
    "imagePullPolicy": str,
    "securityContext": {"allowPrivilegeEscalation": bool, "capabilities": {"drop": [str]}},
    "env": [{"name!": str, "value": str, "valueFrom": SOURCE}],
    "ports": [{"name": str, "containerPort!": int}],
    "readinessProbe": PROBE,
    "livenessProbe": PROBE,
    "resources": AMOUNTS,
    "volumeMounts": [{"name!": str, "mountPath!": str}],
}
POD = {
    "containers!": [CONTAINER],
    "securityContext": {"runAsNonRoot": bool, "runAsUser": int, "fsGroup": int},
    "automountServiceAccountToken": bool,
    "imagePullSecrets": [{"name": str}],
    "nodeSelector": ANY,
    "tolerations": [{"key": str, "operator": str, "value": str, "effect": str}],
    "volumes": [{"name!": str, "persistentVolumeClaim": {"claimName!": str}}],
}
GROUP = {"rayStartParams": ANY, "template!": {"metadata": ANY, "spec!": POD}}
WORKERS = {
    "groupName!": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "idleTimeoutSeconds": int,
    **GROUP,
}
SPECS = {
    "PersistentVolumeClaim": {
        "accessModes": [str],
        "resources": AMOUNTS,
        "storageClassName": str,
    },
    "RayCluster": {
        "rayVersion": str,
        "authOptions": {"mode": str, "secretName": str},
        "enableInTreeAutoscaling": bool,
        "headGroupSpec!": {"serviceType": str, **GROUP},
        "workerGroupSpecs": [WORKERS],
    },
    "RayJob": {
        "clusterSelector": ANY,
        "entrypoint!": str,
        "runtimeEnvYAML": str,
        "submissionMode": str,
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
        "activeDeadlineSeconds": int,
    },
}


def differences(found: Any, wanted: Any, place: str) -> Iterator[str]:
    """Yield what of a value is not as its documented shape; a key with `!` must be there."""
    if isinstance(wanted, type):
        if type(found) is not wanted:
            yield f"{place}: expected {wanted.__name__}, got {found!r}"
    elif isinstance(wanted, list):
        if isinstance(found, list):
            for number, one in enumerate(found):
                yield from differences(one, wanted[0], f"{place}[{number}]")
        else:
            yield f"{place}: expected a list, got {found!r}"
    elif not isinstance(found, Mapping):
        yield f"{place}: expected fields, got {found!r}"
    elif wanted is not ANY:
        yield from fields(found, wanted, place)


def fields(found: Mapping[str, Any], wanted: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yield which fields nobody knows, are missing, or are of another shape."""
    known = {key.rstrip("!"): shape for key, shape in wanted.items()}
    for key, value in found.items():
        if key in known:
            yield from differences(value, known[key], f"{place}.{key}")
        else:
            yield f"{place}.{key}: no documented field; known here: {', '.join(known)}"
    for key in wanted:
        if key.endswith("!") and key[:-1] not in found:
            yield f"{place}.{key[:-1]}: is missing"


def mistakes(text: str, constraints: str) -> list[str]:
    """Return every mistake of a file, a sentence each."""
    try:
        documents = list(YAML(typ="safe").load_all(text))
    except YAMLError as failure:
        return [f"is no YAML: {' '.join(str(failure).split())}"]
    found: list[str] = []
    for number, one in enumerate(documents):
        kind = one.get("kind") if isinstance(one, Mapping) else None
        if kind not in SPECS:
            found.append(f"document {number}: kind {kind}; expected one of {', '.join(SPECS)}")
            continue
        version = "v1" if kind == "PersistentVolumeClaim" else "ray.io/v1"
        top = {"apiVersion!": str, "kind!": str, "metadata!": {"name!": str}, "spec!": SPECS[kind]}
        found += differences(one, top, kind)
        if one.get("apiVersion") != version:
            found.append(f"{kind}.apiVersion: expected {version}, got {one.get('apiVersion')}")
    return found or [line for one in documents for line in rules(one, documents, constraints)]


def rules(one: Any, documents: list[Any], constraints: str) -> Iterator[str]:
    """Yield what breaks our own rules, in a document whose structure is as documented."""
    clusters = {
        each["metadata"]["name"]: each for each in documents if each["kind"] == "RayCluster"
    }
    spec = one["spec"]
    if one["kind"] == "RayJob":
        name = spec.get("clusterSelector", {}).get("ray.io/cluster")
        if name not in clusters:
            yield f"RayJob.spec.clusterSelector: no RayCluster {name} in this file"
    if one["kind"] != "RayCluster":
        return
    if f"ray=={spec.get('rayVersion')}" not in constraints.splitlines():
        yield f"RayCluster.spec.rayVersion: {spec.get('rayVersion')} is not that of constraints.txt"
    access = spec.get("authOptions", {})
    if access.get("mode") != "token" or not access.get("secretName"):
        yield "RayCluster.spec.authOptions: expected mode token and the name of a secret"
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    pods = [group["template"]["spec"] for group in groups]
    containers = [each for pod in pods for each in pod["containers"]]
    images = {each["image"] for each in containers}
    if len(images) > 1:
        yield f"RayCluster: head and workers have other images: {', '.join(sorted(images))}"
    if not all(pod.get("securityContext", {}).get("runAsNonRoot") for pod in pods):
        yield "RayCluster: a pod without securityContext.runAsNonRoot"
    for variable in (each for container in containers for each in container.get("env", [])):
        name = variable["name"]
        if "value" in variable and any(word in name for word in ("PASSWORD", "TOKEN", "SECRET")):
            yield f"RayCluster: {name} stands in the file; take it from a secret with valueFrom"


def main(words: list[str]) -> int:
    """Print every mistake of the file; return 1 where there is one."""
    path = Path(words[0]) if words else HERE / "kuberay.yaml"
    constraints = (HERE.parent / "constraints.txt").read_text(encoding="utf-8")
    found = mistakes(path.read_text(encoding="utf-8"), constraints)
    for line in found:
        sys.stderr.write(f"{path}: {line}\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
