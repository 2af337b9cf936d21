//! A TaskPlatform that a definition of a later release has admitted: read without the fields that this release does not know.

use serde_json::Value;

use crate::TaskPlatform;

/// More unknown fields than any release adds: what has more is no TaskPlatform.
const MOST: usize = 200;

impl TaskPlatform {
    /// Reads a stored TaskPlatform, and names the fields that this release does not know.
    ///
    /// # Errors
    /// When a field that it knows has no value that it knows.
    pub fn read_stored(
        mut document: Value,
    ) -> Result<(Self, Vec<String>), serde_path_to_error::Error<serde_json::Error>> {
        let mut unknown = Vec::new();
        loop {
            let error = match serde_path_to_error::deserialize(&document) {
                Ok(platform) => return Ok((platform, unknown)),
                Err(error) => error,
            };
            let Some(field) = take_unknown(&mut document, &error).filter(|_| unknown.len() < MOST) else {
                return Err(error);
            };
            unknown.push(field);
        }
    }
}

/// Takes out the field that the error calls unknown; its path, where there is one.
fn take_unknown(document: &mut Value, error: &serde_path_to_error::Error<serde_json::Error>) -> Option<String> {
    let message = error.inner().to_string();
    let name = message.strip_prefix("unknown field `")?.split('`').next()?;
    let path = error.path().to_string();
    // The path ends with the field itself, or with what contains it.
    let parent = path.strip_suffix(name).map_or(path.as_str(), |parent| parent.trim_end_matches('.'));
    let mut steps = parent.split('.').filter(|step| !step.is_empty());
    steps.try_fold(document, |value, step| value.get_mut(step))?.as_object_mut()?.remove(name)?;
    Some(format!("{parent}.{name}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_read_along() {
        let document =
            json!({"metadata": {"name": "tasks"}, "spec": {}, "status": {"observedGeneration": 3, "later": true}});
        let (platform, unknown) = TaskPlatform::read_stored(document).unwrap();
        assert_eq!(platform.status.map(|status| status.observed_generation), Some(3));
        assert_eq!(unknown, [""; 0], "what a later release reports holds nothing up");
    }

    #[test]
    fn fields_of_a_later_release_are_named_and_left_out() {
        let document = json!({
            "apiVersion": "taskplatform.dev/v1alpha1", "kind": "TaskPlatform", "metadata": {"name": "tasks"},
            "spec": {"later": {"a": 1}, "api": {"colour": "Blue", "replicas": 4}, "pooler": {"replicas": 3, "replicasLater": 1}},
        });
        let (platform, unknown) = TaskPlatform::read_stored(document).unwrap();
        assert_eq!(platform.spec.api.replicas.map(crate::Count::get), Some(4));
        assert_eq!(platform.spec.pooler.replicas.get(), 3);
        assert_eq!(unknown, ["spec.api.colour", "spec.later", "spec.pooler.replicasLater"]);
    }

    #[test]
    fn a_value_that_is_wrong_is_an_error() {
        let document = json!({"metadata": {"name": "tasks"}, "spec": {"api": {"replicas": "many"}}});
        assert!(TaskPlatform::read_stored(document).unwrap_err().to_string().starts_with("spec.api.replicas"));
    }
}
