//! What people have: files as editors, shells and kubectl write them, from a file and from the standard input.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

/// Runs a command that reads a text of these bytes from the standard input and from a file, and says the same of both.
fn run(arguments: &[&str], bytes: &[u8]) -> (Option<i32>, String) {
    let mut child = taskplatform(arguments, "-").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let of_input = said(&child.wait_with_output().unwrap(), "stdin");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tp.yaml");
    std::fs::write(&file, bytes).unwrap();
    let file = file.to_str().unwrap();
    let of_file = said(&taskplatform(arguments, file).output().unwrap(), file);
    assert_eq!(of_input, of_file);
    of_input
}

fn taskplatform(arguments: &[&str], file: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskplatform"));
    command.args(arguments).args(["-f", file]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output, file: &str) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap().replace(file, "FILE"))
}

/// The place, code and field of each finding, and the exit code.
fn lint(text: &str) -> (Option<i32>, Vec<String>) {
    let (code, said) = run(&["lint"], text.as_bytes());
    let findings = said.lines().filter_map(|line| line.strip_prefix("FILE:"));
    let head = |line: &str| line.split(": ").take(3).collect::<Vec<_>>().join(" ");
    (code, findings.map(head).collect())
}

#[test]
fn what_kubectl_refuses_is_refused_with_its_place_and_field() {
    let found = lint(
        "\
apiVersion: taskplatform.dev/v1alpha1
kind: TaskPlatform
metadata:
  name: tasks
  labels:
    example.com/canary: yes
    release: 1.10
  annotations: {note: 5}
spec:
  scaling:
    minInstances: \"3\"
    maxInstances: 8.5
  sessions: {ttl: 300}
  database:
    parameters:
      max_connections: 300
      jit: off
  gateway: {service: {type: nodeport}, replica: 2}
",
    );
    let expected = [
        "6:25 error TP001 metadata.labels.example.com/canary",
        "7:14 error TP001 metadata.labels.release",
        "8:23 error TP001 metadata.annotations.note",
        "11:19 error TP001 spec.scaling.minInstances",
        "12:19 error TP001 spec.scaling.maxInstances",
        "13:19 error TP001 spec.sessions.ttl",
        "16:24 error TP001 spec.database.parameters.max_connections",
        "17:12 error TP001 spec.database.parameters.jit",
        "18:29 error TP001 spec.gateway.service.type",
        "18:40 error TP001 spec.gateway.replica",
    ];
    assert_eq!(found, (Some(1), expected.map(ToOwned::to_owned).to_vec()));
}

const FOUR_INSTANCES: &str = "\
---\r
# as an editor on Windows saves it: Größe\r
apiVersion: taskplatform.dev/v1alpha1\r
kind: TaskPlatform\r
metadata:\r
  name: tasks\r
spec:\r
  scaling: {minInstances: 4, maxInstances: 8}\r
";

#[test]
fn the_encodings_of_windows_are_read() {
    let utf_16 = |mark: u16, bytes: fn(u16) -> [u8; 2]| {
        std::iter::once(mark).chain(FOUR_INSTANCES.encode_utf16()).flat_map(bytes).collect::<Vec<u8>>()
    };
    for bytes in [
        FOUR_INSTANCES.as_bytes().to_vec(),
        [b"\xEF\xBB\xBF", FOUR_INSTANCES.as_bytes()].concat(),
        utf_16(0xFEFF, u16::to_le_bytes),
        utf_16(0xFEFF, u16::to_be_bytes),
    ] {
        let (code, objects) = run(&["render"], &bytes);
        assert_eq!(code, Some(0), "{objects}");
        assert!(objects.contains("\n  minReplicas: 4\n"), "{objects}");
    }
    let (code, said) = run(&["render"], b"kind: \xFF");
    assert_eq!((code, said.as_str()), (Some(1), "error: FILE is neither UTF-8 nor UTF-16: save it as UTF-8\n"));
}

/// Two platforms as `kubectl get taskplatforms -o yaml` writes them.
const LIST: &str = "\
apiVersion: v1
items:
- apiVersion: taskplatform.dev/v1alpha1
  kind: TaskPlatform
  metadata:
    creationTimestamp: \"2026-03-01T09:00:00Z\"
    generation: 4
    managedFields:
    - apiVersion: taskplatform.dev/v1alpha1
      fieldsType: FieldsV1
      fieldsV1:
        f:spec: {}
      manager: kubectl
    name: one
    namespace: shop
    resourceVersion: \"48213\"
  spec:
    scaling:
      minInstances: 3
      maxInstances: MAX
  status:
    observedGeneration: 4
    conditions: []
- apiVersion: taskplatform.dev/v1alpha1
  kind: TaskPlatform
  metadata:
    name: other
    namespace: shop
  spec: {}
kind: List
metadata:
  resourceVersion: \"\"
";

#[test]
fn a_list_is_read_as_its_items() {
    let (code, found) = lint(&LIST.replace("MAX", "2"));
    assert_eq!((code, found), (Some(1), vec!["19:7 error TP002 spec.scaling".to_owned()]));
    for kind in ["kind: List", "kind: TaskPlatformList"] {
        let list = LIST.replace("MAX", "9").replace("kind: List", kind);
        assert_eq!(lint(&list), (Some(0), vec![]));
        let (code, costs) = run(&["cost"], list.as_bytes());
        assert_eq!((code, costs.matches("TaskPlatform ").count()), (Some(0), 2), "{costs}");
    }
}

#[test]
fn an_empty_section_is_the_default() {
    let found = lint(
        "\
apiVersion: taskplatform.dev/v1alpha1
kind: TaskPlatform
metadata:
  name: tasks
  annotations:
    # note: nothing
spec:
  cache:
    # shards: 3
  gateway:
    service:
      # type: NodePort
    replicas:
  sessions: ~
  deletionPolicy: null
",
    );
    assert_eq!(found, (Some(0), vec![]));
}

#[test]
fn a_fraction_of_a_core_is_refused_with_the_ways_to_write_it() {
    let text = |half: &str| {
        format!(
            "\
apiVersion: taskplatform.dev/v1alpha1
kind: TaskPlatform
metadata: {{name: tasks}}
spec:
  api: {{resources: {{cpu: {half}, memory: 512Mi}}}}
"
        )
    };
    let (code, said) = run(&["lint"], text(".5").as_bytes());
    let refused = "FILE:5:26: error TP001: spec.api.resources.cpu: 0.5 is a fraction without quotes: write 500m, or \"0.5\" in quotes\n";
    assert_eq!(code, Some(1));
    assert!(said.starts_with(refused), "{said}");
    for half in ["500m", "\"0.5\"", "1.0"] {
        assert_eq!(lint(&text(half)), (Some(0), vec![]), "{half}");
    }
}
