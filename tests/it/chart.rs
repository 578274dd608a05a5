//! The Helm chart, rendered by helm and judged by the schemas of Kubernetes and by the program; the Dockerfile.
//!
//! There is no cluster and no container engine here: what Kubernetes makes of it is not tested.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};
use tollgate::config::{self, Config, Flags, SETTINGS};
use tollgate::ops::health::{LIVENESS, READINESS, STARTUP};

use crate::stock_client::tool;
use crate::support::process::{Files, Finished, Sidecar, run};

/// Oldest of Chart.yaml, and the newest whose schemas are installed.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];

/// Settings that the chart makes from values of its own, never from `config`.
const MADE_BY_THE_CHART: [&str; 8] = [
    "ledger",
    "listen",
    "admin_listen",
    "http_listen",
    "journal",
    "notices.webhook_secrets",
    "notices.webhook_secrets_file",
    "notices.smtp_url",
];

/// What every variant of the service shape needs.
const REDIS: &str = "
image: { repository: registry.example/tollgate }
ledger: { redis: { url: 'redis://redis:6379' } }
";

const TRIAL: &str = "
image: { repository: registry.example/tollgate }
replicas: 1
ledger: { kind: memory }
";

const LEDGER_FILE: &str = "
image: { repository: registry.example/tollgate }
replicas: 1
ledger: { kind: file, file: { size: 20Gi, storageClassName: fast } }
journal: { storage: persistentVolume }
";

const TLS_AND_ACL: &str = "
image: { repository: registry.example/tollgate, digest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef' }
ledger: { redis: { url: 'rediss://redis.example:6380/2', auth: { secret: redis-acl } } }
";

const URL_FROM_SECRET: &str = "
image: { repository: registry.example/tollgate }
ledger: { redis: { urlFromSecret: { name: redis-url } } }
";

const JOURNAL: &str = "
image: { repository: registry.example/tollgate }
ledger: { redis: { url: 'redis://redis:6379' } }
journal: { storage: persistentVolume, size: 5Gi, storageClassName: fast }
autoscaling: { enabled: true }
";

const EVERYTHING: &str = "
image: { repository: 'registry.example:5000/voice/tollgate', tag: v1, pullPolicy: Always }
imagePullSecrets: [{ name: pull }]
fullnameOverride: billing
ledger: { redis: { url: 'rediss://redis.example:6380', auth: { secret: redis-acl } } }
journal: { storage: emptyDir }
listenAddress: '::'
config:
  emergency_country: DE
  shutdown_grace: 1m30s
  call_threads: 2
  max_requests_in_flight: 1000000
  require_ledger_at_start: true
  log_filter: 'warn,tollgate=debug'
  notices: { mail_from: 'Tollgate \"the bill\" <tollgate@example.com>', interval: 2s, private_receivers: true }
secrets: { webhookSecrets: { name: hooks }, smtpUrl: { name: relay, key: url } }
administration: { expose: true }
service: { type: LoadBalancer, annotations: { lb: internal } }
serviceAccount: { annotations: { a: b } }
podDisruptionBudget: { maxUnavailable: 25% }
autoscaling: { enabled: true, minReplicas: 3, maxReplicas: 9 }
topologySpread: { zones: DoNotSchedule }
networkPolicy:
  callers: [{ namespaceSelector: { matchLabels: { voice: 'true' } } }]
  administrators: [{ podSelector: { matchLabels: { role: operator } } }]
  monitoring: [{ ipBlock: { cidr: 10.0.0.0/8 } }]
  redis: { to: [{ ipBlock: { cidr: 10.1.0.0/16 } }] }
  egress: [{ ports: [{ port: 443, protocol: TCP }] }]
serviceMonitor: { enabled: true, labels: { release: prometheus } }
prometheusRule: { enabled: true, groups: [{ name: yours, rules: [{ alert: Away, expr: 'up == 0' }] }] }
podAnnotations: { c: d }
podLabels: { team: voice }
nodeSelector: { disk: ssd }
tolerations: [{ key: voice, operator: Exists }]
affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: [{ key: voice, operator: Exists }] }] } } }
priorityClassName: system-cluster-critical
extraEnv: [{ name: SSL_CERT_FILE, value: /ca/ca.crt }]
extraVolumes: [{ name: ca, configMap: { name: ca } }]
extraVolumeMounts: [{ name: ca, mountPath: /ca, readOnly: true }]
";

const NOTHING: &str = "
image: { repository: registry.example/tollgate }
replicas: 1
ledger: { kind: memory }
config: { log_format: null }
serviceAccount: { create: false }
podDisruptionBudget: { enabled: false }
topologySpread: { enabled: false }
networkPolicy: { enabled: false }
termination: { preStopSeconds: 0 }
";

const GUARDED: &str = "
image: { repository: registry.example/tollgate }
ledger: { redis: { url: 'redis://redis:6379' } }
config: { emergency_country: US, reload_interval: 1m }
secrets: { identities: { name: callers }, tokenKeys: { name: grants }, tls: { name: tollgate-tls }, clientCa: { name: clients } }
";

const SENTINELS: &str = "
image: { repository: registry.example/tollgate }
ledger: { redis: { url: 'redis+sentinel://one:26380,two/main?replicas=1', auth: { secret: redis-acl } } }
";

const CLUSTER: &str = "
image: { repository: registry.example/tollgate }
ledger: { redis: { url: 'redis+cluster://one:7000,two:7000,three' } }
";

const SERVICES: [(&str, &str); 11] = [
    ("redis", REDIS),
    ("trial", TRIAL),
    ("ledger file", LEDGER_FILE),
    ("TLS and ACL", TLS_AND_ACL),
    ("URL from a Secret", URL_FROM_SECRET),
    ("sentinels", SENTINELS),
    ("cluster", CLUSTER),
    ("journal", JOURNAL),
    ("everything", EVERYTHING),
    ("nothing", NOTHING),
    ("guarded", GUARDED),
];

const SIDECAR_LEDGER_FILE: &str = "tollgate: { ledger: { kind: file, redis: { url: '', auth: { secret: '' } } }, journal: { storage: none } }";

/// Values of helm/examples/sbc, on top of its own.
const SIDECARS: [(&str, &str); 4] = [
    ("sidecar", "{}"),
    (
        "sidecar on loopback",
        "tollgate: { calls: { unixSocket: '' }, sidecar: { readiness: false } }",
    ),
    (
        "sidecar as a container",
        "tollgate: { sidecar: { native: false }, journal: { storage: none }, config: { shutdown_grace: 20s } }",
    ),
    ("sidecar with a ledger file", SIDECAR_LEDGER_FILE),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn helm(arguments: &[&str]) -> Finished {
    let home = Files::default();
    let mut command = Command::new(tool("helm"));
    for variable in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
        command.env(variable, home.path("helm"));
    }
    // Of whoever runs the tests.
    command.env_remove("KUBECONFIG").args(arguments).current_dir(root());
    run(command)
}

fn template(chart: &str, values: &str) -> Finished {
    let files = Files::default();
    let values = files.write("values.yaml", values);
    helm(&["template", "voice", chart, "--namespace", "calls", "--values", &values])
}

/// The text of every object.
#[track_caller]
fn rendered(values: &str) -> String {
    template("helm/tollgate", values).succeeded()
}

/// The example chart with its dependency, as `helm dependency build` makes it.
struct Sbc(Files);

impl Sbc {
    fn new() -> Sbc {
        let files = Files::default();
        copy(&root().join("helm"), Path::new(&files.path("helm")));
        let sbc = Sbc(files);
        helm(&["dependency", "build", &sbc.path()]).succeeded();
        sbc
    }

    fn path(&self) -> String {
        self.0.path("helm/examples/sbc")
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

/// Every variant with what helm makes of it, once for all tests.
fn variants() -> impl Iterator<Item = (&'static str, &'static str)> {
    static VARIANTS: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
        let sbc = Sbc::new();
        let service = |(name, values)| (name, rendered(values));
        let sidecar = |(name, values)| (name, template(&sbc.path(), values).succeeded());
        SERVICES.map(service).into_iter().chain(SIDECARS.map(sidecar)).collect()
    });
    VARIANTS.iter().map(|(name, text)| (*name, text.as_str()))
}

#[track_caller]
fn objects(rendered: &str) -> Vec<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(rendered).expect("helm renders YAML");
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

#[track_caller]
fn object<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} among {objects:#?}"))
}

fn kinds(objects: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<_> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    kinds.sort_unstable();
    kinds
}

fn workload(objects: &[Value]) -> &Value {
    let kind = |object: &&Value| object["kind"] == "Deployment" || object["kind"] == "StatefulSet";
    objects.iter().find(kind).expect("a workload")
}

fn container(workload: &Value) -> &Value {
    let spec = &workload["spec"]["template"]["spec"];
    let of = |list: &str| spec[list].as_array().into_iter().flatten().collect::<Vec<_>>();
    let all = [of("initContainers"), of("containers")].concat();
    all.into_iter().find(|container| container["name"] == "tollgate").expect("the container")
}

fn configuration(objects: &[Value]) -> String {
    let text = object(objects, "ConfigMap")["data"]["tollgate.toml"].as_str();
    text.expect("a configuration file").to_owned()
}

/// The settings as the program reads them. A program that keeps no journal yet does not know that line.
#[track_caller]
fn loaded(configuration: &str) -> Config {
    let journal = SETTINGS.iter().any(|setting| setting.key == "journal");
    let known = |line: &&str| journal || !line.starts_with("journal = ");
    let text: Vec<&str> = configuration.lines().filter(known).collect();
    let files = Files::default();
    // Where Kubernetes mounts a Secret there is a file of the test.
    let own = rcgen::generate_simple_self_signed(["tollgate.test".to_owned()]).unwrap();
    let callers = read("samples/identities.toml");
    for (name, text) in [
        ("webhook-secrets", "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB\n"),
        ("token-keys", "2026 QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n"),
        ("identities.toml", callers.as_str()),
        ("tls.crt", own.cert.pem().as_str()),
        ("tls.key", own.signing_key.serialize_pem().as_str()),
        ("client-ca.crt", own.cert.pem().as_str()),
    ] {
        files.write(name, text);
    }
    let text = text.join("\n").replace("/etc/tollgate-secrets", &files.path(""));
    let path = files.write("tollgate.toml", &text);
    config::load(Flags::default(), Some(Path::new(&path)))
        .unwrap_or_else(|mistakes| panic!("{mistakes:#?} in {configuration}"))
}

#[test]
fn the_charts_are_linted() {
    let files = Files::default();
    helm(&["lint", "--strict", "helm/tollgate"]).succeeded();
    for (_, values) in SERVICES {
        let values = files.write("values.yaml", values);
        helm(&["lint", "--strict", "helm/tollgate", "--values", &values]).succeeded();
    }
    helm(&["lint", "--strict", &Sbc::new().path()]).succeeded();
    let chart: Value = serde_saphyr::from_str(&read("helm/tollgate/Chart.yaml")).unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_variant_is_valid_by_the_schemas_of_kubernetes() {
    let files = Files::default();
    let mut paths = vec![];
    for (name, text) in variants() {
        let (custom, own): (Vec<Value>, Vec<Value>) = objects(text)
            .into_iter()
            .partition(|object| object["apiVersion"] == "monitoring.coreos.com/v1");
        // Those are no part of Kubernetes and have no schema here.
        assert_eq!(custom.len(), if name == "everything" { 2 } else { 0 }, "{name}");
        let own: Vec<String> = own.iter().map(Value::to_string).collect();
        paths.push(files.write(&format!("{name}.yaml"), &own.join("\n---\n")));
    }
    for version in KUBERNETES {
        let mut validate = Command::new(tool("kubernetes-validate"));
        validate.args(["--strict", "--quiet", "-k", version]).args(&paths);
        let said = run(validate);
        assert!(
            said.status.success() && said.stderr.is_empty() && said.stdout.is_empty(),
            "{said:?}"
        );
    }
}

#[test]
fn the_validation_notices_a_mistake() {
    let files = Files::default();
    let path = files.write("bad.yaml", &rendered(REDIS).replace("replicas: 2", "replicaz: 2"));
    let mut validate = Command::new(tool("kubernetes-validate"));
    validate.args(["--strict", "--quiet", "-k", KUBERNETES[1], &path]);
    assert!(!run(validate).status.success());
}

#[test]
fn what_is_optional_can_be_left_out_and_nothing_else_is_rendered() {
    let of = |values| objects(&rendered(values));
    let service = [
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "Service",
        "ServiceAccount",
    ];
    assert_eq!(kinds(&of(REDIS)), service);
    assert_eq!(kinds(&of(NOTHING)), ["ConfigMap", "Deployment", "Service", "Service"]);
    let everything = of(EVERYTHING);
    let all = kinds(&everything);
    for kind in ["HorizontalPodAutoscaler", "ServiceMonitor", "PrometheusRule"] {
        assert!(all.contains(&kind), "{all:?}");
    }
    assert_eq!(all.iter().filter(|kind| **kind == "Service").count(), 3, "{all:?}");
    let rules = everything.iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    let groups = rules["spec"]["groups"].as_array().unwrap();
    let names: Vec<_> = groups.iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tollgate", "yours"]);
    assert!(groups[0]["rules"].as_array().unwrap().len() > 10, "{rules}");
    // Alone the sidecar shape is a configuration: the pods are the SBC's.
    assert_eq!(kinds(&of(&format!("{REDIS}\nshape: sidecar"))), ["ConfigMap"]);
}

#[test]
fn the_container_is_locked_down_in_every_variant() {
    for (name, text) in variants() {
        let objects = objects(text);
        let workload = workload(&objects);
        assert_eq!(
            container(workload)["securityContext"],
            json!({
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "privileged": false,
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
            }),
            "{name}"
        );
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert!(container(workload)["resources"]["limits"]["memory"].is_string(), "{name}");
    }
}

#[test]
fn kubernetes_asks_the_health_services_that_the_program_has() {
    for (name, text) in variants() {
        let objects = objects(text);
        let container = container(workload(&objects));
        let config = loaded(&configuration(&objects));
        let listen = config.http_listen.to_string();
        let port: u16 = listen.rsplit(':').next().unwrap().parse().unwrap();
        for (probe, service) in
            [("startupProbe", STARTUP), ("livenessProbe", LIVENESS), ("readinessProbe", READINESS)]
        {
            if (name, probe) == ("sidecar on loopback", "readinessProbe") {
                assert!(container[probe].is_null());
                continue;
            }
            assert_eq!(
                container[probe]["grpc"],
                json!({ "port": port, "service": service }),
                "{name}"
            );
        }
        // Kubernetes probes the address of the pod.
        assert!(!listen.starts_with("127."), "{name}");
    }
}

#[test]
fn kubernetes_waits_longer_than_the_program_drains() {
    for (name, text) in variants() {
        let objects = objects(text);
        let workload = workload(&objects);
        let pre_stop = &container(workload)["lifecycle"]["preStop"]["sleep"]["seconds"];
        let native = container(workload)["restartPolicy"] == "Always";
        // After a native sidecar's SBC nobody is left to wait for.
        let expected = if native || name == "nothing" { Value::Null } else { json!(5) };
        assert_eq!(*pre_stop, expected, "{name}");
        let waits = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
        let drains = loaded(&configuration(&objects)).shutdown_grace.as_secs();
        // Notices and records of calls have a second each when the grace time is over.
        assert!(waits.unwrap() >= pre_stop.as_u64().unwrap_or(0) + drains + 3, "{name}: {waits:?}");
    }
}

#[test]
fn the_program_reads_the_configuration_of_every_variant() {
    for (name, text) in variants() {
        let configuration = configuration(&objects(text));
        let config = loaded(&configuration);
        let journal = configuration.lines().filter(|line| line.starts_with("journal = "));
        let expected = match name {
            "journal" | "ledger file" | "everything" | "sidecar" | "sidecar on loopback" => {
                "journal = \"/var/lib/tollgate/journal\""
            }
            _ => "journal = \"off\"",
        };
        assert_eq!(journal.collect::<Vec<_>>(), [expected], "{name}");
        let calls = match name {
            "sidecar" | "sidecar as a container" | "sidecar with a ledger file" => {
                "unix:/run/tollgate/calls.sock"
            }
            "sidecar on loopback" => "127.0.0.1:7601",
            "everything" => "[::]:7601",
            _ => "0.0.0.0:7601",
        };
        assert_eq!(config.listen.to_string(), calls, "{name}");
        let administration = if name == "everything" { "[::]:7602" } else { "127.0.0.1:7602" };
        assert_eq!(config.admin_listen.to_string(), administration, "{name}");
        if name.ends_with("ledger file") {
            let ledger = "file:/var/lib/tollgate/ledger/ledger";
            assert_eq!(config.ledger.to_string(), ledger, "{name}");
        }
    }
    let config = loaded(&configuration(&objects(&rendered(EVERYTHING))));
    assert_eq!((config.call_threads, config.max_requests_in_flight), (2, 1_000_000));
    assert!(config.notices_mail_from.is_some() && config.webhook_secrets().is_some());
}

#[test]
fn the_program_serves_with_the_rendered_configuration() {
    let configuration = configuration(&objects(&rendered(TRIAL)));
    let journal = SETTINGS.iter().any(|setting| setting.key == "journal");
    let known = |line: &&str| journal || !line.starts_with("journal = ");
    let text: Vec<&str> = configuration.lines().filter(known).collect();
    let path = Files::default();
    // The flags of the test put its listeners on free ports.
    Sidecar::ready(&["--config", &path.write("tollgate.toml", &text.join("\n"))]);
}

#[test]
fn secrets_are_in_secrets_and_nowhere_else() {
    let of = |values| objects(&rendered(values));
    let objects = of(TLS_AND_ACL);
    assert!(!configuration(&objects).contains("redis"));
    let env = container(workload(&objects))["env"].clone();
    let from = |key: &str| json!({ "secretKeyRef": { "name": "redis-acl", "key": key } });
    // Kubernetes puts in what was named before.
    let url = "rediss://$(REDIS_USERNAME):$(REDIS_PASSWORD)@redis.example:6380/2";
    assert_eq!(
        env,
        json!([
            { "name": "REDIS_USERNAME", "valueFrom": from("username") },
            { "name": "REDIS_PASSWORD", "valueFrom": from("password") },
            { "name": "TOLLGATE_LEDGER", "value": url },
        ])
    );
    let put_in =
        url.replace("$(REDIS_USERNAME)", "tollgate").replace("$(REDIS_PASSWORD)", "p%40ss");
    let config = config::load(Flags { ledger: Some(put_in), ..Flags::default() }, None).unwrap();
    assert_eq!(config.ledger.to_string(), "rediss://redis.example:6380/2");

    let env = container(workload(&of(SENTINELS)))["env"].clone();
    let url = env[2]["value"].as_str().unwrap().replace("$(REDIS_", "").replace(')', "");
    assert_eq!(url, "redis+sentinel://USERNAME:PASSWORD@one:26380,two/main?replicas=1");
    config::load(Flags { ledger: Some(url), ..Flags::default() }, None).unwrap();

    let whole = &container(workload(&of(URL_FROM_SECRET)))["env"].clone();
    let from = json!({ "secretKeyRef": { "name": "redis-url", "key": "url" } });
    assert_eq!(*whole, json!([{ "name": "TOLLGATE_LEDGER", "valueFrom": from }]));
    assert!(of(EVERYTHING).iter().all(|object| object["kind"] != "Secret"));
    // Files are mounted, under the names that the configuration has for them.
    let objects = of(GUARDED);
    let pod = &workload(&objects)["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_array().unwrap();
    let secrets = volumes.iter().find(|volume| volume["name"] == "tollgate-secrets").unwrap();
    let mut mounted = BTreeSet::new();
    for source in secrets["projected"]["sources"].as_array().unwrap() {
        for item in source["secret"]["items"].as_array().unwrap() {
            mounted.insert(format!("/etc/tollgate-secrets/{}", item["path"].as_str().unwrap()));
        }
    }
    let configuration = configuration(&objects);
    let table: toml::Table = configuration.parse().unwrap();
    let keys = ["identities_file", "token_keys_file", "tls_cert", "tls_key", "tls_client_ca"];
    let named = keys.map(|key| table[key].as_str().unwrap().to_owned());
    assert_eq!(BTreeSet::from(named), mounted);
    // The names of variables are those of the program.
    for variable in ["TOLLGATE_LEDGER", "TOLLGATE_NOTICES_SMTP_URL"] {
        assert!(SETTINGS.iter().any(|setting| setting.variable == variable), "{variable}");
    }
}

/// Labels that a selector names are those of the pods: what counts, spreads, bounds and scrapes finds them.
#[test]
fn whatever_selects_pods_selects_those_of_the_workload() {
    for (name, values) in SERVICES {
        let objects = objects(&rendered(values));
        let workload = workload(&objects);
        let labels = workload["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
        let selects = |selector: &Value| {
            let wanted = selector.as_object().unwrap_or_else(|| panic!("{name}: {selector}"));
            assert!(!wanted.is_empty(), "{name}");
            assert!(wanted.iter().all(|(key, value)| labels.get(key) == Some(value)), "{name}");
        };
        let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
        selects(&workload["spec"]["selector"]["matchLabels"]);
        of("Service").for_each(|service| selects(&service["spec"]["selector"]));
        of("NetworkPolicy").for_each(|one| selects(&one["spec"]["podSelector"]["matchLabels"]));
        for bound in of("PodDisruptionBudget") {
            selects(&bound["spec"]["selector"]["matchLabels"]);
            let most = if name == "everything" { json!("25%") } else { json!(1) };
            assert_eq!(bound["spec"]["maxUnavailable"], most, "{name}");
        }
        for scaler in of("HorizontalPodAutoscaler") {
            let target = &scaler["spec"]["scaleTargetRef"];
            assert_eq!(target["name"], workload["metadata"]["name"], "{name}");
            assert_eq!(target["kind"], workload["kind"], "{name}");
            // Who scales is alone in saying how many there are.
            assert!(workload["spec"]["replicas"].is_null(), "{name}");
            // One at a time, so that each drains its journal while the others serve.
            let down = &scaler["spec"]["behavior"]["scaleDown"]["policies"];
            let slowly = json!([{ "type": "Pods", "value": 1, "periodSeconds": 60 }]);
            assert_eq!(*down, slowly, "{name}");
        }
        let spread = &workload["spec"]["template"]["spec"]["topologySpreadConstraints"];
        let spread = spread.as_array().cloned().unwrap_or_default();
        let keys: BTreeSet<_> =
            spread.iter().map(|one| one["topologyKey"].as_str().unwrap()).collect();
        match name {
            "nothing" => assert!(keys.is_empty()),
            _ => {
                assert!(keys.iter().eq(&["kubernetes.io/hostname", "topology.kubernetes.io/zone"]))
            }
        }
        spread.iter().for_each(|one| selects(&one["labelSelector"]["matchLabels"]));
        // The Prometheus operator finds one Service, and the port in it.
        for monitor in of("ServiceMonitor") {
            let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
            let found: Vec<_> = of("Service")
                .filter(|one| {
                    wanted.iter().all(|(key, value)| one["metadata"]["labels"][key] == *value)
                })
                .collect();
            assert_eq!(found.len(), 1, "{name}");
            let ports = found[0]["spec"]["ports"].as_array().unwrap();
            let port = &monitor["spec"]["endpoints"][0]["port"];
            assert!(ports.iter().any(|one| one["name"] == *port), "{name}: {ports:?}");
        }
        // What is said of the protocol is what is served.
        let calls = of("Service").find_map(|one| one["spec"]["ports"][0]["appProtocol"].as_str());
        let protocol = if name == "guarded" { "https" } else { "kubernetes.io/h2c" };
        assert_eq!(calls, Some(protocol), "{name}");
    }
}

#[test]
fn a_journal_has_a_volume_that_outlives_its_pod() {
    let objects = objects(&rendered(JOURNAL));
    let set = object(&objects, "StatefulSet");
    let claim = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!(claim["metadata"]["name"], "tollgate-journal");
    assert_eq!(claim["spec"]["storageClassName"], "fast");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "5Gi");
    let kept = json!({ "whenDeleted": "Retain", "whenScaled": "Retain" });
    assert_eq!(set["spec"]["persistentVolumeClaimRetentionPolicy"], kept);
    let mounts = container(set)["volumeMounts"].as_array().unwrap();
    let mount = json!({ "name": "tollgate-journal", "mountPath": "/var/lib/tollgate/journal" });
    assert!(mounts.contains(&mount), "{mounts:?}");
    let services: Vec<_> = objects.iter().filter(|object| object["kind"] == "Service").collect();
    assert!(
        services.iter().any(|service| service["metadata"]["name"] == set["spec"]["serviceName"])
    );
    assert_eq!(
        object(&objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["kind"],
        "StatefulSet"
    );
}

#[test]
fn a_ledger_in_a_file_is_one_pod_with_a_volume_that_outlives_it() {
    let objects = objects(&rendered(LEDGER_FILE));
    let set = object(&objects, "StatefulSet");
    assert_eq!(set["spec"]["replicas"], 1);
    let claims = set["spec"]["volumeClaimTemplates"].as_array().unwrap();
    let names: Vec<_> = claims.iter().map(|claim| &claim["metadata"]["name"]).collect();
    assert_eq!(names, ["tollgate-ledger", "tollgate-journal"]);
    assert_eq!(claims[0]["spec"]["storageClassName"], "fast");
    assert_eq!(claims[0]["spec"]["resources"]["requests"]["storage"], "20Gi");
    let kept = json!({ "whenDeleted": "Retain", "whenScaled": "Retain" });
    assert_eq!(set["spec"]["persistentVolumeClaimRetentionPolicy"], kept);
    let mounts = container(set)["volumeMounts"].as_array().unwrap();
    let mount = json!({ "name": "tollgate-ledger", "mountPath": "/var/lib/tollgate/ledger" });
    assert!(mounts.contains(&mount), "{mounts:?}");
    // No Redis: nothing but names is asked for on the network.
    let egress = &object(&objects, "NetworkPolicy")["spec"]["egress"];
    assert_eq!(egress.as_array().unwrap().len(), 1);

    // The program serves with it, the volume being a folder of the test, and finds it again.
    let files = Files::default();
    let volume = files.path("");
    let text = configuration(&objects).replace("/var/lib/tollgate/ledger", &volume);
    let text = text.replace("/var/lib/tollgate/journal", &files.path("journal"));
    let settings = files.write("tollgate.toml", &text);
    for _ in 0..2 {
        assert!(Sidecar::ready(&["--config", &settings]).stop().success());
    }
    assert!(Path::new(&files.path("ledger")).is_file());
}

#[test]
fn the_volume_of_the_sbcs_pod_can_hold_the_ledger() {
    let objects = objects(&template(&Sbc::new().path(), SIDECAR_LEDGER_FILE).succeeded());
    let mounts = container(workload(&objects))["volumeMounts"].as_array().unwrap();
    let mount = json!({ "name": "tollgate-ledger", "mountPath": "/var/lib/tollgate/ledger" });
    assert!(mounts.contains(&mount), "{mounts:?}");
}

#[test]
fn the_volume_of_the_sbcs_pod_can_hold_the_journal() {
    let values = "tollgate: { journal: { storage: podVolume } }";
    let objects = objects(&template(&Sbc::new().path(), values).succeeded());
    let workload = workload(&objects);
    let named = |list: &Value| {
        let names =
            list.as_array().into_iter().flatten().filter(|item| item["name"] == "tollgate-journal");
        names.count()
    };
    assert_eq!(named(&container(workload)["volumeMounts"]), 1);
    // It is the SBC's chart that brings it.
    assert_eq!(named(&workload["spec"]["template"]["spec"]["volumes"]), 0);
}

#[test]
fn the_network_policy_lets_in_who_is_named_and_nobody_else() {
    let of = |values: &str| object(&objects(&rendered(values)), "NetworkPolicy")["spec"].clone();
    let policy = of(REDIS);
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    let calls = json!([{ "port": "calls", "protocol": "TCP" }]);
    let callers = json!([{ "podSelector": { "matchLabels": { "tollgate-caller": "true" } } }]);
    assert_eq!(policy["ingress"], json!([{ "from": callers, "ports": calls }]));
    // A rule without `from` would let everybody in.
    let closed = of(&format!("{REDIS}\nnetworkPolicy: {{ callers: [] }}"));
    assert_eq!(closed["ingress"], json!([]));
    let ports = |policy: &Value, n: usize| policy["egress"][n]["ports"][0]["port"].clone();
    assert_eq!(ports(&policy, 1), 6379);
    assert_eq!(ports(&of(TLS_AND_ACL), 1), 6380);
    let all = |policy: &Value| {
        let ports = policy["egress"][1]["ports"].as_array().unwrap().clone();
        ports.iter().map(|one| one["port"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // The master of sentinels, and themselves.
    assert_eq!(all(&of(SENTINELS)), [6379, 26380, 26379]);
    assert_eq!(all(&of(CLUSTER)), [7000, 6379]);
    let everything = of(EVERYTHING);
    assert_eq!(everything["ingress"].as_array().unwrap().len(), 3);
    assert_eq!(ports(&everything, 2), 443);
    // Nobody administers over the network unless that is asked for.
    let unasked =
        of(&format!("{REDIS}\nnetworkPolicy: {{ administrators: [{{ podSelector: {{}} }}] }}"));
    assert_eq!(unasked["ingress"].as_array().unwrap().len(), 1);
}

#[test]
fn wrong_values_are_refused_with_what_is_wrong() {
    for (values, message) in [
        ("unknown: 1", "additional properties 'unknown' not allowed"),
        ("shape: daemonset", "at '/shape': value must be one of 'service', 'sidecar'"),
        ("replicas: 0", "at '/replicas': minimum: got 0, want 1"),
        ("replicas: two", "at '/replicas': got string, want integer"),
        ("config: { max_grnt: 4h }", "at '/config': additional properties 'max_grnt' not allowed"),
        ("config: { call_threads: 65 }", "at '/config/call_threads': maximum: got 65, want 64"),
        ("config: { grace: 60 }", "at '/config/grace': got number, want string"),
        ("config: { grace: soon }", "at '/config/grace': 'soon' does not match pattern"),
        ("config: { emergency_country: usa }", "at '/config/emergency_country'"),
        ("config: { ledger: memory }", "at '/config': additional properties 'ledger' not allowed"),
        (
            "config: { notices: { smtp_url: 'smtp://u:p@h' } }",
            "additional properties 'smtp_url' not allowed",
        ),
        (
            "ledger: { redis: { url: 'redis://user:password@redis:6379' } }",
            "at '/ledger/redis/url'",
        ),
        ("ledger: { redis: { url: 'http://redis' } }", "at '/ledger/redis/url'"),
        ("ledger: { redis: { url: 'redis+sentinel://one:26379' } }", "at '/ledger/redis/url'"),
        (
            "ledger: { redis: { url: 'redis+sentinel://one/main?sentinel_password=hidden' } }",
            "at '/ledger/redis/url'",
        ),
        ("ledger: { redis: { url: '' } }", "name the Redis, or set ledger.kind to file"),
        ("ledger: { redis: { urlFromSecret: { name: s } } }", "set one of them"),
        (
            "ledger: { redis: { url: '', urlFromSecret: { name: s }, auth: { secret: s } } }",
            "needs ledger.redis.url",
        ),
        ("replicas: 1\nledger: { kind: memory }", "ledger.redis: needs ledger.kind redis"),
        ("replicas: 1\nledger: { kind: file }", "ledger.redis: needs ledger.kind redis"),
        ("ledger: { kind: memory, redis: { url: '' } }", "at '/replicas': value must be 1"),
        ("ledger: { kind: file, redis: { url: '' } }", "at '/replicas': value must be 1"),
        (
            "replicas: 1\nledger: { kind: file, redis: { url: '' } }\nautoscaling: { enabled: true }",
            "at '/autoscaling/enabled': value must be false",
        ),
        ("ledger: { file: { size: big } }", "at '/ledger/file/size'"),
        ("image: { repository: '' }", "image.repository: name the image"),
        ("image: { digest: 'sha256:12' }", "at '/image/digest'"),
        ("security: { runAsUser: 0 }", "at '/security/runAsUser': minimum: got 0, want 1"),
        ("security: { privileged: true }", "additional properties 'privileged' not allowed"),
        ("journal: { storage: hostPath }", "at '/journal/storage'"),
        ("journal: { storage: podVolume }", "podVolume needs shape sidecar"),
        (
            "shape: sidecar\njournal: { storage: persistentVolume }",
            "in the sidecar shape none, emptyDir or podVolume",
        ),
        (
            "shape: sidecar\nautoscaling: { enabled: true }",
            "autoscaling.enabled: in the sidecar shape",
        ),
        ("calls: { unixSocket: calls.sock }", "calls.unixSocket: needs shape sidecar"),
        ("calls: { unixSocket: ../x }", "at '/calls/unixSocket'"),
        ("calls: { port: 7602 }", "must differ"),
        ("calls: { port: 80 }", "at '/calls/port': minimum: got 80, want 1,024"),
        ("autoscaling: { enabled: true, minReplicas: 9 }", "at most autoscaling.maxReplicas"),
        (
            "secrets: { identities: { name: a } }\nconfig: { identities_file: /b }",
            "secrets.identities and config.identities_file: set one of them",
        ),
        ("secrets: { clientCa: { name: a } }", "secrets.clientCa: needs secrets.tls"),
        ("podDisruptionBudget: { maxUnavailable: 0 }", "at '/podDisruptionBudget/maxUnavailable'"),
        ("networkPolicy: { callers: [{}] }", "at '/networkPolicy/callers/0'"),
        (
            "prometheusRule: { enabled: true, bundled: false }",
            "at '/prometheusRule/groups': minItems: got 0, want 1",
        ),
        ("probes: { liveness: { periodSeconds: 0 } }", "at '/probes/liveness/periodSeconds'"),
        ("resources: { limits: { memory: much } }", "at '/resources/limits/memory'"),
    ] {
        // Later values win, key by key.
        let files = Files::default();
        let (base, wrong) = (files.write("base.yaml", REDIS), files.write("wrong.yaml", values));
        let said =
            helm(&["template", "voice", "helm/tollgate", "--values", &base, "--values", &wrong]);
        assert!(!said.status.success(), "{values} is accepted");
        assert!(said.stderr.contains(message), "{values}: {}", said.stderr);
    }
    let said =
        template(&Sbc::new().path(), "tollgate: { shape: service, calls: { unixSocket: '' } }");
    assert!(said.stderr.contains("set tollgate.shape to sidecar"), "{said:?}");
}

#[test]
fn the_values_know_the_settings_of_the_program() {
    let schema: Value = serde_json::from_str(&read("helm/tollgate/values.schema.json")).unwrap();
    let config = &schema["properties"]["config"]["properties"];
    let keys = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let notices =
        keys(&config["notices"]["properties"]).into_iter().map(|key| format!("notices.{key}"));
    let known: BTreeSet<String> =
        keys(config).into_iter().filter(|key| key != "notices").chain(notices).collect();
    let settings: BTreeSet<String> = SETTINGS
        .iter()
        .map(|setting| setting.key.replacen("notices_", "notices.", 1))
        .filter(|key| !MADE_BY_THE_CHART.contains(&key.as_str()))
        .collect();
    let missing: Vec<_> = settings.difference(&known).collect();
    let unknown: Vec<_> = known.difference(&settings).collect();
    assert!(missing.is_empty(), "add to `config` in helm/tollgate/values.schema.json: {missing:?}");
    assert!(unknown.is_empty(), "no settings, in helm/tollgate/values.schema.json: {unknown:?}");
}

/// Every object of values says what may be in it, and every value is in the schema and in the README.
#[test]
fn the_schema_is_closed_and_every_value_is_documented() {
    fn closed(at: &str, schema: &Value, values: &Value) {
        let Some(properties) = schema["properties"].as_object() else { return };
        assert_eq!(schema["additionalProperties"], false, "{at}");
        for (key, inner) in properties {
            closed(&format!("{at}.{key}"), inner, &values[key]);
        }
        for key in values.as_object().into_iter().flatten().map(|(key, _)| key) {
            assert!(properties.contains_key(key), "{at}.{key} has no schema");
        }
    }
    let schema: Value = serde_json::from_str(&read("helm/tollgate/values.schema.json")).unwrap();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    let values: Value = serde_saphyr::from_str(&read("helm/tollgate/values.yaml")).unwrap();
    closed("values", &schema, &values);
    let readme = read("helm/tollgate/README.md");
    for key in values.as_object().unwrap().keys() {
        let named = |end: &str| readme.contains(&format!("`{key}{end}"));
        assert!(named("`") || named("."), "{key} is not in helm/tollgate/README.md");
    }
}

#[test]
fn the_notes_say_how_to_call_and_what_is_missing() {
    let files = Files::default();
    let notes = |values: &str| {
        let values = files.write("values.yaml", values);
        let said = helm(&[
            "install",
            "voice",
            "helm/tollgate",
            "--dry-run=client",
            "--namespace",
            "calls",
            "--values",
            &values,
        ]);
        let said = said.succeeded();
        said.split_once("NOTES:").map(|(_, notes)| notes.to_owned()).unwrap_or_default()
    };
    let trial = notes(TRIAL);
    for part in [
        "voice-tollgate.calls:7601",
        "SET config.emergency_country",
        "THE LEDGER IS IN MEMORY",
        "journal = \"off\"",
        "NO IDENTITIES",
    ] {
        assert!(trial.contains(part), "{part} is not in {trial}");
    }
    let journal = notes(&format!("{JOURNAL}\nconfig: {{ emergency_country: US }}"));
    assert!(journal.contains("statefulset/voice-tollgate"), "{journal}");
    for part in ["SET config", "MEMORY", "journal = "] {
        assert!(!journal.contains(part), "{part} is in {journal}");
    }
}

mod image {
    use super::*;

    /// The instructions, continued lines put together.
    fn instructions() -> Vec<(String, String)> {
        let text = read("Dockerfile").replace("\\\n", " ");
        let lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let split = |line: &str| {
            let (instruction, rest) = line.split_once(' ').unwrap();
            let words: Vec<&str> = rest.split_whitespace().collect();
            (instruction.to_owned(), words.join(" "))
        };
        lines.map(split).collect()
    }

    /// Those of the last stage.
    fn last_stage() -> Vec<(String, String)> {
        let all = instructions();
        let from = all.iter().rposition(|(instruction, _)| instruction == "FROM").unwrap();
        all[from..].to_vec()
    }

    #[track_caller]
    fn one<'a>(of: &'a [(String, String)], name: &str) -> &'a str {
        let mut found = of.iter().filter(|(instruction, _)| instruction == name);
        let (_, rest) = found.next().unwrap_or_else(|| panic!("no {name}"));
        assert!(found.next().is_none(), "more than one {name}");
        rest
    }

    /// The sources that are copied into the builder.
    fn sources() -> Vec<PathBuf> {
        let all = instructions();
        let copies =
            all.iter().filter(|(name, rest)| name == "COPY" && !rest.starts_with("--from"));
        let of = |rest: &String| {
            let mut words: Vec<PathBuf> = rest.split(' ').map(PathBuf::from).collect();
            words.pop();
            words
        };
        copies.flat_map(|(_, rest)| of(rest)).collect()
    }

    fn files(path: &Path, into: &mut Vec<PathBuf>) {
        if path.is_file() {
            return into.push(path.to_owned());
        }
        for entry in fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), into);
        }
    }

    #[test]
    fn the_builder_has_what_the_build_reads() {
        let build = Files::default();
        for source in sources() {
            copy(&root().join(&source), &PathBuf::from(build.path(source.to_str().unwrap())));
        }
        // Finds every target, and the lock as it must be.
        let mut metadata = Command::new(env!("CARGO"));
        metadata.args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"]);
        run({
            metadata.current_dir(build.path(""));
            metadata
        })
        .succeeded();
        let mut all = vec![];
        files(Path::new(&build.path("src")), &mut all);
        for path in all.iter().filter(|path| path.extension().is_some_and(|of| of == "rs")) {
            let text = fs::read_to_string(path).unwrap();
            for begin in ["include_str!(\"", "include_bytes!(\""] {
                for rest in text.split(begin).skip(1) {
                    let name = rest.split('"').next().unwrap();
                    let included = path.parent().unwrap().join(name);
                    assert!(included.exists(), "{} is not copied", included.display());
                }
            }
        }
        let toolchain: toml::Table = read("Cargo.toml").parse().unwrap();
        let version = toolchain["package"]["rust-version"].as_str().unwrap();
        let all = instructions();
        let builder = all.iter().find(|(name, rest)| name == "ARG" && rest.starts_with("BUILDER="));
        assert!(builder.unwrap().1.contains(&format!("rust:{version}.")), "{builder:?}");
    }

    #[test]
    fn what_is_ignored_is_what_is_not_copied() {
        let ignore = read(".dockerignore");
        let kept: BTreeSet<PathBuf> =
            ignore.lines().filter_map(|line| line.strip_prefix('!')).map(PathBuf::from).collect();
        assert!(ignore.lines().any(|line| line == "*"));
        assert_eq!(kept, sources().into_iter().collect());
    }

    #[test]
    fn the_build_is_that_of_the_lock_and_the_image_that_of_a_user() {
        let build = one(&instructions(), "RUN").to_owned();
        assert_eq!(build, "cargo build --locked --release --bin tollgate");
        let last = last_stage();
        assert!(last.iter().all(|(name, _)| name != "RUN"), "nothing runs in the last stage");
        let copies: Vec<&str> =
            last.iter().filter(|(name, _)| name == "COPY").map(|(_, rest)| rest.as_str()).collect();
        let expected = [
            "--from=build /build/target/release/tollgate /tollgate",
            "--from=build /build/LICENSE /LICENSE",
        ];
        assert_eq!(copies, expected);
        assert_eq!(one(&last, "USER"), "65532:65532");
        assert_eq!(one(&last, "ENTRYPOINT"), "[\"/tollgate\"]");
        assert_eq!(one(&last, "STOPSIGNAL"), "SIGTERM");
        let labels = one(&last, "LABEL");
        for label in ["title", "description", "licenses", "version", "revision"] {
            assert!(labels.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
        }
        let version =
            last.iter().find(|(name, rest)| name == "ARG" && rest.starts_with("VERSION="));
        assert_eq!(version.unwrap().1, format!("VERSION={}", env!("CARGO_PKG_VERSION")));
        assert!(last.iter().any(|(name, rest)| name == "EXPOSE" && rest == "7601 7602 7603"));
    }

    /// As the image has it: no environment, no root, a directory that nobody may write to.
    #[test]
    fn the_program_runs_with_nothing_around_it_as_no_root() {
        let image = tempfile::tempdir().unwrap();
        let program = image.path().join("tollgate");
        fs::copy(env!("CARGO_BIN_EXE_tollgate"), &program).unwrap();
        fs::set_permissions(image.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let command = || {
            let mut command = Command::new(&program);
            command.env_clear().current_dir(image.path());
            // Root may become somebody else; who is not root is somebody else already.
            if fs::metadata("/proc/self").unwrap().uid() == 0 {
                command.uid(65532).gid(65532);
            }
            command
        };
        let mut version = command();
        version.arg("--version");
        assert!(run(version).succeeded().contains(env!("CARGO_PKG_VERSION")));
        let mut serve = command();
        serve.arg("serve");
        Sidecar::ready_as(serve, &[]);
        fs::set_permissions(image.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_program_needs_no_library_that_the_image_does_not_have() {
        let mut ldd = Command::new("ldd");
        ldd.arg(env!("CARGO_BIN_EXE_tollgate"));
        let said = run(ldd).succeeded();
        // Of distroless/cc.
        let there = ["linux-vdso.so.1", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "ld-linux"];
        for line in said.lines() {
            assert!(there.iter().any(|library| line.contains(library)), "{line}");
        }
    }
}
