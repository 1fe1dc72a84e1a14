"""InferenceServices of KServe."""

from __future__ import annotations

import subprocess

import pytest
from image_artifact import write_image_artifact

from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.serving.package.kserve import check_service_name, write_kserve
from s2mlp_deploy.serving.package.result import PackageOptions
from s2mlp_deploy.serving.plan import plan_run

yaml = pytest.importorskip("yaml")


def write(tmp_path, served="colours", **options):
    write_image_artifact(tmp_path / "a", name=served)
    plan = plan_run(tmp_path / "a", threads=2)
    package = write_kserve(tmp_path / "k 8", read_manifest(tmp_path / "a"), plan, PackageOptions(**options))
    return package, yaml.safe_load((tmp_path / "k 8" / "inferenceservice.yaml").read_text())


def test_of_a_container(tmp_path):
    package, document = write(tmp_path, image="0123", instances=2)
    assert (document["apiVersion"], document["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert document["metadata"] == {"name": "colours"}
    (container,) = document["spec"]["predictor"]["containers"]
    # A tag of digits stays text.
    assert (container["name"], container["image"]) == ("kserve-container", "0123")
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8000}
    assert container["resources"]["requests"]["cpu"] == "4"
    assert container["securityContext"]["runAsNonRoot"] is True
    assert package.commands == (f"kubectl apply -f '{tmp_path / 'k 8' / 'inferenceservice.yaml'}'",)


def test_of_a_repository(tmp_path):
    _, document = write(tmp_path, storage_uri="s3://models/repository", name="digits-2")
    assert document["metadata"]["name"] == "digits-2"
    assert document["spec"]["predictor"]["model"] == {
        "modelFormat": {"name": "triton"},
        "protocolVersion": "v2",
        "storageUri": "s3://models/repository",
    }


def test_without_a_name_the_served_one_is_spelled_as_kubernetes_takes_it(tmp_path):
    _, document = write(tmp_path, served="s2mlpv2_small_7", image="reg.example/c:1")
    assert document["metadata"]["name"] == "s2mlpv2-small-7"
    with pytest.raises(InputError, match="--name s2mlpv2-small-7"):  # Who asks for a name gets that or none.
        check_service_name("s2mlpv2_small_7")


@pytest.mark.parametrize("options", [{}, {"image": "a", "storage_uri": "b"}])
def test_one_of_both_is_needed(tmp_path, options):
    with pytest.raises(InputError, match="--image IMAGE"):
        write(tmp_path, **options)
    assert not (tmp_path / "k 8").exists()


@pytest.mark.parametrize("name", ["", "a b", "a\nb"])
@pytest.mark.parametrize("option", ["image", "storage_uri", "base"])
def test_images_and_addresses_are_one_word(option, name):
    with pytest.raises(InputError, match="no name of an image"):
        PackageOptions(**{option: name})


@pytest.mark.parametrize(
    ("name", "usable"),
    [("Digits_v2", "digits-v2"), ("-a", "a"), ("x" * 64, "x" * 63), ("___", "model"), ("a.b", "a-b")],
)
def test_names_that_kubernetes_does_not_take(name, usable):
    with pytest.raises(InputError) as error:
        check_service_name(name)
    assert f"--name {usable}" in str(error.value)
    assert check_service_name(usable) == usable


# The generated client has every field of the resource, and of those of Kubernetes in it.
_FIELDS = """
import sys
import kserve.models, kubernetes.client, yaml

def check(document, kind):
    unknown = set(document) - set(kind.attribute_map.values())
    assert not unknown, (kind.__name__, unknown)
    for name, key in kind.attribute_map.items():
        if key not in document:
            continue
        inner = kind.openapi_types[name].removeprefix("list[").removesuffix("]")
        inner = getattr(kserve.models, inner, None) or getattr(kubernetes.client, inner, None)
        for item in document[key] if isinstance(document[key], list) else [document[key]]:
            if inner is not None:
                check(item, inner)
                print(inner.__name__)

check(yaml.safe_load(open(sys.argv[1])), kserve.models.V1beta1InferenceService)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kind"), [({"image": "i:1"}, "V1Container"), ({"storage_uri": "s3://a/b"}, "V1beta1ModelSpec")]
)
def test_kserve_knows_every_field(tmp_path, kserve_python, options, kind):
    write(tmp_path, **options)
    file = tmp_path / "k 8" / "inferenceservice.yaml"
    done = subprocess.run([kserve_python, "-c", _FIELDS, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert kind in done.stdout.split()
