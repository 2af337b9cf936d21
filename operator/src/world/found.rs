//! A TaskPlatform as it is stored.

use std::borrow::Cow;

use kube::{Resource, api::ObjectMeta};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};
use taskplatform_crds::TaskPlatform;

/// A stored TaskPlatform, read as far as this release can.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// What it says; of one whose spec cannot be read, all but the spec.
    pub(crate) platform: TaskPlatform,
    /// Why its spec cannot be read.
    pub(crate) unreadable: Option<String>,
    /// Fields that this release does not know: a definition of a later one has them.
    pub(crate) unknown: Vec<String>,
}

impl<'de> Deserialize<'de> for Found {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut document = Value::deserialize(deserializer)?;
        // Nobody reads them, and they are a tree of many small maps.
        if let Some(metadata) = document["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        let error = match TaskPlatform::read_stored(document.clone()) {
            Ok((platform, unknown)) => return Ok(Self { platform, unreadable: None, unknown }),
            Err(error) => error.to_string(),
        };
        document["spec"] = Value::Object(Map::new());
        let (platform, unknown) = TaskPlatform::read_stored(document).map_err(D::Error::custom)?;
        Ok(Self { platform, unreadable: Some(error), unknown })
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
        &self.platform.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.platform.metadata
    }
}
