//! What the API server is answered about a TaskPlatform.

use kube::core::{
    DynamicObject,
    admission::{AdmissionRequest, AdmissionResponse, AdmissionReview},
};
use taskplatform_blueprint::{Code, Finding, Severity, findings};
use taskplatform_crds::TaskPlatform;

use super::read;
use crate::metrics::Verdict;

/// Answers a review, and says how.
pub(super) fn answer(body: &[u8]) -> (AdmissionReview<DynamicObject>, Verdict) {
    let request = match read(body) {
        Ok(request) => request,
        Err(refusal) => return (*refusal, Verdict::Unreadable),
    };
    let found = if is_of_no_concern(&request) { Vec::new() } else { lint(&request) };
    let (errors, warnings): (Vec<_>, Vec<_>) = found.iter().partition(|finding| finding.severity() == Severity::Error);
    let text = |findings: &[&Finding]| findings.iter().map(ToString::to_string).collect::<Vec<_>>();

    let mut response = AdmissionResponse::from(&request);
    let mut verdict = Verdict::Admitted;
    if !warnings.is_empty() {
        response.warnings = Some(text(&warnings));
        verdict = Verdict::Warned;
    }
    if !errors.is_empty() {
        response = response.deny(text(&errors).join("; "));
        response.result.reason = "Invalid".into();
        response.result.code = 422;
        verdict = Verdict::Denied;
    }
    (response.into_review(), verdict)
}

/// What is about to go, and what keeps its spec, is not held up: a rule may be younger than the object.
fn is_of_no_concern(request: &AdmissionRequest<DynamicObject>) -> bool {
    let Some(object) = &request.object else { return true };
    object.metadata.deletion_timestamp.is_some()
        || request.old_object.as_ref().is_some_and(|old| old.data["spec"] == object.data["spec"])
}

fn lint(request: &AdmissionRequest<DynamicObject>) -> Vec<Finding> {
    let broken = |code, field: String, reason, remedy: &str| Finding { code, field, reason, remedy: remedy.to_owned() };
    let platform = match serde_json::to_value(&request.object).and_then(serde_json::from_value::<TaskPlatform>) {
        Ok(platform) => platform,
        Err(error) => {
            let reason = format!("this operator cannot read it: {error}");
            return vec![broken(
                Code::Shape,
                "spec".into(),
                reason,
                "mend it, or upgrade the operator together with its definition",
            )];
        }
    };
    match platform.check_rules() {
        Ok(()) => findings(&platform, None),
        Err(rules) => {
            let rules = rules.0.into_iter();
            rules.map(|rule| broken(Code::Rule, rule.field, rule.message, "mend the spec")).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(spec: &Value) -> Value {
        json!({
            "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform",
            "metadata": {"name": "tasks", "namespace": "default"}, "spec": spec,
        })
    }

    fn ask(object: &Value, old: &Value) -> (AdmissionResponse, Verdict) {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5", "operation": "CREATE", "name": "tasks", "namespace": "default", "dryRun": false,
                "kind": {"group": "taskplatform.dev", "version": "v1alpha1", "kind": "TaskPlatform"},
                "resource": {"group": "taskplatform.dev", "version": "v1alpha1", "resource": "taskplatforms"},
                "userInfo": {}, "object": object, "oldObject": old,
            },
        });
        let (review, verdict) = answer(review.to_string().as_bytes());
        assert_eq!(
            (review.types.api_version.as_str(), review.types.kind.as_str()),
            ("admission.k8s.io/v1", "AdmissionReview")
        );
        let response = review.response.unwrap();
        assert_eq!(response.uid, "705ab4f5");
        (response, verdict)
    }

    #[test]
    fn errors_deny_and_warnings_warn() {
        let (response, verdict) = ask(&object(&json!({})), &Value::Null);
        assert_eq!((response.allowed, verdict), (true, Verdict::Admitted), "{:?}", response.warnings);

        let (response, verdict) = ask(&object(&json!({"database": {"readReplicas": 0}})), &Value::Null);
        assert_eq!((response.allowed, verdict), (true, Verdict::Warned));
        assert!(response.warnings.unwrap()[0].contains("TP201"));

        let full = json!({"database": {"readReplicas": 0, "parameters": {"max_connections": "10"}}});
        let (response, verdict) = ask(&object(&full), &Value::Null);
        assert_eq!((response.allowed, response.result.code, verdict), (false, 422, Verdict::Denied));
        assert!(response.result.message.contains("spec.database.parameters.max_connections"));
        assert!(response.result.message.contains("TP101"));
        assert!(response.warnings.unwrap()[0].contains("TP201"), "warnings are told as well");

        let unusable = json!({"database": {"parameters": {"max_paralel_workers": "4", "shared_buffers": "2Gi"}}});
        let (response, verdict) = ask(&object(&unusable), &Value::Null);
        assert_eq!((response.allowed, verdict), (false, Verdict::Denied));
        for said in ["max_parallel_workers", "TP501", "write 2GB", "TP502"] {
            assert!(response.result.message.contains(said), "{}", response.result.message);
        }
    }

    #[test]
    fn what_an_older_operator_admitted_is_not_held_up() {
        let bad = object(&json!({"database": {"parameters": {"max_connections": "10"}}}));
        let mut labelled = bad.clone();
        labelled["metadata"]["labels"] = json!({"team": "a"});
        assert_eq!(ask(&labelled, &bad).1, Verdict::Admitted);

        let mut leaving = bad.clone();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(ask(&leaving, &object(&json!({}))).1, Verdict::Admitted);

        assert_eq!(ask(&bad, &object(&json!({}))).1, Verdict::Denied);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let (response, verdict) = ask(&object(&json!({"gateway": {"replica": 2}})), &Value::Null);
        assert_eq!((response.allowed, verdict), (false, Verdict::Denied));
        assert!(response.result.message.contains("TP001"), "{}", response.result.message);

        let (response, _) = ask(&object(&json!({"scaling": {"minInstances": 9, "maxInstances": 2}})), &Value::Null);
        assert!(response.result.message.contains("TP002"), "{}", response.result.message);

        let (review, verdict) = answer(b"?");
        assert_eq!((review.response.unwrap().allowed, verdict), (false, Verdict::Unreadable));
    }
}
