"""The Kubernetes manifests fit their schemas, and fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
MADE: dict[str, Any] = {
    f"{path.stem}-{made['kind']}-{made['metadata']['name']}": made
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for made in yaml.safe_load_all(path.read_text())
}
OF_KEDA = {
    "ScaledObject": {
        "scaleTargetRef": {"name": str},
        "minReplicaCount": int,
        "maxReplicaCount": int,
        "cooldownPeriod": int,
        "fallback": {"failureThreshold": int, "replicas": int},
        "triggers": [{"type": str, "metadata": dict, "authenticationRef": {"name": str}}],
    },
    "TriggerAuthentication": {
        "secretTargetRef": [{"parameter": str, "name": str, "key": str}],
    },
}
"""What KEDA's definitions allow, as far as it is used: it is in no schema that works offline."""
METADATA_OF_TRIGGER = {
    "prometheus": {"serverAddress", "query", "threshold"},
    "redis": {"address", "listName", "listLength"},
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_it_fits_its_schema(made: dict[str, Any]) -> None:
    if made["apiVersion"].startswith("keda.sh/"):
        assert_shape(made["spec"], OF_KEDA[made["kind"]], made["kind"])
    else:
        kubernetes_validate.validate(made, kubernetes_validate.latest_version(), strict=True)


def test_a_misspelt_field_is_found() -> None:
    broken: dict[str, Any] = next(one for one in MADE.values() if one["kind"] == "Deployment")
    broken = {**broken, "spec": {**broken["spec"], "replica": 2}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)
    with pytest.raises(AssertionError, match="minReplicas"):
        assert_shape({"minReplicas": 1}, OF_KEDA["ScaledObject"], "ScaledObject")


def test_every_file_is_applied_but_the_secrets_example() -> None:
    listed = set(yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"])
    there = {path.name for path in FOLDER.glob("*.yaml")}

    assert there - listed == {"kustomization.yaml", "secret.example.yaml"}


def test_what_is_scaled_and_what_is_named_exists() -> None:
    made = list(MADE.values())
    names = {(one["kind"], one["metadata"]["name"]) for one in made}
    scaled = [
        one["spec"]["scaleTargetRef"]["name"] for one in made if one["kind"] == "ScaledObject"
    ]
    secret = next(one["stringData"] for one in made if one["kind"] == "Secret")
    config = next(one["data"] for one in made if one["kind"] == "ConfigMap")

    assert {("Deployment", name) for name in scaled} <= names
    for trigger in triggers(made):
        assert set(trigger["metadata"]) == METADATA_OF_TRIGGER[trigger["type"]]
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
    for address in (config["LOWTIDE_REDIS_URL"], config["LOWTIDE_DATABASE_URL"]):
        assert address.partition("{")[2].partition("}")[0] in secret


def test_it_scales_on_metrics_that_there_are() -> None:
    told = (FOLDER.parents[1] / "src/lowtide/metrics.py").read_text()
    for trigger in triggers(list(MADE.values())):
        if trigger["type"] == "prometheus":
            name = trigger["metadata"]["query"].partition("lowtide_")[2]
            name = name.partition("{")[0].partition(")")[0]
            assert f'"lowtide_{name}"' in told or f'"{name}"' in told


def triggers(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [t for one in made if one["kind"] == "ScaledObject" for t in one["spec"]["triggers"]]


def assert_shape(value: Any, shape: Any, where: str) -> None:
    if isinstance(shape, dict):
        assert set(value) <= set(shape), f"{where}: no field {set(value) - set(shape)}"
        for key, inner in value.items():
            assert_shape(inner, shape[key], f"{where}.{key}")
    elif isinstance(shape, list):
        for inner in value:
            assert_shape(inner, shape[0], where)
    else:
        assert isinstance(value, shape), f"{where}: {value!r} is no {shape.__name__}"
