//! A TaskPlatform as it is stored.

use std::borrow::Cow;

use kube::{Resource, api::ObjectMeta};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use taskplatform_crds::TaskPlatform;

/// A stored TaskPlatform, read as far as this release can.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) metadata: ObjectMeta,
    /// Why it cannot be read, else.
    pub(crate) read: Result<TaskPlatform, String>,
    /// Fields that this release does not know: a definition of a later one has them.
    pub(crate) unknown: Vec<String>,
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Value::deserialize(deserializer)?;
        let metadata = ObjectMeta::deserialize(&document["metadata"]).map_err(D::Error::custom)?;
        let (read, unknown) = match TaskPlatform::read_stored(document) {
            Ok((platform, unknown)) => (Ok(platform), unknown),
            Err(error) => (Err(error.to_string()), Vec::new()),
        };
        Ok(Self { metadata, read, unknown })
    }
}

impl Resource for Found {
    type DynamicType = ();
    type Scope = <TaskPlatform as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        TaskPlatform::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        TaskPlatform::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        TaskPlatform::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        TaskPlatform::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
