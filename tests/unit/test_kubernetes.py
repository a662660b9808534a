"""The files for Kubernetes: valid by its schemas, hardened, and in step with the product."""

import tomllib

import kubernetes_validate
import pytest
import yaml
from dagster import DagsterRun
from dagster._core.instance.config import dagster_instance_config
from dagster._serdes import ConfigurableClassData
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes.client import ApiClient

from api.settings import ApiSettings
from hubspot_deals.contract import CODE_LOCATION, JOB_NAME
from hubspot_deals.sync_contract import SYNC_LOCATION
from tests.unit.test_docs import ROOT, variables_of_the_code

FOLDER = ROOT / "deploy" / "kubernetes"
# The oldest that its makers still supported in 2026, and the newest that there are schemas of.
VERSIONS = ("1.32", "1.37")
VALUES = yaml.safe_load((FOLDER / "dagster-values.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"registry.example/hubspot-deals:{PROJECT['version']}"
INSTANCE = yaml.safe_load((FOLDER / "dagster.yaml").read_text())
DEPLOYMENT, SYNCS = VALUES["dagster-user-deployments"]["deployments"]


def manifests():
    """Every object of the folder, the overlay excepted."""
    names = [*yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]]
    files = [FOLDER / name for name in (*names, "secrets.example.yaml")]
    assert {file.name for file in FOLDER.iterdir()} == {
        *(file.name for file in files),
        "kustomization.yaml",
        "dagster-values.yaml",
        "dagster.yaml",
    }
    return [found for file in files for found in yaml.safe_load_all(file.read_text())]


def named(kind, name):
    (found,) = [
        each
        for each in manifests()
        if each["kind"] == kind and each["metadata"]["name"].startswith(name)
    ]
    return found


def built_by_dagster(part):
    """What Dagster makes of a part of its configuration, checked by the part's own schema."""
    config = yaml.safe_dump(part["config"])
    return ConfigurableClassData(part["module"], part["class"], config).rehydrate(as_type=object)


def launched_job(tmp_path):
    """The job that Dagster's own launcher makes of a run, with what the code server hands on."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context:"
        " {cluster: c, user: c}}], clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}],"
        " users: [{name: c, user: {}}]}"
    )
    outside = {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
    part = INSTANCE["run_launcher"]
    launcher = built_by_dagster({**part, "config": part["config"] | outside})
    assert isinstance(launcher, K8sRunLauncher)
    of_the_location = {
        "env_config_maps": [each["name"] for each in DEPLOYMENT["envConfigMaps"]],
        "volumes": DEPLOYMENT["volumes"],
        "volume_mounts": DEPLOYMENT["volumeMounts"],
        "resources": DEPLOYMENT["resources"],
        # The chart says this of every run; ours must survive beside it.
        "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
    }
    context = K8sContainerContext.create_for_run(
        DagsterRun(job_name=JOB_NAME), launcher, include_run_tags=False
    ).merge(K8sContainerContext.create_from_config({"k8s": of_the_location}))
    job = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(job_image=IMAGE, run_launcher=launcher),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run-1",
        component="run_worker",
        user_defined_k8s_config=context.run_k8s_config,
    )
    return ApiClient().sanitize_for_serialization(job)


def chart_pod(values, name, **container):
    """A pod as the chart's templates make it of the values of one of its parts."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "securityContext": values["podSecurityContext"],
            "volumes": values["volumes"],
            "containers": [
                {
                    "name": name,
                    "image": "{repository}:{tag}".format(**values["image"]),
                    "imagePullPolicy": values["image"]["pullPolicy"],
                    "securityContext": values["securityContext"],
                    "resources": values["resources"],
                    "volumeMounts": values["volumeMounts"],
                    "envFrom": [{"configMapRef": each} for each in values["envConfigMaps"]],
                    **container,
                }
            ],
        },
    }


def chart_probes(values):
    """The probes of a part as the chart makes them, which asks a code server in its own way."""
    asked = {}
    if "port" in values:
        command = ["dagster", "api", "grpc-health-check", "-p", str(values["port"])]
        asked = {"exec": {"command": command}}
    return {
        name: asked | {word: value for word, value in values[name].items() if word != "enabled"}
        for name in ("readinessProbe", "livenessProbe", "startupProbe")
        if name in values
    }


def chart_pods():
    return [
        chart_pod(values, name, **words, **chart_probes(values))
        for name, values, words in (
            ("webserver", VALUES["dagsterWebserver"], {"env": VALUES["dagsterWebserver"]["env"]}),
            ("daemon", VALUES["dagsterDaemon"], {"env": VALUES["dagsterDaemon"]["env"]}),
            ("code-server", DEPLOYMENT, {"args": DEPLOYMENT["dagsterApiGrpcArgs"]}),
            ("sync-server", SYNCS, {"args": SYNCS["codeServerArgs"]}),
        )
    ]


def pod_spec(found):
    return found["spec"] if found["kind"] == "Pod" else found["spec"]["template"]["spec"]


@pytest.fixture
def pods(tmp_path):
    """The specification of every pod that there can be."""
    own = [found for found in manifests() if found["kind"] in {"Deployment", "Job"}]
    return [pod_spec(found) for found in (*own, *chart_pods(), launched_job(tmp_path))]


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_is_valid_by_the_schemas_of_kubernetes(version, tmp_path):
    everything = [*manifests(), *chart_pods(), launched_job(tmp_path)]
    assert len(everything) == 19
    for found in everything:
        kubernetes_validate.validate(found, version, strict=True)


def test_a_wrong_word_would_be_found():
    wrong = named("Service", "api")
    wrong["spec"]["selektor"] = wrong["spec"].pop("selector")
    with pytest.raises(kubernetes_validate.ValidationError, match="selektor"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_pod_meets_the_restricted_standard(pods):
    assert len(pods) == 7
    for spec in pods:
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == 10001
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(
            volume.keys() & {"secret", "emptyDir", "configMap", "projected"}
            for volume in spec["volumes"]
        )
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"].keys() == {"cpu", "memory"}
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in mounted
    assert f"--uid {pods[0]['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()


def test_secrets_are_files_and_in_no_environment(pods):
    folder = named("ConfigMap", "hubspot-deals")["data"]["HUBSPOT_DEALS_SECRETS_DIR"]
    for spec in pods:
        (container,) = spec["containers"]
        (mounted,) = [each for each in spec["volumes"] if each["name"] == "secrets"]
        # The account's token is for the migration alone, which may do without.
        assert mounted in (
            {"name": "secrets", "secret": {"secretName": "hubspot-deals", "defaultMode": 0o440}},
            {
                "name": "secrets",
                "projected": {
                    "defaultMode": 0o440,
                    "sources": [
                        {"secret": {"name": "hubspot-deals"}},
                        {"secret": {"name": "hubspot-deals-account", "optional": True}},
                    ],
                },
            },
        )
        assert ("projected" in mounted) is (container["name"] == "migrate")
        assert folder in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert container["envFrom"] == [{"configMapRef": {"name": "hubspot-deals"}}]
        assert not any("valueFrom" in each for each in container.get("env", []))


def test_settings_and_secrets_are_those_of_the_product():
    secret, account, of_dagster = [found for found in manifests() if found["kind"] == "Secret"]
    settings = named("ConfigMap", "hubspot-deals")["data"]
    secrets = {**secret["stringData"], **account["stringData"]}
    given = {*settings, *map(str.upper, secrets)}
    assert given <= variables_of_the_code()
    assert "HUBSPOT_DEALS_ENCRYPTION_KEYS" in given
    assert settings["HUBSPOT_DEALS_ENVIRONMENT"] == "production"
    # Every pod has the first of the Secrets.
    assert "hubspot_deals_access_token" not in secret["stringData"]
    assert of_dagster["metadata"]["name"] == VALUES["global"]["postgresqlSecretName"]
    values = {**secrets, **of_dagster["stringData"]}.values()
    assert set(values) == {""}, "an example has no values"


def test_dagster_is_configured_as_everywhere_but_for_a_pod_for_each_run(tmp_path):
    own = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    differing = {"run_launcher", "compute_logs", "run_coordinator"}
    assert INSTANCE.keys() == own.keys()
    assert {name: INSTANCE[name] for name in own if name not in differing} == {
        name: value for name, value in own.items() if name not in differing
    }
    assert INSTANCE["run_coordinator"]["config"] == own["run_coordinator"]["config"]
    for name in ("run_coordinator", "compute_logs"):
        assert built_by_dagster({"config": {}, **INSTANCE[name]})
    # The file as a whole, by Dagster's schema.
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(INSTANCE))
    assert dagster_instance_config(str(tmp_path))[0]["retention"] == own["retention"]


def test_that_configuration_is_the_one_that_dagsters_pods_have(tmp_path):
    overlay = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    (generated,) = overlay["configMapGenerator"]
    assert generated["files"] == ["dagster.yaml"]
    assert overlay["generatorOptions"] == {"disableNameSuffixHash": True}
    for name in ("dagsterWebserver", "dagsterDaemon"):
        (variable,) = VALUES[name]["env"]
        assert variable["name"] == "DAGSTER_HOME"
        found = {each["name"]: each for each in VALUES[name]["volumes"]}["instance"]
        assert found["configMap"]["name"] == generated["name"]
        mount = {"name": "instance", "mountPath": variable["value"]}
        assert mount in VALUES[name]["volumeMounts"]
    (container,) = pod_spec(launched_job(tmp_path))["containers"]
    # A run is told the configuration by its launcher.
    assert variable in container["env"]
    config = INSTANCE["run_launcher"]["config"]
    assert config["instance_config_map"] == generated["name"]
    assert config["job_namespace"] == overlay["namespace"]


def test_dagster_is_of_the_version_and_finds_the_code_locations():
    (pinned,) = [each for each in PROJECT["dependencies"] if each.startswith("dagster==")]
    version = pinned.removeprefix("dagster==")
    for file in (FOLDER / "dagster-values.yaml", ROOT / "docs" / "deployment.md"):
        assert f"--version {version} " in file.read_text()
    assert DEPLOYMENT["dagsterApiGrpcArgs"][-2:] == ["--location-name", CODE_LOCATION]
    assert SYNCS["codeServerArgs"][-2:] == ["--location-name", SYNC_LOCATION]
    assert not SYNCS["dagsterApiGrpcArgs"], "the chart takes one or the other"
    assert VALUES["dagsterWebserver"]["workspace"]["servers"] == [
        {"host": each["name"], "port": each["port"], "name": name}
        for each, name in ((DEPLOYMENT, CODE_LOCATION), (SYNCS, SYNC_LOCATION))
    ]
    # Where it asks itself to load the connections anew, which the policy has to let through.
    settings = named("ConfigMap", "hubspot-deals")["data"]
    assert settings["HUBSPOT_DEALS_SYNC_SERVER_HOST"] == SYNCS["name"]
    assert settings["HUBSPOT_DEALS_SYNC_SERVER_PORT"] == str(SYNCS["port"])
    policy = named("NetworkPolicy", "code-server")["spec"]
    itself = {"from": [{"podSelector": policy["podSelector"]}], "ports": [{"port": SYNCS["port"]}]}
    assert itself in policy["ingress"]
    ports = [each["port"] for each in policy["ingress"][0]["ports"]]
    assert ports == [DEPLOYMENT["port"], SYNCS["port"]]


def test_a_pod_of_dagster_that_hangs_is_replaced_and_one_that_works_is_ready():
    webserver, daemon = VALUES["dagsterWebserver"], VALUES["dagsterDaemon"]
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        # What the chart asks by itself is on another port than the service that is configured here.
        answers = {"path": "/server_info", "port": webserver["service"]["port"]}
        assert webserver[probe]["httpGet"] == answers
        # The chart fills in the question and the port, as long as there is none.
        assert all("exec" not in each[probe] for each in (DEPLOYMENT, SYNCS))
    for each in (webserver, DEPLOYMENT, SYNCS):
        assert each["startupProbe"]["enabled"] is True
    assert DEPLOYMENT["readinessProbe"]["enabled"] is SYNCS["readinessProbe"]["enabled"] is True
    assert daemon["livenessProbe"]["exec"]["command"] == ["dagster-daemon", "liveness-check"]
    # As long as the daemon itself allows one of its threads, at least.
    assert (
        daemon["livenessProbe"]["periodSeconds"] * daemon["livenessProbe"]["failureThreshold"] > 300
    )


def test_only_dagsters_own_pods_may_ask_something_of_kubernetes():
    assert VALUES["dagster-user-deployments"]["rbacEnabled"] is False
    for name in ("api", "migrate"):
        (found,) = [
            each
            for each in manifests()
            if each["kind"] in {"Deployment", "Job"} and each["metadata"]["name"] == name
        ]
        assert pod_spec(found)["automountServiceAccountToken"] is False


def test_policies_and_services_find_the_pods_that_they_name():
    labels = named("Deployment", "api")["spec"]["template"]["metadata"]["labels"]
    assert named("Service", "api")["spec"]["selector"] == labels
    assert named("PodDisruptionBudget", "api")["spec"]["selector"]["matchLabels"] == labels
    assert named("NetworkPolicy", "api")["spec"]["podSelector"]["matchLabels"] == labels
    (port,) = named("Deployment", "api")["spec"]["template"]["spec"]["containers"][0]["ports"]
    (rule,) = named("NetworkPolicy", "api")["spec"]["ingress"]
    assert [each["port"] for each in rule["ports"]] == [port["containerPort"]]
    webserver = VALUES["dagsterWebserver"]
    address = f"http://dagster-{webserver['nameOverride']}:{webserver['service']['port']}"
    assert named("ConfigMap", "hubspot-deals")["data"]["HUBSPOT_DEALS_DAGSTER_URL"] == address
    outside = named("NetworkPolicy", "api")["spec"]["egress"][-1]["ports"]
    webhooks = {int(each) for each in ApiSettings.model_fields["webhook_ports"].default.split(",")}
    assert webhooks <= {each["port"] for each in outside}
    nothing = named("NetworkPolicy", "nothing")["spec"]
    assert (nothing["podSelector"], nothing["policyTypes"]) == ({}, ["Ingress"])
    assert "ingress" not in nothing


def test_the_label_of_a_runs_pod_is_the_one_that_its_policy_names(tmp_path):
    wanted = named("NetworkPolicy", "runs")["spec"]["podSelector"]["matchLabels"]
    assert (
        wanted.items() <= launched_job(tmp_path)["spec"]["template"]["metadata"]["labels"].items()
    )
